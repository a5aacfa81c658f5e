"""The three statements of a run, in both noise modes, as numbers and as sentences."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from privacy_plans import make_plan, release

from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import plan_releases, round_releases
from cameo_protocol.privacy.statements import Outlook, delta_for, outlook, statements


def test_delta_follows_the_population_and_never_exceeds_1e_5() -> None:
    assert delta_for(1) == 1e-5
    assert delta_for(920) == 1e-5
    assert delta_for(50_000) == pytest.approx(50_000**-1.1)
    assert delta_for(10**9) == pytest.approx(10**-9.9)


def test_a_plan_releases_spare_rounds_too() -> None:
    plan = make_plan(rounds=30, spare=3)
    counts = {task: (r.sigma, r.q, r.count) for task, r in plan_releases(plan)}
    sigma = {task.name: task.encoded.sigma for task in plan.tasks}
    assert counts == {
        "risk": (sigma["risk"], 1.0, 33),
        "segment": (sigma["segment"], 1.0, 33),
        "evaluation": (sigma["evaluation"], 1.0, 1),
    }
    assert [task for task, _ in round_releases(plan, "train")] == ["risk", "segment"]
    assert [(task, r.count) for task, r in round_releases(plan, "evaluate")] == [("evaluation", 1)]
    assert round_releases(plan, "recalibrate") == ()


def scaled(plan: object, factor: float) -> float:
    releases = plan_releases(plan)  # type: ignore[arg-type]
    return epsilon([release(r.sigma * factor, r.count) for _, r in releases], plan.privacy.delta)  # type: ignore[attr-defined]


def test_distributed_statements() -> None:
    plan = make_plan(n=7, t=5, c=2, epsilon=2.0)
    found = statements(plan)
    assert found.coord.epsilon == pytest.approx(2.0, rel=1e-8)
    assert found.model.epsilon == pytest.approx(scaled(plan, math.sqrt(5 / 3)), rel=1e-9)
    # Integer noise costs the bare statement a little, and only there.
    assert scaled(plan, 1 / math.sqrt(3)) <= found.bare.epsilon <= scaled(plan, 1 / math.sqrt(3)) * 1.1
    assert found.model.epsilon < found.coord.epsilon < found.bare.epsilon
    assert found.coord.delta == plan.privacy.delta + found.slack
    assert found.slack < plan.privacy.delta / 100


def test_local_statements() -> None:
    plan = make_plan(mode="local", n=3, t=3, c=0, epsilon=2.0)
    found = statements(plan)
    assert found.coord.epsilon == pytest.approx(2.0, rel=1e-8)
    assert found.model.epsilon == pytest.approx(scaled(plan, math.sqrt(3)), rel=1e-9)
    assert found.bare.epsilon == pytest.approx(found.coord.epsilon, rel=1e-9)


def test_sentences_name_adversary_epsilon_delta_and_unit() -> None:
    coord, model, bare, scope = statements(make_plan(epsilon=3.0)).sentences()
    assert coord == "Against the coordinator together with 1 colluding hospital: epsilon 3.00 at delta 1e-05."
    assert model.startswith("Against an outsider who sees the opened sums of at least 3 hospitals")
    assert bare.startswith("If every mask fell")
    assert "a patient of two hospitals counts twice" in scope
    assert "spare ones included" in scope
    local = statements(make_plan(mode="local", epsilon=3.0))
    assert local.coord.sentence.startswith("Against the coordinator and all other hospitals together")
    several = statements(make_plan(n=7, t=5, c=2)).coord.sentence
    assert "2 colluding hospitals" in several
    assert "the coordinator alone" in statements(make_plan(c=0)).coord.sentence


def test_a_claim_is_rounded_up_for_people() -> None:
    found = statements(make_plan(epsilon=2.001))
    assert "epsilon 2.01 at" in found.coord.sentence


def test_statements_are_json() -> None:
    found = json.loads(json.dumps(statements(make_plan()).as_dict()))
    assert found["unit"] == "patient"
    assert found["mode"] == "distributed"
    assert set(found["coord"]) == {"epsilon", "delta", "sentence"}


@pytest.mark.parametrize(("rounds", "spare", "marks"), [(30, 3, [8, 15, 23, 30, 33]), (1, 0, [1]), (2, 5, [1, 2, 7])])
def test_epsilon_against_rounds_ends_at_the_statements(rounds: int, spare: int, marks: list[int]) -> None:
    plan = make_plan(rounds=rounds, spare=spare)
    rows, said = outlook(plan), statements(plan)
    assert [row.rounds for row in rows] == marks
    assert (rows[-1].coord, rows[-1].model, rows[-1].bare) == (
        said.coord.epsilon,
        said.model.epsilon,
        said.bare.epsilon,
    )
    assert all(a.coord < b.coord and a.model < b.model and a.bare < b.bare for a, b in itertools.pairwise(rows))


def test_a_row_is_what_a_ledger_would_hold_after_those_rounds() -> None:
    plan = make_plan(rounds=30, spare=3)
    sigma = {task.name: task.encoded.sigma for task in plan.tasks}
    after = [release(sigma["risk"], 8), release(sigma["segment"], 8), release(sigma["evaluation"], 1)]
    assert outlook(plan)[0].coord == pytest.approx(epsilon(after, plan.privacy.delta), rel=1e-12)


def test_no_bound_is_null_in_json() -> None:
    assert Outlook(rounds=3, coord=1.0, model=0.5, bare=math.inf).as_dict() == {
        "rounds": 3, "coord": 1.0, "model": 0.5, "bare": None,
    }  # fmt: skip
