"""Starting the coordinator's processes, and starting and following runs on them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import Bug, OperatorError
from cameo_protocol.plan import RunPlan, Site
from cameo_server.chores import Chore
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.home import CoordinatorHome, load_config, write_file
from cameo_server.membership import renew_server_certificate, roster
from cameo_server.planning import resolve
from cameo_server.resuming import ENDED, Watchman, driven, launch, resume
from cameo_server.run.release_gate import require
from cameo_server.run.store import RunStore

STATE = "state.json"
ROSTER_POLL_S = 2.0
RENEWAL_POLL_S = 3600.0
EVENT_POLL_S = 0.1
DEATH_POLL_S = 3.0


def start_coordinator(
    home: CoordinatorHome,
    stop: threading.Event,
    say: Callable[[str], None],
    *,
    fleet_host: str = "0.0.0.0",  # noqa: S104
    metrics_port: int | None = None,
) -> None:
    """Run the gated SuperLink, superexec, the operator interface and the dashboard until `stop` is set; blocks.

    fleet_host: the address hospitals reach, on the fleet, operator and join ports; Flower's other APIs are on
    loopback. say: told each step in one line. A second coordinator on one home is an `OperatorError`, as is a port
    in use. metrics_port: of the numbers for a monitoring system on this machine; None: not shown.
    """
    from cameo_server.api.server import serve_api
    from cameo_server.api.services import Coordinator
    from cameo_server.dashboard.server import serve_dashboard
    from cameo_server.flower.supervisor import SuperLinkStack
    from cameo_server.metrics import serve_numbers
    from cameo_server.nodes import contacts, let_in_members

    with _only_one(home):
        settings = _settings(home, fleet_host)
        with SuperLinkStack(settings) as stack, stack.control() as control, contextlib.ExitStack() as ports:
            state = {"pid": os.getpid(), "control": settings.control_address, "fleet_port": settings.fleet_port}
            let_in_members(home, control)
            runs = Watchman(home, say)
            runs.look(control)  # before anybody can start a run: what is there now is from an earlier life
            coordinator = Coordinator(home, contacts=lambda: contacts(home, control))
            ports.enter_context(serve_api(coordinator, fleet_host))
            ports.enter_context(serve_dashboard(coordinator))
            if metrics_port is not None:
                ports.enter_context(serve_numbers(coordinator, metrics_port))
            write_file(home.flower / STATE, json.dumps(state).encode())
            say(f"ready: hospitals connect to port {settings.fleet_port}")
            _look_after(home, control, runs, stop, say)
    (home.flower / STATE).unlink(missing_ok=True)


def _look_after(
    home: CoordinatorHome, control: Any, runs: Watchman, stop: threading.Event, say: Callable[[str], None]
) -> None:
    """Until `stop` is set: let members in and lock others out, start runs again, renew the server's certificate."""
    from cameo_server.nodes import let_in_members

    barred: frozenset[str] = frozenset()
    renewal = 0.0
    doorkeeping, renewing = Chore(say), Chore(say)
    while not stop.wait(ROSTER_POLL_S):
        with doorkeeping.tried():
            doors = let_in_members(home, control)
            for name in doors.fresh:
                say(f"let in: {name}")
            for name in sorted(doors.barred - barred):
                say(f"{name} has a key that is locked out for good: revoke it, and invite it again")
            barred = doors.barred
            runs.look(control)
        if time.monotonic() >= renewal:
            renewal = time.monotonic() + RENEWAL_POLL_S
            with renewing.tried():
                if renew_server_certificate(home, datetime.now(UTC)):
                    say("the server certificate has been renewed; new connections get it within a minute")


def running(home: CoordinatorHome) -> dict[str, Any] | None:
    """pid, control address and fleet port of the coordinator that runs on this home; None when none does."""
    try:
        with _only_one(home):
            return None
    except OperatorError:
        try:
            state: dict[str, Any] = json.loads((home.flower / STATE).read_bytes())
        except (OSError, ValueError):
            return None
        return state


def make_plan(home: CoordinatorHome, overrides: Sequence[str]) -> RunPlan:
    """Compose and resolve an experiment for the hospitals of the roster. Nothing is sent."""
    return make_plan_for(roster(home), overrides)


