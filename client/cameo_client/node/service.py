"""The node as a long-running process: everything it needs is opened, checked and handed to the hospital's handler."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cameo_client.consent.store import ConsentStore
from cameo_client.home import NodeHome, load_config, load_identity, write_file
from cameo_client.ledger import Ledger
from cameo_client.membership import load_federation
from cameo_client.node.admission import Gatekeeper
from cameo_client.node.failpoints import Failpoints
from cameo_client.node.hospital import Hospital
from cameo_client.node.journal import DiskJournal
from cameo_client.node.publication import Library
from cameo_client.node.study import LocalData, load_local, open_study
from cameo_client.policy_file import load_policy
from cameo_client.training.noise import discrete_gaussian
from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.federation import Federation

log = logging.getLogger(__name__)
# The ledger's own delta, fixed when it is opened and for ever; plans may state a smaller one, never a larger.
LEDGER_DELTA = 1e-5
NODE_ID = "flower-node-id"
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
        Ledger.create(
            home.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time, random=os.urandom
        ).shut()
    return Ledger.open(home.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time)


@dataclass(frozen=True)
class Node:
    """A hospital that is ready to answer. published: runs whose models have just been stored."""

    hospital: Hospital
    federation: Federation
    ledger: Ledger
    local: Callable[[], LocalData]
    consents: ConsentStore
    published: queue.SimpleQueue[str]


def open_node(home: NodeHome, stack: ExitStack) -> Node:
    """Open keys, ledger, journal, consents; the stack closes them. Data are read at the first invitation.

    Missing or damaged parts are `OperatorError`s that say what to do.
    """
    config, federation = load_config(home), load_federation(home)
    load_policy(home.policy)
    ledger = stack.enter_context(open_ledger(home))
    journal = DiskJournal(home.journal)
    stack.callback(journal.close)
    consents = stack.enter_context(ConsentStore.open(home.consent))
    local = _Once(lambda: load_local(home))
    published: queue.SimpleQueue[str] = queue.SimpleQueue()
    coordinator = bytes.fromhex(federation.coordinator)
    gate = Gatekeeper(
        site=config.site,
        coordinator=coordinator,
        identity=load_identity(home),
        policy=lambda: load_policy(home.policy).policy,
        study=lambda plan: open_study(home, plan, local.fresh(), consents, _now),
        ledger=ledger,
        noise=discrete_gaussian,
        random=os.urandom,
        report=_report,
    )
    library = Library(home.models, coordinator, ledger, published.put)
    reach = Failpoints.from_environment(config.site).reach
    hospital = Hospital(gate, library, journal, os.urandom, _report, reach)
    return Node(hospital, federation, ledger, local.last, consents, published)


class _Once:
    """The hospital's data as last read."""

    def __init__(self, read: Callable[[], LocalData]) -> None:
        self._read = read
        self._data: LocalData | None = None

    def fresh(self) -> LocalData:
        """Read the source anew: each run sees the snapshot there is when it begins."""
        self._data = self._read()
        return self._data

    def last(self) -> LocalData:
        """What the run saw; read now when no run has begun in this process."""
        return self._data if self._data is not None else self.fresh()


def run_node(home: NodeHome, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Serve the coordinator until `stop` is set; blocks. say: told each change in one line.

    Published models are scored and turned into tags here, after the coordinator has its answer, so that nothing
    about the patients shows in when or what the node answers.
    """
    from cameo_client.flower.agent import AgentState, run_agent
    from cameo_client.flower.keys import NodeKeys
    from cameo_client.home import load_node_key
    from cameo_client.tagging import tag_patients

    with ExitStack() as stack:
        node = open_node(home, stack)
        key = load_node_key(home)
        failure: list[CameoError] = []

        def on_state(state: AgentState, node_id: int) -> None:
            say(f"{state.value}")
            if node_id:
                write_file(home.root / NODE_ID, str(node_id).encode())

        def serve() -> None:
            try:
                run_agent(
                    node.federation.address,
                    node.federation.ca_pem.encode(),
                    NodeKeys(key, key.public_key()),
                    node.hospital.handle,
                    stop,
                    on_state,
                    node_id=_known_id(home.root / NODE_ID),
                )
            except CameoError as error:
                failure.append(error)
                stop.set()

        agent = threading.Thread(target=serve, name="agent")
        agent.start()
        try:
            while not stop.is_set():
                try:
                    run = node.published.get(timeout=WAKE_S)
                except queue.Empty:
                    continue
                _tag(lambda run=run: tag_patients(home, node.local(), node.consents, run, _now()), run, say)  # type: ignore[misc]
        finally:
            stop.set()
            agent.join()
        if failure:
            raise failure[0]


def _tag(work: Callable[[], object], run: str, say: Callable[[str], None]) -> None:
    """Write tags; a failure is this hospital's own affair and does not stop the node."""
    try:
        work()
        say(f"tags written for run {run}")
    except CameoError as error:
        log.error("tags for run %s: %s", run, error)
        say(f"no tags for run {run}: {error.code}; {error.do}")


def _known_id(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def _report(code: str, what: str) -> None:
    log.warning("%s: %s", code, what)


def _now() -> datetime:
    return datetime.now(UTC)
