"""The node as a long-running process: everything it needs is opened, checked and handed to the hospital's handler."""

from __future__ import annotations

import json
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cameo_client.audit import NODE, note_files, open_audit
from cameo_client.consent.store import ConsentStore
from cameo_client.data.scratch import sweep
from cameo_client.home import NodeHome, load_config, load_identity, write_file
from cameo_client.ledger import Ledger
from cameo_client.membership import load_federation
from cameo_client.node.admission import Gatekeeper, Study
from cameo_client.node.failpoints import Failpoints
from cameo_client.node.hospital import Hospital
from cameo_client.node.journal import DiskJournal
from cameo_client.node.peers import PeerHeads
from cameo_client.node.publication import Library
from cameo_client.node.study import LocalData, load_local, open_study
from cameo_client.node.upkeep import Upkeep
from cameo_client.node.witness import Witness
from cameo_client.policy_file import load_policy
from cameo_client.running import alone, require_awake
from cameo_client.training.noise import discrete_gaussian
from cameo_protocol.audit_store import AuditLog
from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.federation import Federation
from cameo_protocol.logs import get_logger
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.policy import Policy

if TYPE_CHECKING:
    from cameo_client.tags.apply import Outcome

Handle = Callable[[Packet], Packet]
log = get_logger(__name__)
# The ledger's own delta, fixed when it is opened and for ever; plans may state a smaller one, never a larger.
LEDGER_DELTA = 1e-5
STATE = "state.json"
WAKE_S = 0.25


def open_ledger(home: NodeHome) -> Ledger:
    """This hospital's ledger. It is made once, with the node's first start; a ledger that is gone is not made again."""
    dataset = load_config(home).data.name
    if not home.ledger.exists():
        if home.journal.exists():
            raise OperatorError(
                "ledger-missing",
                what=f"{home.ledger} is gone, though this node has taken part in runs",
                do="restore it from a backup: what has been spent cannot be forgotten",
                exit=ExitCode.POLICY,
            )
        Ledger.create(home.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time, random=os.urandom).shut()
    return Ledger.open(home.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time)


@dataclass(frozen=True)
class Node:
    """A hospital that is ready to answer. published: runs whose models have just been stored."""

    hospital: Hospital
    federation: Federation
    ledger: Ledger
    local: Callable[[], LocalData]
    read: Callable[[], LocalData | None]
    consents: ConsentStore
    audit: AuditLog
    published: queue.SimpleQueue[str]


def open_node(home: NodeHome, stack: ExitStack) -> Node:
    """Open keys, ledger, journal, consents; the stack closes them. Data are read at the first invitation.

    Missing or damaged parts are `OperatorError`s that say what to do.
    """
    config, federation = load_config(home), load_federation(home)
    load_policy(home.policy)
    sweep(home.scratch)
    ledger = stack.enter_context(open_ledger(home))
    audit = stack.enter_context(open_audit(home))
    audit.verify()
    note_files(audit, home)
    reach = Failpoints.from_environment(config.site).reach
    journal = DiskJournal(home.journal, reach)
    stack.callback(journal.close)
    consents = stack.enter_context(ConsentStore.open(home.consent))
    local = _Once(lambda: load_local(home, today=_now().date()))
    published: queue.SimpleQueue[str] = queue.SimpleQueue()

    def study(plan: RunPlan) -> Study:
        require_awake(home)
        return open_study(home, plan, local.fresh(), consents, _now)

    def stored(run: str) -> None:
        audit.note("model-stored", who=NODE, about=run)
        published.put(run)

    gate = _gatekeeper(home, federation, ledger, audit, study)
    library = Library(home.models, gate.coordinator, ledger, stored)
    hospital = Hospital(gate, library, journal, os.urandom, _report, reach)
    return Node(hospital, federation, ledger, local.last, local.seen, consents, audit, published)


def _gatekeeper(
    home: NodeHome, federation: Federation, ledger: Ledger, audit: AuditLog, study: Callable[[RunPlan], Study]
) -> Gatekeeper:
    def policy() -> Policy:
        note_files(audit, home)
        return load_policy(home.policy).policy

    return Gatekeeper(
        site=load_config(home).site,
        coordinator=bytes.fromhex(federation.coordinator),
        identity=load_identity(home),
        policy=policy,
        study=study,
        ledger=ledger,
        noise=discrete_gaussian,
        random=os.urandom,
        report=_report,
        peers=PeerHeads(home.peers),
        witness=Witness(audit, home.receipt),
    )


class _Once:
    """The hospital's data as last read."""

    def __init__(self, read: Callable[[], LocalData]) -> None:
        self._read = read
        self._data: LocalData | None = None

    def fresh(self) -> LocalData:
        """Read the source anew: each run sees the snapshot there is when it begins."""
        self._data = self._read()
        return self._data

    def seen(self) -> LocalData | None:
        """As last read, if they were."""
        return self._data

    def last(self) -> LocalData:
        """What the run saw; read now when no run has begun in this process."""
        return self._data if self._data is not None else self.fresh()