def make_plan_for(sites: Sequence[Site], overrides: Sequence[str]) -> RunPlan:
    """Compose and resolve an experiment for these hospitals, on any machine that has the configuration."""
    experiment = compose_experiment(conf_dir(), overrides)
    catalogue, label = read_catalogue(experiment.data.catalogue), read_label(experiment.data.label)
    return resolve(experiment, catalogue, label, tuple(sites))


def start_run(home: CoordinatorHome, plan: RunPlan, *, run: str | None = None) -> str:
    """Start a run of a plan on the running coordinator; returns the run's id, the name of its folder in runs/.

    A plan without an audit that passed is refused: `release_gate.require`.
    """
    require(home, plan)
    with open_control(home) as control:
        from cameo_server.nodes import let_in_members

        let_in_members(home, control)
        run = run or time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
        RunStore(home.runs / run).create(plan.canonical())
        launch(control, home, run, plan.plan_id())
    return run


def resume_run(home: CoordinatorHome, run: str) -> bool:
    """Go on with a run that was left in the middle; False when a process drives it already."""
    with open_control(home) as control:
        return resume(control, home, run)


def stop_run(store: RunStore) -> bool:
    """Ask a run to stop before its next round; hospitals are told the end. False when it has ended already."""
    if any(event["event"] in ENDED for event in store.events()):
        return False
    store.ask_to_stop()
    return True


def follow(home: CoordinatorHome, run: str, gone: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """The events of a run as they come; the last is "published", or "finished" after a "stopped" that says why.

    A run whose process dies is started again by the coordinator, so the events go on. gone: true once nobody reads any
    more.
    """
    store = RunStore(home.runs / run)
    seen: list[dict[str, Any]] = []
    looked = time.monotonic()
    while not gone():
        fresh = list(store.events())[len(seen) :]
        yield from fresh
        seen += fresh
        if any(event["event"] in ENDED for event in fresh):
            return
        if fresh:
            looked = time.monotonic()
        elif time.monotonic() - looked > DEATH_POLL_S:
            looked = time.monotonic()
            if seen and seen[-1]["event"] == "stopped" and not driven(store):
                return  # nobody is left to tell the hospitals
            if running(home) is None:
                raise _not_started(home)
        time.sleep(EVENT_POLL_S)


@contextlib.contextmanager
def open_control(home: CoordinatorHome) -> Iterator[Any]:
    """A client of the running coordinator's Control API; an `OperatorError` when none runs."""
    from cameo_server.flower.control import Control

    state = require_running(home)
    token = (home.flower / "control.token").read_text().strip()
    with Control(state["control"], token) as control:
        yield control


def require_running(home: CoordinatorHome) -> dict[str, Any]:
    """What `running` says; an `OperatorError` when no coordinator runs on this home."""
    state = running(home)
    if state is None:
        raise _not_started(home)
    return state


def _not_started(home: CoordinatorHome) -> OperatorError:
    return OperatorError(
        "coordinator-not-started", what=f"no coordinator runs on {home.root}", do="cameo coordinator start"
    )


def _settings(home: CoordinatorHome, fleet_host: str) -> Any:
    from cameo_server.flower.settings import SuperLinkSettings

    config = load_config(home)
    return SuperLinkSettings(
        home=home.root,
        certificate=home.server_cert,
        key=home.server_key,
        fleet_host=fleet_host,
        fleet_port=config.fleet_port,
        control_port=_control_port(home),
    )


def _control_port(home: CoordinatorHome) -> int:
    """A loopback port that stays the same, so that a run's process finds the SuperLink again after a restart."""
    path = home.flower / "control.port"
    if path.exists():
        return int(path.read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    write_file(path, str(port).encode())
    return port


@contextlib.contextmanager
def _only_one(home: CoordinatorHome) -> Iterator[None]:
    """Hold the home's lock; an `OperatorError` when another process does."""
    home.flower.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Path(home.flower / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(
                "coordinator-running",
                what=f"a coordinator runs on {home.root} already",
                do="cameo coordinator status, or stop it first",
            ) from None
        except OSError as error:
            raise Bug("lock", what=f"cannot lock {home.flower}: {error.strerror}") from None
        yield
