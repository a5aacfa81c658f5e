"""Runs outlive the processes that drive them: who drives a run, who has died, and starting it again where it was.

A run's process holds a lock in the run's folder as long as it lives; the kernel lets go of it, however it ends. A run
that has not ended and whose lock is free has lost its process, and the coordinator starts another one: it replays what
is on disk and goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import OperatorError
from cameo_server.home import CoordinatorHome, write_file
from cameo_server.run.store import RunStore

FLOWER = "flower.json"
LOCK = "driver.lock"
ENDED = ("published", "finished")
# Deaths in a row without one round in between, after which a run is not started again by itself.
MOST_DEATHS = 3
# How long a run's new process waits for its predecessor to be gone.
HANDOVER_S = 30.0
_POLL_S = 0.2


class Launcher(Protocol):
    """What is needed of `flower.control.Control`."""

    def start_run(self, bundle: bytes, config: dict[str, str | int | float | bool]) -> int:
        """Start a Flower run; returns its id."""

    def stop_run(self, run_id: int) -> bool:
        """Stop a Flower run."""

    def run_status(self, run_id: int) -> Any:
        """Its `.status`: "pending", "starting", "running" or "finished"."""


@contextlib.contextmanager
def driving(store: RunStore, flower_run: int, patience_s: float = HANDOVER_S) -> Iterator[None]:
    """Be the one process that drives a run; `OperatorError` "run-busy" when another one does not go away."""
    until = time.monotonic() + patience_s
    with (store.folder / LOCK).open("a+") as lock:
        while not _locked(lock):
            if time.monotonic() > until:
                raise OperatorError(
                    "run-busy",
                    what=f"another process drives run {store.folder.name}",
                    do=f"cameo watch {store.folder.name}",
                )
            time.sleep(_POLL_S)
        lock.truncate(0)
        lock.write(str(flower_run))
        lock.flush()
        yield


def driven(store: RunStore) -> bool:
    """Whether a process drives the run now."""
    path = store.folder / LOCK
    if not path.exists():
        return False
    with path.open("a+") as lock:
        return not _locked(lock)


def launch(control: Launcher, home: CoordinatorHome, run: str, plan_id: str, deaths: int = 0) -> None:
    """Start a process for a run, new or left. deaths: how many it has died without getting on in between."""
    from cameo_server.flower.bundle import build_bundle

    store = RunStore(home.runs / run)
    config: dict[str, str | int | float | bool] = {
        "plan": "plan.json",
        "plan-sha256": plan_id,
        "run": run,
        "home": str(home.root),
    }
    flower = control.start_run(build_bundle(conf_dir()), config)
    state = {"run_id": flower, "plan_id": plan_id, "deaths": deaths, "rounds": _rounds(store)}
    write_file(store.folder / FLOWER, json.dumps(state).encode())


def resume(control: Launcher, home: CoordinatorHome, run: str) -> bool:
    """Go on with a run that has not ended; False when a process drives it already."""
    store = RunStore(home.runs / run)
    state = _state(store)
    if state is None:
        raise OperatorError("run-unknown", what=f"there is no run {run}", do="cameo runs")
    if any(event["event"] in ENDED for event in store.events()):
        raise OperatorError(
            "run-ended", what=f"run {run} has ended, and its hospitals were told", do="start a new run: cameo run"
        )
    if driven(store):
        return False
    with contextlib.suppress(OperatorError):  # it has ended already, as far as Flower knows
        control.stop_run(state["run_id"])
    launch(control, home, run, state["plan_id"])
    return True


@dataclass
class Watchman:
    """Looks after the runs of a coordinator that runs. say: told each step in one line."""

    home: CoordinatorHome
    say: Callable[[str], None]
    _over: set[str] = field(default_factory=set)
    _first: bool = True

    def look(self, control: Launcher) -> None:
        """Start every run again whose process has died. The first look also takes up what an earlier life left."""
        for path in sorted(self.home.runs.glob(f"*/{FLOWER}")):
            store = RunStore(path.parent)
            if store.folder.name not in self._over:
                self._look_after(control, store)
        self._first = False

    def _look_after(self, control: Launcher, store: RunStore) -> None:
        run, state = store.folder.name, _state(store)
        if state is None or driven(store):
            return
        if any(event["event"] in (*ENDED, "stopped") for event in store.events()):
            self._over.add(run)
            return
        if not self._first and not self._died(control, store, state["run_id"]):
            return
        with contextlib.suppress(OperatorError):  # it has ended already, as far as Flower knows
            control.stop_run(state["run_id"])
        deaths = state["deaths"] + 1 if _rounds(store) == state["rounds"] else 0
        if deaths > MOST_DEATHS:
            self._give_up(store)
            return
        launch(control, self.home, run, state["plan_id"], deaths)
        self.say(f"run {run} goes on: its process had died")

    def _died(self, control: Launcher, store: RunStore, flower_run: int) -> bool:
        """Whether the process of the last start is gone, and not only still on its way."""
        lock = store.folder / LOCK
        if lock.exists() and lock.read_text() == str(flower_run):
            return True
        return bool(control.run_status(flower_run).status == "finished")

    def _give_up(self, store: RunStore) -> None:
        run = store.folder.name
        store.event(
            "stopped",
            code="server-app-died",
            what=f"the run's process ended {MOST_DEATHS + 1} times before the next round did",
            do=f"read logs/superexec.log of the coordinator's home, then: cameo run --resume {run}",
        )
        self.say(f"run {run} is not started again: its process died {MOST_DEATHS + 1} times without getting on")


def _locked(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _rounds(store: RunStore) -> int:
    """How many rounds have ended: what tells getting on from dying again and again."""
    return sum(1 for _ in store.folder.glob("round-*.json"))


def _state(store: RunStore) -> dict[str, Any] | None:
    path: Path = store.folder / FLOWER
    try:
        kept = json.loads(path.read_bytes())
        numbers = {name: int(kept[name]) for name in ("run_id", "deaths", "rounds")}
        return {**numbers, "plan_id": str(kept["plan_id"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
