"""What can be said of a run from its folder: its state, how far it is, its card."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cameo_protocol.errors import OperatorError
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import PLAN, RunStore

CARD, REPORT = "card.json", "report.html"
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RunState = Literal["running", "published", "stopped"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run in one line. started: UTC, "" before its first event; rounds: opened and planned training sums."""

    run: str
    name: str
    state: RunState
    started: str
    rounds_opened: int
    rounds_planned: int


def open_store(home: CoordinatorHome, run: str) -> RunStore:
    """The folder of a run that exists; a name that is not one plain folder is refused."""
    store = RunStore(home.runs / run)
    if not _RUN.fullmatch(run) or not (store.folder / PLAN).is_file():
        raise OperatorError("run-unknown", what=f"there is no run {run}", do="cameo runs")
    return store


def summarise(store: RunStore) -> RunSummary:
    """Read a run's plan and events."""
    plan = json.loads(store.plan())
    events = list(store.events())
    kinds = [event["event"] for event in events]
    state: RunState = "published" if "published" in kinds else "stopped" if _ended(kinds) else "running"
    opened = [event for event in events if event["event"] == "round" and event["kind"] == "train"]
    started = datetime.fromtimestamp(events[0]["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if events else ""
    return RunSummary(
        run=store.folder.name,
        name=str(plan["name"]),
        state=state,
        started=started,
        rounds_opened=len(opened),
        rounds_planned=int(plan["training"]["rounds"]),
    )


def _ended(kinds: list[str]) -> bool:
    """Whether the last word is a stop: a run that was resumed after one goes on."""
    last = {kind: place for place, kind in enumerate(kinds)}
    return last.get("stopped", -1) > last.get("resumed", -1)


def list_runs(home: CoordinatorHome) -> list[RunSummary]:
    """Every run of this home, newest first."""
    if not home.runs.is_dir():
        return []
    stores = [RunStore(folder) for folder in sorted(home.runs.iterdir(), reverse=True) if (folder / PLAN).is_file()]
    return [summarise(store) for store in stores]


def read_card(store: RunStore) -> bytes:
    """The model card as published; b"" before that."""
    path = store.folder / CARD
    return path.read_bytes() if path.is_file() else b""


def events_from(store: RunStore, seen: int) -> list[dict[str, Any]]:
    """The events after the first `seen` ones."""
    return list(store.events())[seen:]
