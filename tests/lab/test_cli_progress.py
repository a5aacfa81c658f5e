"""A run's events as lines for people."""

from __future__ import annotations

import pytest

from cameo_server.cli.progress import figures, line


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "start", "run": "r1", "name": "heart", "plan_id": "ab" * 32}, "run r1 of heart, plan abababababab"),
        ({"event": "admission", "site": "a", "answer": "declined-local"}, "a: declined-local"),
        ({"event": "lost", "site": "a", "stage": "upload", "code": "no-answer"}, "a is lost at upload: no-answer"),
        ({"event": "epoch", "epoch": 1, "rounds": 9, "sites": ["a", "b"]}, "epoch 1: keys for 9 rounds of a, b"),
        (
            {"event": "round", "kind": "train", "round": 2, "survivors": ["a", "b"], "total_seconds": 1.234},
            "train round 2: sum of a, b; 1.23 s",
        ),
        ({"event": "void", "kind": "train", "round": 3, "reason": "too few"}, "train round 3 is void: too few"),
        ({"event": "published", "stored": ["a"]}, "published to a"),
        ({"event": "finished", "told": ["a"]}, "told the end: a"),
        ({"event": "finished", "told": []}, "nobody had to be told the end"),
        ({"event": "stopped", "code": "cohort-incomplete"}, "stopped: cohort-incomplete"),
        ({"event": "something-new", "x": 1}, "something-new"),
        ({"event": "evaluated", "figures": {}}, "nothing to evaluate"),
    ],
)
def test_each_event_is_one_line(event: dict[str, object], words: str) -> None:
    assert line(event) == words


def test_a_figure_comes_with_its_interval_or_with_why_there_is_none() -> None:
    auc = {"value": 0.8123, "low": 0.75, "high": 0.87}
    assert figures("risk", {"auc": auc}) == "risk: AUC 0.812 (0.750 to 0.870)"
    assert figures("risk", {"auc": None, "note": "too noisy"}) == "risk: no AUC (too noisy)"
    assert figures("risk", {"auc": None, "note": "too noisy to say: auc, brier"}) == "risk: no AUC (too noisy to say)"
    assert line({"event": "evaluated", "figures": {"risk": {"auc": auc}}}) == figures("risk", {"auc": auc})


def test_a_recalibration_that_changed_nothing_says_so() -> None:
    note = "not applied: the noise leaves slope and intercept too uncertain"
    event = {"event": "recalibrated", "corrections": {"risk": {"applied": False, "note": note}}}
    expected = "risk: recalibration not applied (the noise leaves slope and intercept too uncertain)"
    assert line(event) == expected
    assert line({"event": "recalibrated", "corrections": {"risk": {"applied": True}}}) == "risk: recalibrated"
