"""A run in one sentence: what a coordinator reads in a glance must be true in every state."""

from __future__ import annotations

from typing import Any

import pytest

from cameo_protocol.plan import RunPlan, parse_plan
from cameo_server.dashboard.health import Verdict, attendance, verdict
from cameo_server.dashboard.views import RunTable, charts, event_line, run_view
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import RunStore

from .conftest import make_run

NAMES = ["hospital-1", "hospital-2", "hospital-3", "hospital-4"]
IN: list[dict[str, Any]] = [{"event": "admission", "site": name, "answer": "accept", "time": 1.0} for name in NAMES]
KEYS = {"event": "epoch", "epoch": 1, "rounds": 9, "sites": NAMES, "time": 2.0}


def lost(name: str, at: float = 3.0) -> dict[str, Any]:
    return {"event": "lost", "site": name, "stage": "upload", "code": "no-answer", "time": at}


@pytest.fixture
def plan(plan_bytes: bytes) -> RunPlan:
    return parse_plan(plan_bytes)


def said(plan: RunPlan, events: list[dict[str, Any]], state: str = "running", now: float = 4.0) -> Verdict:
    return verdict(plan, state, attendance(NAMES, events), events, now)


def test_all_is_well(plan: RunPlan) -> None:
    assert said(plan, [*IN, KEYS]) == Verdict(level="good", text="Healthy: 4 of 4 hospitals are in.")


def test_before_all_have_answered(plan: RunPlan) -> None:
    found = said(plan, IN[:3])
    assert found.level == "warn"
    assert found.text == "Waiting for the answer of hospital-4 to the invitation; 3 of 4 are in."


def test_a_lost_hospital_is_named_first_with_the_round_and_the_stage(plan: RunPlan) -> None:
    events = [*IN, KEYS, {"event": "round", "round": 7, "time": 2.5}, lost("hospital-3")]
    present = attendance(NAMES, events)
    assert (present[0].name, present[0].where) == ("hospital-3", "lost")
    assert present[0].why == "no answer in time at the upload of round 8"
    found = said(plan, events)
    assert found.level == "warn"
    assert found.text.startswith("hospital-3 is missing. The run goes on: 3 of 4 are in")
    assert said(plan, [*events, {"event": "returned", "sites": ["hospital-3"], "time": 3.5}]).level == "good"


def test_who_declined_is_named_and_the_run_is_well(plan: RunPlan) -> None:
    events = [*IN[:3], IN[3] | {"answer": "declined-local"}, KEYS]
    assert said(plan, events).text == "Healthy: 3 of 4 hospitals are in; hospital-4 declined."
    assert attendance(NAMES, events)[0].why == "for a reason that stays there"


def test_too_few_say_until_when_and_what_to_do(plan: RunPlan) -> None:
    waiting = {"event": "waiting", "sites": ["hospital-3"], "seconds": 600.0, "needed": 3, "time": 3.0}
    found = said(plan, [*IN, KEYS, lost("hospital-3"), waiting])
    assert found.level == "bad"
    assert "Waiting for hospital-3 until 00:10 UTC" in found.text
    assert found.do


@pytest.mark.parametrize(("quiet", "level"), [(30.0, "good"), (3600.0, "bad")])
def test_silence_is_told(plan: RunPlan, quiet: float, level: str) -> None:
    found = said(plan, [*IN, KEYS], now=2.0 + quiet)
    assert found.level == level
    assert ("60 minutes" in found.text) == (level == "bad")


def test_a_cut_audit_log_is_not_well(plan: RunPlan) -> None:
    events = [*IN, KEYS, {"event": "audit-log-cut", "site": "hospital-2", "time": 3.0}]
    assert said(plan, events).level == "bad"
    assert "hospital-2" in event_line(events[-1])


def test_the_ends(plan: RunPlan) -> None:
    stop = {"event": "stopped", "code": "cohort-incomplete", "what": "only 2 are left", "do": "call them", "time": 4.0}
    assert said(plan, [*IN, stop], "stopped") == Verdict(
        level="bad", text="Stopped: only 2 are left (cohort-incomplete).", do="call them"
    )
    published = {"event": "published", "stored": NAMES[:3], "traffic": {}, "time": 9.0}
    found = said(plan, [*IN, published], "published", now=1e6)
    assert found == Verdict(level="good", text="Published: 3 of 4 hospitals stored the models.")
    assert said(plan, [], now=4.0).level == "warn"


def test_the_list_names_who_is_missing_and_reads_a_run_again_when_it_has_grown(
    tmp_path: Any, plan_bytes: bytes
) -> None:
    home = CoordinatorHome(tmp_path)
    assert RunTable(home).rows() == []
    store, table = make_run(home, plan_bytes), RunTable(home)
    first = table.rows()[0]
    assert (first.inside, first.hospitals, first.missing) == (4, 4, "")
    assert table.rows()[0] is first, "kept while nothing happens"
    store.event("lost", site="hospital-2", stage="upload", code="no-answer")
    again = table.rows()[0]
    assert (again.inside, again.missing) == (3, "hospital-2")


def test_a_void_round_is_a_gap_in_the_charts(tmp_path: Any, plan_bytes: bytes) -> None:
    store = make_run(CoordinatorHome(tmp_path), plan_bytes, rounds=2)
    common = {"kind": "train", "step": 2, "epoch": 1, "round": 3, "seconds": {"upload": 9.0}, "total_seconds": 9.0}
    store.event("void", **common, invited=NAMES, reason="too few uploads")
    found = charts(store)["charts"]
    assert found["norms"]["at"] == [1, 2, 3]
    assert [row[2] for row in found["norms"]["values"] + found["seconds"]["values"]] == [None] * 5
    assert run_view(store, 0.0).void == 1


def test_a_number_that_a_logarithm_cannot_show_is_a_gap(tmp_path: Any, plan_bytes: bytes) -> None:
    store = RunStore(tmp_path / "r")
    store.create(plan_bytes)
    common = {"kind": "train", "step": 0, "epoch": 1, "round": 1, "seconds": {"upload": 0.0}, "total_seconds": 0.0}
    store.event("round", **common, invited=NAMES, survivors=NAMES, norms={"risk": 0.0})
    found = charts(store)["charts"]
    assert found["norms"]["values"] == [[None]]
    assert found["seconds"]["values"] == [[0.0]]
