"""The coordinator's Flower ServerApp: reads the plan that it was started with and drives the run.

Started by superexec in a process of its own; everything it needs to know is in the coordinator's home.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cameo_protocol.quiet import quiet_flower

quiet_flower()

import httpx  # noqa: E402
from flwr.app import Context  # noqa: E402 - Flower reads its environment at import
from flwr.serverapp import Grid, ServerApp  # noqa: E402

from cameo_protocol.errors import Bug, CameoError, ExitCode, OperatorError  # noqa: E402
from cameo_protocol.facts import feature_names  # noqa: E402
from cameo_protocol.logs import get_logger  # noqa: E402
from cameo_protocol.plan import RunPlan, parse_plan  # noqa: E402
from cameo_server.audit import COORDINATOR, open_audit  # noqa: E402
from cameo_server.definitions import read_catalogue  # noqa: E402
from cameo_server.flower.exchange import Exchange  # noqa: E402
from cameo_server.home import CoordinatorHome, load_ed25519, open_home  # noqa: E402
from cameo_server.launch import open_control  # noqa: E402
from cameo_server.membership import former_identities, roster  # noqa: E402
from cameo_server.nodes import node_ids  # noqa: E402
from cameo_server.resuming import driving  # noqa: E402
from cameo_server.run.driver import GOES_ON, RunDriver  # noqa: E402
from cameo_server.run.party import Parties  # noqa: E402
from cameo_server.run.release_gate import require  # noqa: E402
from cameo_server.run.store import RunStore  # noqa: E402

log = get_logger(__name__)
app = ServerApp()
# What our own fault looked like, for a report of it; the coordinator holds no patient's data.
TRACE = "failure.txt"
VERSIONS = ("cameo-fl", "flwr", "torch", "opacus", "cryptography", "opendp", "dp-accounting")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run. What happened is in runs/ID/events.jsonl; an error of ours is its last event."""
    config = context.run_config
    home = open_home(Path(str(config["home"])))
    run = str(config["run"])
    store = RunStore(home.runs / run)
    try:
        with driving(store, context.run_id):
            plan = _plan(store, str(config["plan-sha256"]))
            with open_control(home) as control:
                nodes = node_ids(home, control, plan)
            try:
                drive(Exchange(grid), home, store, run, plan, nodes)
            finally:
                note_end(home, run, store.events())
    except CameoError as error:
        log.error("run-stopped", run=run, code=error.code)
        _say_stopped(store, error)
    except (httpx.HTTPError, OSError):
        raise  # the SuperLink is gone for good: a death like any other, after which the run goes on
    except Exception as error:
        # Our own fault: said in the events, so that nobody waits for a run that is dead.
        store.save_bytes(TRACE, traceback.format_exc().encode())
        store.event("stopped", code="server-app-failed", what=type(error).__name__, do=f"read {store.folder / TRACE}")
        raise


def _say_stopped(store: RunStore, error: CameoError) -> None:
    """For what went wrong before the run was driven; an error from then on is told already, or the run goes on."""
    if error.code in GOES_ON or any(event["event"] == "stopped" for event in store.events()):
        return
    store.event("stopped", code=error.code, what=error.what, do=error.do)


def drive(
    exchange: Exchange, home: CoordinatorHome, store: RunStore, run: str, plan: RunPlan, nodes: dict[int, int]
) -> None:
    """Drive a run over an exchange. nodes: Shamir index -> Flower node id."""
    parties = Parties(
        plan=plan,
        nodes=nodes,
        exchange=exchange,
        store=store,
        clock=time.monotonic,
        pause=time.sleep,
        head_file=home.heads,
        former=former_identities(home),
    )
    features = len(feature_names(read_catalogue(plan.data.catalogue)))
    driver = RunDriver(
        parties=parties,
        run=run,
        key=load_ed25519(home.plan_key),
        features=features,
        versions={name: version(name) for name in VERSIONS},
        members=lambda: members_left(home, plan),
        audit=lambda: require(home, plan),
    )
    driver.execute()


def note_end(home: CoordinatorHome, run: str, events: Iterable[dict[str, Any]]) -> None:
    """Write down, once, how a run ended and whose audit log was found cut, as its events say."""
    with open_audit(home) as log:
        for event in events:
            match event:
                case {"event": "audit-log-cut", "site": site}:
                    log.note_if_new("site-log-cut-noticed", who=COORDINATOR, about=site, run=run)
                case {"event": "published"}:
                    log.note_if_new("models-released", who=COORDINATOR, about=run)
                case {"event": "stopped", "code": code}:
                    log.note_if_new("run-stopped", who=COORDINATOR, about=run, code=code)


def members_left(home: CoordinatorHome, plan: RunPlan) -> frozenset[int]:
    """Indices of a plan's hospitals that the roster still holds with the same key."""
    members = {site.index: site.identity for site in roster(home)}
    return frozenset(site.index for site in plan.cohort.sites if members.get(site.index) == site.identity)


def _plan(store: RunStore, wanted: str) -> RunPlan:
    raw = store.plan()
    if hashlib.sha256(raw).hexdigest() != wanted:
        raise OperatorError(
            "plan-changed",
            what="plan.json is not the plan with which this run was started",
            do="start the run again: cameo run",
            exit=ExitCode.USAGE,
        )
    plan = parse_plan(raw)
    if plan.plan_id() != wanted:
        raise Bug("plan-id", what="a plan whose id is not the hash of its canonical form")
    return plan
