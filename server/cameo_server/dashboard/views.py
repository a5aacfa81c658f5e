"""What the pages show, as plain values: nothing here knows HTTP or HTML."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cameo_protocol.plan import parse_plan
from cameo_protocol.privacy.statements import outlook_at, rounded_up
from cameo_protocol.web.words import KINDS_OF_ROUND, listed
from cameo_server.cli.progress import line
from cameo_server.dashboard.health import Attendance, Verdict, attendance, verdict
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import EVENTS, PLAN, RunStore
from cameo_server.run.summary import RunSummary, summarise

NEWEST_EVENTS = 200


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run as its page shows it. charged: rounds that were asked for, void ones included. epsilon: against the
    coordinator, if the run ended now; text. median_s: of a round, 0 before the first. events: (UTC text, line), newest
    first."""

    summary: RunSummary
    health: Verdict
    charged: int
    void: int
    spare: int
    epsilon: str
    promised: str
    median_s: float
    hospitals: list[Attendance]
    needed: int
    figures: dict[str, Any]
    events: list[tuple[str, str]]

    @property
    def inside(self) -> int:
        """How many hospitals are in."""
        return sum(one.where == "in" for one in self.hospitals)


def run_view(store: RunStore, now: float) -> RunView:
    """Read a run's folder. now: unix seconds."""
    events, summary = list(store.events()), summarise(store)
    plan_bytes = store.plan()
    rounds = [event for event in events if event["event"] in ("round", "void")]
    training = sum(1 for event in rounds if event["kind"] == "train")
    plan = parse_plan(plan_bytes)
    seconds = sorted(float(event["total_seconds"]) for event in rounds if event["event"] == "round")
    present = attendance([site.name for site in plan.cohort.sites], events)
    last = events[-1]["time"] if events else now
    return RunView(
        summary=summary,
        health=verdict(plan, summary.state, present, events, now),
        charged=training,
        void=sum(1 for event in rounds if event["event"] == "void"),
        spare=plan.training.spare,
        epsilon=_epsilon(plan_bytes, training) if training else "0.00",
        promised=_epsilon(plan_bytes, plan.training.rounds + plan.training.spare),
        median_s=seconds[len(seconds) // 2] if seconds else 0.0,
        hospitals=present,
        needed=plan.cohort.threshold,
        figures=next((event["figures"] for event in events if event["event"] == "evaluated"), {}),
        events=[(_clock(event["time"], last), event_line(event)) for event in events[-NEWEST_EVENTS:]][::-1],
    )


@lru_cache(maxsize=512)
def _epsilon(plan: bytes, rounds: int) -> str:
    return rounded_up(outlook_at(parse_plan(plan), rounds).coord)


def event_line(event: Mapping[str, Any]) -> str:
    """An event in one line; the members of a sum by who is not among them, as that is what one looks for.

    >>> event_line({"event": "round", "kind": "train", "round": 2, "total_seconds": 1.234, "invited": ["a", "b"],
    ...             "survivors": ["b"]})
    'training round 2: sum of 1 of 2, without a; 1.23 s'
    """
    shown = dict(event)
    if "kind" in event:
        shown["kind"] = KINDS_OF_ROUND.get(event["kind"], event["kind"])
    if event["event"] == "round":
        out = [name for name in event["invited"] if name not in event["survivors"]]
        members = f"all {len(event['invited'])}" if not out else f"{len(event['survivors'])} of {len(event['invited'])}"
        shown["survivors"] = members + (f", without {listed(out)}" if out else "")
    return line(shown)


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run in the list. inside: hospitals that are in; missing: names of those that were lost or declined."""

    summary: RunSummary
    inside: int
    hospitals: int
    missing: str


@dataclass
class RunTable:
    """The runs of a home, newest first; a run is read again when its events have grown."""

    home: CoordinatorHome
    _kept: dict[str, tuple[tuple[int, int], RunRow]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def rows(self) -> list[RunRow]:
        """Of every run that has a plan."""
        if not self.home.runs.is_dir():
            return []
        with self._lock:
            folders = sorted(self.home.runs.iterdir(), reverse=True)
            return [self._row(RunStore(folder)) for folder in folders if (folder / PLAN).is_file()]

    def _row(self, store: RunStore) -> RunRow:
        try:
            stat = (store.folder / EVENTS).stat()
            version = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            version = (0, 0)
        known = self._kept.get(store.folder.name)
        if known is None or known[0] != version:
            known = (version, run_row(store))
            self._kept[store.folder.name] = known
        return known[1]


def run_row(store: RunStore) -> RunRow:
    """One run's line in the list."""
    names = [str(site["name"]) for site in json.loads(store.plan())["cohort"]["sites"]]
    present = attendance(names, list(store.events()))
    missing = [one.name for one in present if one.where in ("lost", "declined")]
    return RunRow(
        summary=summarise(store),
        inside=sum(one.where == "in" for one in present),
        hospitals=len(present),
        missing=listed(missing, most=3) if missing else "",
    )


def presence(members: Sequence[str], online: Mapping[str, bool]) -> str:
    """Who of the members is there, in one sentence; "" without members.

    >>> presence(["a", "b"], {"a": True}), presence(["a"], {"a": True})
    ('1 of 2 members is online; offline: b', 'The only member is online')
    """
    away = [name for name in members if not online.get(name)]
    here = len(members) - len(away)
    if not members:
        return ""
    if not away:
        return "The only member is online" if here == 1 else f"All {here} members are online"
    return f"{here} of {len(members)} members {'is' if here == 1 else 'are'} online; offline: {listed(away)}"


def charts(store: RunStore) -> dict[str, Any]:
    """The points of a run's charts. norms: L2 norm of each block of the noisy sum; seconds: of each stage.

    A void round has its place and no value.
    """
    kinds = ("round", "void")
    rounds = [event for event in store.events() if event["event"] in kinds and event["kind"] == "train"]
    numbers = [event["round"] for event in rounds]
    stages = [event["seconds"] if event["event"] == "round" else {} for event in rounds]
    norms = [event.get("norms", {}) for event in rounds]
    return {
        "live": summarise(store).state == "running",
        "charts": {
            "norms": _chart("norm of the noisy sum", numbers, norms, digits=0, log=True),
            "seconds": _chart("seconds", numbers, stages, digits=2, log=False),
        },
    }


def _chart(y: str, at: list[int], rows: Sequence[Mapping[str, float]], *, digits: int, log: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    # A logarithmic scale has no place for 0.
    values = [[row.get(name) or (None if log else row.get(name)) for row in rows] for name in names]
    return {"x": "round", "y": y, "at": at, "series": names, "values": values, "digits": digits, "log": log}


def _clock(seconds: float, last: float) -> str:
    """The time of day, with its date where that is not the day of the last event."""
    at = datetime.fromtimestamp(seconds, UTC)
    same = at.date() == datetime.fromtimestamp(last, UTC).date()
    return at.strftime("%H:%M:%S" if same else "%m-%d %H:%M:%S")