def run_node(
    home: NodeHome, stop: threading.Event, say: Callable[[str], None], metrics_port: int | None = None
) -> None:
    """Serve the coordinator until `stop` is set; blocks. say: told each change in one line.

    Published models are scored and turned into tags here, after the coordinator has its answer, so that nothing
    about the patients shows in when or what the node answers.
    """
    from cameo_client.page.server import serve_page

    # Steps as short as ours lose time with several threads, on a busy machine most of it; read when torch is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ExitStack() as stack:
        stack.enter_context(alone(home))
        node = open_node(home, stack)
        state, upkeep = NodeState.load(home), Upkeep(home, say, _now, random.random)
        failure: list[CameoError] = []

        def serve() -> None:
            try:
                _serve(home, node, handle, state, upkeep, stop)
            except CameoError as error:
                failure.append(error)
                stop.set()

        handle = stack.enter_context(_measured(home, node, metrics_port))
        threads = [threading.Thread(target=serve, name="agent"), threading.Thread(target=upkeep.loop, args=(stop,))]
        for thread in threads:
            thread.start()
        try:
            stack.enter_context(serve_page(home, say))
            _tag_published(home, node, state, stop, say)
        finally:
            stop.set()
            upkeep.wake()
            for thread in threads:
                thread.join()
        for error in (*failure, *([upkeep.ended] if upkeep.ended else [])):
            raise error


@contextmanager
def _measured(home: NodeHome, node: Node, port: int | None) -> Iterator[Handle]:
    """The hospital's handler; where a port is given, its numbers are shown there, on this machine only."""
    if port is None:
        yield node.hospital.handle
        return
    from cameo_client.metrics import NodeMetrics
    from cameo_protocol.web.scrape import serve_metrics

    def quality() -> float | None:
        read = node.read()
        return None if read is None else read.data.quality.score

    metrics = NodeMetrics()
    with open_ledger(home) as ledger:
        metrics.add_budget(ledger, lambda: load_policy(home.policy).policy.caps)
        metrics.add_quality(quality)
        with serve_metrics(metrics.registry, port):
            yield metrics.watching(node.hospital.handle)


def _serve(home: NodeHome, node: Node, handle: Handle, state: NodeState, upkeep: Upkeep, stop: threading.Event) -> None:
    """Answer the coordinator until `stop` is set."""
    from cameo_client.flower.agent import AgentState, run_agent
    from cameo_client.flower.keys import NodeKeys
    from cameo_client.home import load_node_key

    def on_state(agent: AgentState, node_id: int) -> None:
        upkeep.heard(agent.value)
        state.update(agent=agent.value, node_id=node_id or state.node_id)

    key = load_node_key(home)
    run_agent(
        node.federation.address,
        node.federation.ca_pem.encode(),
        NodeKeys(key, key.public_key()),
        handle,
        stop,
        on_state,
        node_id=state.node_id or None,
    )


def _tag_published(
    home: NodeHome, node: Node, state: NodeState, stop: threading.Event, say: Callable[[str], None]
) -> None:
    """Score and tag with all models that serve whenever one is published, until `stop` is set."""
    from cameo_client.tagging import tag_patients

    while not stop.is_set():
        try:
            run = node.published.get(timeout=WAKE_S)
        except queue.Empty:
            continue
        work = partial(tag_patients, home, node.local(), node.consents, None, _now())
        state.update(tags=_tag(work, run, say))
        if not state.tags["error"]:
            node.audit.note("tags-applied", who=NODE, about=run)


def _tag(work: Callable[[], Outcome], run: str, say: Callable[[str], None]) -> dict[str, str]:
    """Write tags; a failure is this hospital's own affair and does not stop the node. Returns what is kept of it."""
    try:
        outcome = work()
    except CameoError as error:
        log.error("tags-failed", run=run, code=error.code)
        say(f"no tags for run {run}: {error.code}; {error.do}")
        return {"run": run, "error": error.code}
    for one in outcome.world.given.left_out:
        say(f"the model {one.name or 'file'} of run {one.run} does not serve: {one.what}")
    say(f"tags written for run {run}")
    return {"run": run, "error": ""}


@dataclass
class NodeState:
    """state.json: what `cameo-node status` shows of the running process, and the Flower id it comes back with.

    tags: the run whose tags were written last, and the error that kept them from being written.
    """

    path: Path
    agent: str = "stopped"
    node_id: int = 0
    tags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, home: NodeHome) -> NodeState:
        """As it was left; the empty state when there is none or it is unreadable."""
        path = home.root / STATE
        try:
            kept = json.loads(path.read_bytes())
            return cls(path, "stopped", int(kept["node_id"]), dict(kept["tags"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path)

    def update(self, **changes: Any) -> None:
        """Change fields and write the file."""
        for name, value in changes.items():
            setattr(self, name, value)
        body = {"agent": self.agent, "node_id": self.node_id, "tags": self.tags, "pid": os.getpid()}
        write_file(self.path, json.dumps(body).encode())


def _report(code: str, what: str) -> None:
    """Into the node's log: the code, and the code within the text; the text itself may say more than a log may hold."""
    log.warning("reported", code=code, cause=what.partition(":")[0])


def _now() -> datetime:
    return datetime.now(UTC)
