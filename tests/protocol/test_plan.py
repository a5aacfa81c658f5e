"""Run plans: one canonical form, one id; every unsound plan and every other form is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cameo_protocol.epochs import epoch_params
from cameo_protocol.errors import Reject
from cameo_protocol.layout import LARGEST_SCALE
from cameo_protocol.plan import MAX_PLAN_BYTES, Encoded, RunPlan, parse_plan
from cameo_protocol.stages import EpochCall

BLOCK = {"dim": 5, "clip": 1.0, "bound": 64.0, "scale": 1024, "sigma": 2.5}
COUNTS = {"dim": 8, "clip": 1.0, "bound": 100.0, "scale": 1, "sigma": 3.0}


def raw_plan(**changes: Any) -> dict[str, Any]:
    """A small sound plan as plain values."""
    risk = {"kind": "risk", "label": "event", "label_sha256": "0" * 64, "rate": 0.1, "share": 0.6, "encoded": BLOCK}
    segment = {
        "kind": "segment",
        "clusters": 2,
        "temperature": 1.0,
        "rate": 0.1,
        "share": 0.2,
        "encoded": BLOCK | {"dim": 7},
    }
    histogram = {"kind": "evaluation", "name": "evaluation", "bins": 4, "share": 0.1, "encoded": COUNTS}
    sites = [{"name": f"site-{i}", "index": i, "identity": f"{i:064x}"} for i in (1, 2, 3, 4)]
    return {
        "name": "demo",
        "seed": 1,
        "data": {"catalogue": "demo", "catalogue_sha256": "0" * 64, "holdout": 0.2},
        "cohort": {"sites": sites, "threshold": 3, "colluders": 1},
        "privacy": {"mode": "distributed", "epsilon": 3.0, "delta": 1e-5, "population": 900},
        "training": {"rounds": 3, "spare": 2},
        "tasks": [risk, segment, histogram],
    } | changes


PLAN = RunPlan.model_validate(raw_plan())


def unsound(path: str, value: Any) -> dict[str, Any]:
    """The sound plan with one field changed; path: keys and positions joined by dots."""
    plan = json.loads(json.dumps(raw_plan()))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = plan
    for part in parents:
        place = place[part]
    place[last] = value
    return plan


def test_round_trip_and_id() -> None:
    raw = PLAN.canonical()
    assert parse_plan(raw) == PLAN
    assert PLAN.plan_id() == hashlib.sha256(raw).hexdigest()
    assert b" " not in raw
    # Defaults are written out.
    assert json.loads(raw)["deadlines"] == {"admit": 120.0, "setup": 60.0, "stage": 15.0, "regroup": 120.0}


def test_every_number_of_a_plan_is_in_its_id() -> None:
    changes = [("seed", 2), ("privacy.epsilon", 2.0), ("training.spare", 3), ("tasks.0.encoded.sigma", 2.6)]
    ids = {RunPlan.model_validate(unsound(*change)).plan_id() for change in changes}
    assert len(ids | {PLAN.plan_id()}) == len(changes) + 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("name", "../etc"),
        ("seed", -1),
        ("extra", 1),
        ("data.holdout", 0.0),
        ("data.holdout", 1.0),
        ("data.catalogue_sha256", "0" * 63),
        ("privacy.epsilon", 0.0),
        ("privacy.epsilon", float("nan")),
        ("privacy.delta", 0.0),
        ("privacy.delta", 0.5),
        ("privacy.mode", "none"),
        ("privacy.unit", "record"),
        ("privacy.population", 0),
        ("training.rounds", 0),
        ("training.spare", -1),
        ("cohort.threshold", 2),
        ("cohort.threshold", 5),
        ("cohort.colluders", 2),
        ("cohort.colluders", -1),
        ("cohort.sites.0.index", 2),
        ("cohort.sites.0.index", 0),
        ("cohort.sites.0.index", 256),
        ("cohort.sites.0.name", "site-2"),
        ("cohort.sites.0.identity", f"{2:064x}"),
        ("cohort.sites", [{"name": f"s{i}", "index": i, "identity": f"{i:064x}"} for i in (1, 2)]),
        ("tasks", []),
        ("tasks.0.kind", "code"),
        ("tasks.0.encoded.sigma", 0.0),
        ("tasks.0.encoded.sigma", float("inf")),
        ("tasks.0.encoded.scale", 0),
        ("tasks.0.encoded.clip", -1.0),
        ("tasks.0.name", "segment"),
        ("tasks.1.clusters", 1),
        ("tasks.2.of", "segment"),
        ("tasks.2.bins", 5),
        ("deadlines", {"stage": 0}),
    ],
)
def test_an_unsound_plan_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        RunPlan.model_validate(unsound(path, value))
    with pytest.raises(Reject, match="plan-invalid"):
        parse_plan(json.dumps(unsound(path, value), sort_keys=True, separators=(",", ":")).encode())


def test_distributed_noise_needs_two_honest_hospitals() -> None:
    sites = raw_plan()["cohort"]["sites"][:3]
    few = {"sites": sites, "threshold": 3, "colluders": 2}
    with pytest.raises(ValidationError, match="t - c >= 2"):
        RunPlan.model_validate(raw_plan(cohort=few))
    local = raw_plan()["privacy"] | {"mode": "local"}
    assert RunPlan.model_validate(raw_plan(cohort=few, privacy=local)).cohort.colluders == 2


@pytest.mark.parametrize("change", [b"%s ", b" %s", b"%s\n", b"\xef\xbb\xbf%s"])
def test_another_form_of_the_same_plan_is_refused(change: bytes) -> None:
    with pytest.raises(Reject, match="plan-invalid"):
        parse_plan(change % PLAN.canonical())


def test_other_spellings_of_a_plan_are_refused() -> None:
    raw = PLAN.canonical()
    for one, other in ((b"0.2", b"0.20"), (b'"seed":1', b'"seed":1,"seed":1'), (b'"seed":1', b'"seed":"1"')):
        assert one in raw
        with pytest.raises(Reject, match="plan-invalid"):
            parse_plan(raw.replace(one, other, 1))


def test_a_plan_is_bounded_in_size_and_depth() -> None:
    with pytest.raises(Reject, match="at most"):
        parse_plan(b" " * (MAX_PLAN_BYTES + 1))
    for raw in (b"[" * 100_000, b'{"a":' * 50_000):
        with pytest.raises(Reject, match="plan-invalid"):
            parse_plan(raw)


@given(st.binary(max_size=200))
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(Reject, match="plan-invalid"):
        parse_plan(raw)


@given(st.data())
def test_a_changed_byte_gives_another_plan_or_a_refusal(data: st.DataObject) -> None:
    raw = bytearray(PLAN.canonical())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        plan = parse_plan(bytes(raw))
    except Reject:
        return
    assert plan != PLAN
    assert plan.canonical() == bytes(raw)


def test_layouts_follow_the_tasks() -> None:
    train, evaluate = PLAN.layout("train"), PLAN.layout("evaluate")
    assert [(block.name, block.dim, block.counts) for block in train.blocks] == [
        ("risk", 5, False),
        ("segment", 7, False),
    ]
    assert [(block.name, block.dim, block.counts) for block in evaluate.blocks] == [("evaluation", 8, True)]
    assert PLAN.layout("recalibrate").blocks == ()
    assert [PLAN.rounds_of(kind) for kind in ("train", "evaluate", "recalibrate")] == [3, 1, 0]
    assert PLAN.parameter_spans() == {"risk": slice(0, 5), "segment": slice(5, 12)}
    assert [task.name for task in PLAN.trained()] == ["risk", "segment"]


def test_an_epoch_takes_its_numbers_from_the_plan() -> None:
    params = epoch_params(PLAN, EpochCall(run="r", epoch=4, rounds=6, parties=(1, 2, 4)))
    assert (params.plan_id.hex(), params.run_id, params.epoch, params.rounds) == (PLAN.plan_id(), "r", 4, 6)
    assert (params.threshold, params.colluders) == (3, 1)
    assert [(party.index, party.identity) for party in params.parties] == [
        (i, bytes.fromhex(f"{i:064x}")) for i in (1, 2, 4)
    ]
    assert [layout.kind for layout in params.layouts] == ["train", "evaluate"]


def test_an_epoch_with_a_stranger_is_refused() -> None:
    with pytest.raises(Reject, match="party-unknown"):
        epoch_params(PLAN, EpochCall(run="r", epoch=1, rounds=6, parties=(1, 2, 9)))


def test_a_scale_beyond_the_documented_one_is_refused() -> None:
    Encoded(dim=1, clip=1, bound=1, scale=LARGEST_SCALE, sigma=1)
    for scale in (0, LARGEST_SCALE + 1):
        with pytest.raises(ValidationError):
            Encoded(dim=1, clip=1, bound=1, scale=scale, sigma=1)
