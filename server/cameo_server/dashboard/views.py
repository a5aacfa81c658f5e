"""What the pages show, as plain values: nothing here knows HTTP or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cameo_protocol.plan import parse_plan
from cameo_protocol.privacy.statements import outlook_at, rounded_up
from cameo_server.cli.progress import line
from cameo_server.run.store import RunStore
from cameo_server.run.summary import RunSummary, summarise

NEWEST_EVENTS = 200


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run as its page shows it. charged: rounds that were asked for, void ones included. epsilon: against the
    coordinator, if the run ended now; text. median_s: of a round, 0 before the first."""

    summary: RunSummary
    charged: int
    void: int
    epsilon: str
    promised: str
    median_s: float
    hospitals: list[tuple[str, str]]
    figures: dict[str, Any]
    stopped: str
    events: list[tuple[str, str]]


def run_view(store: RunStore) -> RunView:
    """Read a run's folder."""
    events, summary = list(store.events()), summarise(store)
    plan_bytes = store.plan()
    rounds = [event for event in events if event["event"] in ("round", "void")]
    training = sum(1 for event in rounds if event["kind"] == "train")
    plan = parse_plan(plan_bytes)
    seconds = sorted(float(event["total_seconds"]) for event in rounds if event["event"] == "round")
    stopped = [event for event in events if event["event"] == "stopped"]
    return RunView(
        summary=summary,
        charged=training,
        void=sum(1 for event in rounds if event["event"] == "void"),
        epsilon=_epsilon(plan_bytes, training) if training else "0.00",
        promised=_epsilon(plan_bytes, plan.training.rounds + plan.training.spare),
        median_s=seconds[len(seconds) // 2] if seconds else 0.0,
        hospitals=_hospitals([site.name for site in plan.cohort.sites], events),
        figures=next((event["figures"] for event in events if event["event"] == "evaluated"), {}),
        stopped=f"{stopped[-1]['code']}: {stopped[-1]['what']}" if stopped and summary.state == "stopped" else "",
        events=[(_clock(event["time"]), line(event)) for event in events[-NEWEST_EVENTS:]][::-1],
    )


@lru_cache(maxsize=512)
def _epsilon(plan: bytes, rounds: int) -> str:
    return rounded_up(outlook_at(parse_plan(plan), rounds).coord)


def _hospitals(names: Sequence[str], events: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(name, state) of every hospital of the plan: invited, in, lost, or how it declined."""
    state = dict.fromkeys(names, "invited")
    for event in events:
        match event:
            case {"event": "admission", "site": site, "answer": answer}:
                state[site] = "in" if answer == "accept" else str(answer)
            case {"event": "lost", "site": site, "code": code}:
                state[site] = f"lost ({code})"
            case {"event": "returned", "sites": sites}:
                state |= dict.fromkeys(sites, "in")
    return list(state.items())


def charts(store: RunStore) -> dict[str, Any]:
    """The points of a run's charts. norms: L2 norm of each block of the noisy sum; seconds: of each stage."""
    rounds = [event for event in store.events() if event["event"] == "round" and event["kind"] == "train"]
    steps = [event["step"] + 1 for event in rounds]
    return {
        "live": summarise(store).state == "running",
        "charts": {
            "norms": _chart("round", "norm of the noisy sum", steps, [event["norms"] for event in rounds]),
            "seconds": _chart("round", "seconds", steps, [event["seconds"] for event in rounds]),
        },
    }


def _chart(x: str, y: str, at: list[int], rows: list[dict[str, float]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"x": x, "y": y, "at": at, "series": names, "values": [[row.get(n) for row in rows] for n in names]}


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
