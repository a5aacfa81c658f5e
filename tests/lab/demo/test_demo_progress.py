"""The lines a person sees while a demo runs without a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from cameo_lab.demo.progress import TRAINING, Progress
from cameo_lab.demo.summary import last_event, round_events, setup_seconds

EVENTS: list[dict[str, Any]] = [
    {"event": "admission", "site": "a", "answer": "accept", "time": 1.0},
    {"event": "admission", "site": "b", "answer": "declined-policy", "time": 2.0},
    {"event": "epoch", "sites": ["a", "c"], "rounds": 4, "time": 3.5},
    {"event": "round", "round": 1, "step": 1, "kind": "train", "total_seconds": 0.5},
    {"event": "lost", "site": "c", "stage": "ack", "code": "no-answer"},
    {"event": "void", "round": 2, "reason": "too few"},
    {"event": "returned", "sites": ["c"]},
    {"event": "round", "round": 3, "step": 2, "kind": "evaluate", "total_seconds": 0.25},
    {"event": "something new"},
]


def test_events_become_lines() -> None:
    lines: list[str] = []
    with Progress(lines.append) as progress:
        progress._live = False
        progress.stage("data")
        for event in EVENTS:
            progress.event(event)
    assert lines == [
        "… data",
        "b declined (declined-policy)",
        "keys set up for 4 rounds: a, c",
        f"… {TRAINING}",
        "lost: c at ack (no-answer)",
        "round 2 is void (too few); it is charged and not repeated",
        "back again: c",
        "  evaluate round 3: 0.25 s",
    ]


def test_events_are_found_again() -> None:
    assert last_event(EVENTS, "round")["round"] == 3
    assert last_event(EVENTS, "published") == {}
    assert [event["round"] for event in round_events(EVENTS)] == [1, 2, 3]
    assert setup_seconds(EVENTS) == pytest.approx(1.5)
    assert setup_seconds([]) == 0
    assert setup_seconds(EVENTS[:2]) == 0
