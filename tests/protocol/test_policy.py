"""A plan against the officer's policy: every field that can refuse does, with its own code and line."""

from __future__ import annotations

from typing import Any

import pytest

from cameo_protocol.envelope import fingerprint
from cameo_protocol.plan import Cohort, RunPlan, Site
from cameo_protocol.policy import Policy, check, check_coordinator

COORDINATOR = bytes(range(32))
HASH = "ab" * 32
ENCODED = {"dim": 10, "clip": 1.0, "bound": 100.0, "scale": 64, "sigma": 4.0}


def sites(n: int) -> list[dict[str, Any]]:
    return [{"name": f"hospital-{i}", "index": i, "identity": f"{i:064x}"} for i in range(1, n + 1)]


def plan(n: int = 4, t: int = 3, c: int = 1, **changes: Any) -> RunPlan:
    values: dict[str, Any] = {
        "name": "test",
        "seed": 1,
        "data": {"catalogue": "heart", "catalogue_sha256": HASH, "holdout": 0.2},
        "cohort": {"sites": sites(n), "threshold": t, "colluders": c},
        "privacy": {"mode": "distributed", "epsilon": 3.0, "delta": 1e-5, "population": 920},
        "training": {"rounds": 10, "spare": 1},
        "tasks": [
            {
                "kind": "risk",
                "label": "heart_disease",
                "label_sha256": HASH,
                "rate": 0.1,
                "share": 0.6,
                "encoded": ENCODED,
            },
            {"kind": "segment", "clusters": 3, "temperature": 1.0, "rate": 0.1, "share": 0.2, "encoded": ENCODED},
            {
                "kind": "evaluation",
                "name": "evaluation",
                "bins": 5,
                "share": 0.1,
                "encoded": ENCODED | {"scale": 1},
            },
        ],
    }
    return RunPlan.model_validate(values | changes)


def policy(n: int = 4, **changes: Any) -> Policy:
    values: dict[str, Any] = {
        "version": 1,
        "coordinator": fingerprint(COORDINATOR),
        "peers": {s["name"]: fingerprint(bytes.fromhex(s["identity"])) for s in sites(n)},
        "allowed": {
            "tasks": ["risk", "segment", "evaluation"],
            "models": ["logistic"],
            "privacy": ["distributed"],
            "catalogues": ["heart"],
            "labels": ["heart_disease"],
        },
    }
    return Policy.model_validate(values | changes)


def allowed(**changes: Any) -> dict[str, Any]:
    return policy().allowed.model_dump() | changes


def refused(some_policy: Policy, some_plan: RunPlan) -> list[tuple[str, str]]:
    return [(r.code, r.field) for r in check(some_policy, some_plan, some_plan.cohort)]


def test_a_fitting_plan_is_accepted() -> None:
    assert check(policy(), plan(), plan().cohort) == []


def test_an_unapproved_key_is_refused() -> None:
    peers = dict(policy().peers)
    del peers["hospital-3"]
    assert refused(policy(peers=peers), plan()) == [("peer-not-approved", "peers")]


def test_a_changed_key_is_refused_and_both_are_shown() -> None:
    peers = policy().peers | {"hospital-3": fingerprint(b"another")}
    (refusal,) = check(policy(peers=peers), plan(), plan().cohort)
    assert (refusal.code, refusal.field) == ("peer-key-changed", "peers.hospital-3")
    assert fingerprint(b"another") in refusal.what
    assert fingerprint(bytes.fromhex(f"{3:064x}")) in refusal.what


def test_an_approved_key_under_another_name_is_refused() -> None:
    roster = sites(4)
    roster[2]["name"] = "hospital-9"
    swapped = plan(cohort={"sites": roster, "threshold": 3, "colluders": 1})
    assert refused(policy(), swapped) == [("peer-not-approved", "peers")]


@pytest.mark.parametrize(
    ("changes", "some_plan", "expected"),
    [
        ({"floors": {"hospitals": 5}}, plan(), ("cohort-too-small", "floors.hospitals")),
        ({"floors": {"threshold": 4}}, plan(), ("threshold-too-low", "floors.threshold")),
        ({"floors": {"colluders": 2}}, plan(), ("colluders-too-few", "floors.colluders")),
        ({"floors": {"sigma": 4.5}}, plan(), ("sigma-too-low", "floors.sigma")),
        (
            {"caps": {"epsilon_per_data_set": 2.9, "epsilon_per_year": 3}},
            plan(),
            ("epsilon-over-cap", "caps.epsilon_per_data_set"),
        ),
        ({"caps": {"epsilon_per_year": 2.9}}, plan(), ("epsilon-over-cap", "caps.epsilon_per_year")),
        ({"allowed": allowed(tasks=("risk", "segment"))}, plan(), ("task-not-allowed", "allowed.tasks")),
        ({"allowed": allowed(models=("mlp",))}, plan(), ("model-not-allowed", "allowed.models")),
        ({"allowed": allowed(privacy=("local",))}, plan(), ("privacy-not-allowed", "allowed.privacy")),
        ({"allowed": allowed(catalogues=())}, plan(), ("catalogue-not-allowed", "allowed.catalogues")),
        ({"allowed": allowed(labels=("lapse",))}, plan(), ("label-not-allowed", "allowed.labels")),
    ],
)
def test_every_line_can_refuse(changes: dict[str, Any], some_plan: RunPlan, expected: tuple[str, str]) -> None:
    assert expected in refused(policy(**changes), some_plan)


def test_a_threshold_of_two_thirds_or_less_is_refused_whatever_the_floor() -> None:
    assert refused(policy(9), plan(9, t=6, c=1)) == [("threshold-too-low", "floors.threshold")]
    assert refused(policy(9), plan(9, t=7, c=1)) == []


def test_the_cohort_that_is_left_is_held_against_the_floors() -> None:
    left = Cohort(sites=tuple(Site(**s) for s in sites(3)), threshold=3, colluders=1)
    assert check(policy(), plan(), left) == []
    assert [r.code for r in check(policy(floors={"hospitals": 4}), plan(), left)] == ["cohort-too-small"]


def test_one_task_below_the_least_noise_refuses_the_plan() -> None:
    tasks = [task.model_dump() for task in plan().tasks]
    tasks[2]["encoded"]["sigma"] = 1e-9
    (refusal,) = check(policy(), plan(tasks=tasks), plan().cohort)
    assert refusal.code == "sigma-too-low"
    assert "evaluation" in refusal.what


def test_the_coordinator_is_checked_by_fingerprint() -> None:
    assert check_coordinator(policy(), COORDINATOR) == []
    (refusal,) = check_coordinator(policy(), bytes(32))
    assert (refusal.code, refusal.field) == ("coordinator-not-approved", "coordinator")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"coordinator": "abc"},
        {"peers": {"hospital-1": "0" * 49}},
        {"peers": {"Hospital 1": fingerprint(b"")}},
        {"floors": {"hospitals": 2}},
        {"floors": {"sigma": 0}},
        {"floors": {"sigma": float("nan")}},
        {"caps": {"epsilon_per_year": -1}},
        {"allowed": allowed(models=("xgboost",))},
        {"allowed": {"tasks": []}},
        {"budget": 3},
    ],
)
def test_a_policy_is_strict(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        policy(**changes)
