"""Hospitals without patients: the real handler, keys, ledger, journal and policy; only the vectors are made up.

What the run path is tested with, where whole hospitals would be slow.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.audit import open_audit
from cameo_client.home import PRIVATE, NodeHome, key_pem, write_file
from cameo_client.ledger import Ledger
from cameo_client.node import admission as node_admission
from cameo_client.node.admission import Gatekeeper, Study
from cameo_client.node.hospital import Hospital
from cameo_client.node.journal import DiskJournal
from cameo_client.node.peers import PeerHeads
from cameo_client.node.publication import Library
from cameo_client.node.witness import Witness
from cameo_lab.in_process import DirectExchange
from cameo_protocol.confdir import conf_dir
from cameo_protocol.envelope import fingerprint
from cameo_protocol.facts import feature_names
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan, Site
from cameo_protocol.policy import Allowed, Caps, Policy
from cameo_protocol.stages import REVEAL, UPLOAD, RoundCall
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve
from cameo_server.run.driver import RunDriver
from cameo_server.run.party import Exchange, Parties
from cameo_server.run.store import RunStore
from passed_audit import passed_audit

COORDINATOR = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
DELTA = 1e-5
FEATURES = len(feature_names(read_catalogue("cardiometabolic")))


def identity(index: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(index.to_bytes(32, "big"))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def small_site(index: int, name: str = "") -> Site:
    return Site(name=name or f"hospital-{index}", index=index, identity=public(identity(index)).hex())


def small_plan(n: int, *overrides: str, sites: tuple[Site, ...] = ()) -> RunPlan:
    """A plan of n hospitals, or of these."""
    sites = sites or tuple(small_site(i) for i in range(1, n + 1))
    chosen = ("data.population=4000", "deadlines.regroup=0", "deadlines.stage=5", *overrides)
    experiment = compose_experiment(conf_dir(), chosen)
    catalogue, label = read_catalogue(experiment.data.catalogue), read_label(experiment.data.label)
    return resolve(experiment, catalogue, label, sites)


def permissive(plan: RunPlan) -> Policy:
    return Policy(
        version=1,
        coordinator=fingerprint(public(COORDINATOR)),
        peers={site.name: fingerprint(bytes.fromhex(site.identity)) for site in plan.cohort.sites},
        caps=Caps(epsilon_per_data_set=50, epsilon_per_year=50),
        allowed=Allowed(
            tasks=("risk", "segment", "evaluation", "recalibration"),
            models=("logistic", "mlp"),
            privacy=("distributed", "local"),
            catalogues=(plan.data.catalogue,),
            labels=tuple(task.label for task in plan.tasks if task.kind == "risk"),
        ),
    )


class MadeUp:
    """In place of `Contributor`: noise of the right size. A vector is kept only where somebody looks at it."""

    seen: Callable[[Any], None] = staticmethod(lambda _vector: None)

    def __init__(self, plan: RunPlan, *_: Any) -> None:
        self._plan = plan
        self._random = np.random.default_rng()

    def noisy_vector(self, kind: Any, _parameters: Any) -> Any:
        vector = self._random.integers(0, 2**32, self._plan.layout(kind).dim, dtype=np.uint32)
        MadeUp.seen(vector)
        return vector

    def warm_up(self, _parameters: Any) -> None:
        pass


class NoLedger:
    """For scale: spends are counted elsewhere."""

    dataset = "none"

    def reserve(self, *_: Any) -> None:
        pass

    def commit(self, *_: Any, **__: Any) -> None:
        pass

    def close(self, _run: str) -> None:
        pass

    def check_echo(self, *_: Any) -> None:
        pass

    def head(self) -> Any:
        return SimpleNamespace(entries=1, hash=bytes(32))


class NoJournal:
    """For scale."""

    def record(self, *_: Any) -> None:
        pass


@dataclass
class SmallHospital:
    """One hospital. folder: of its ledger and journal; None: it keeps nothing."""

    plan: RunPlan
    index: int
    folder: Path | None
    reach: Callable[[str], None] = lambda _point: None

    def __post_init__(self) -> None:
        self.reports: list[tuple[str, str]] = []
        self.name = next(site.name for site in self.plan.cohort.sites if site.index == self.index)
        self.ledger: Any = NoLedger()
        self.journal: Any = NoJournal()
        self.witness = Witness()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "ledger.sqlite"
            number = self.name.removeprefix("hospital-")
            options: dict[str, Any] = {"dataset": f"data-{number}", "delta": DELTA, "clock": time.time}
            if not path.exists():
                Ledger.create(path, random=lambda n: bytes(n - 1) + b"\1", **options).shut()
            self.ledger = Ledger.open(path, **options)
            self.journal = DiskJournal(self.folder / "journal.sqlite", self.reach)
            home = NodeHome(self.folder)
            write_file(home.identity_key, key_pem(identity(self.index)), PRIVATE)
            self.witness = Witness(open_audit(home), home.receipt)
        key = identity(self.index)
        peers = PeerHeads(self.folder / "peers.json") if self.folder else PeerHeads()
        gate = Gatekeeper(
            site=self.name,
            coordinator=public(COORDINATOR),
            identity=key,
            policy=lambda: permissive(self.plan),
            study=lambda _plan: Study(patients=None, features=FEATURES),  # type: ignore[arg-type]
            ledger=self.ledger,
            noise=lambda _sigma, n: np.zeros(n, dtype=np.int64),
            random=np.random.default_rng().bytes,
            report=lambda code, what: self.reports.append((code, what)),
            peers=peers,
            witness=self.witness,
        )
        models = (self.folder or Path("/nonexistent")) / "models"
        library = Library(models, public(COORDINATOR), self.ledger, lambda _run: None)
        if self.folder is None:
            library = _Shelf()  # type: ignore[assignment]
        self.handler = Hospital(gate, library, self.journal, np.random.default_rng().bytes, gate.report, self.reach)

    def close(self) -> None:
        if self.folder is not None:
            self.ledger.shut()
            self.journal.close()
            self.witness.log.close()


class _Shelf:
    def store(self, _body: bytes) -> bytes:
        return b"\xf6"


@dataclass
class Watch:
    """What passed between coordinator and hospitals. vectors: (epoch, round) -> site -> its vector before masking.

    answers: the different answers of a (site, stage, (epoch, round)); the same bytes once more are none.
    """

    vectors: dict[tuple[int, int], dict[int, Any]] = field(default_factory=dict)
    answers: defaultdict[tuple[Any, ...], set[Packet]] = field(default_factory=lambda: defaultdict(set))
    current: tuple[int, tuple[int, int]] = (0, (0, 0))

    def note(self, vector: Any) -> None:
        site, round_ = self.current
        self.vectors.setdefault(round_, {})[site] = vector.copy()

    def plain_sum(self, round_: tuple[int, int], sites: list[int]) -> Any:
        vectors = [self.vectors[round_][site] for site in sites]
        return (np.sum(np.stack(vectors).astype(np.uint64), axis=0) % 2**32).astype(np.uint32)


@dataclass
class SmallFederation:
    """Hospitals 1..n on nodes 101..; faults are functions (site, packet) -> None that may raise `Gone` or a halt."""

    plan: RunPlan
    root: Path
    disk: bool = True
    before: Callable[[int, Packet], None] = lambda _site, _packet: None
    after: Callable[[int, Packet], None] = lambda _site, _packet: None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = lambda _seconds: None
    former: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Watch()
        self.hospitals = {site.index: self._open(site.index) for site in self.plan.cohort.sites}
        self.exchange = DirectExchange({100 + i: self._handle(i) for i in self.hospitals})

    def _open(self, index: int) -> SmallHospital:
        return SmallHospital(self.plan, index, self.root / f"h{index}" if self.disk else None)

    def restart(self, index: int) -> None:
        """The hospital's process ends and comes back: its keys are gone, its files are not."""
        self.hospitals[index].close()
        self.hospitals[index] = self._open(index)

    def close(self) -> None:
        for hospital in self.hospitals.values():
            hospital.close()

    def _handle(self, index: int) -> Callable[[Packet], Packet]:
        def handle(packet: Packet) -> Packet:
            self.before(index, packet)
            if packet.kind == UPLOAD:
                call = upload_call(packet)
                self.watch.current = (index, (call.epoch, call.round_no))
            answer = self.hospitals[index].handler.handle(packet)
            if answer.kind in (UPLOAD, "ack", REVEAL):
                self.watch.answers[index, answer.kind, self.watch.current[1]].add(answer)
            self.after(index, packet)
            return answer

        return handle

    def store(self, run: str) -> RunStore:
        store = RunStore(self.root / "runs" / run)
        if not (store.folder / "plan.json").exists():
            store.create(self.plan.canonical())
        return store

    def drive(self, run: str = "r1", exchange: Exchange | None = None, **options: Any) -> RunStore:
        """Drive a run, or go on with one that was left."""
        store = self.store(run)
        nodes = {i: 100 + i for i in self.hospitals}
        parties = Parties(
            self.plan,
            nodes,
            exchange or self.exchange,
            store,
            self.clock,
            self.pause,
            head_file=self.root / "heads.json",
            former=self.former,
        )
        usual: dict[str, Any] = {"members": lambda: frozenset(nodes), "audit": lambda: passed_audit(self.plan)}
        driver = RunDriver(
            parties=parties, run=run, key=COORDINATOR, features=FEATURES, versions={}, **{**usual, **options}
        )
        driver.execute()
        return store


def upload_call(packet: Packet) -> RoundCall:
    return RoundCall.decode(packet.body)


def made_up_vectors(monkeypatch: Any, federation: SmallFederation) -> None:
    """Put `MadeUp` in the place of `Contributor`, watched by the federation."""
    monkeypatch.setattr(node_admission, "Contributor", MadeUp)
    monkeypatch.setattr(MadeUp, "seen", staticmethod(federation.watch.note))


def events(store: RunStore, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in store.events() if event["event"] in kinds]


def check_sums(federation: SmallFederation, store: RunStore) -> int:
    """Every opened sum is the plain sum of its survivors' vectors; returns how many were compared."""
    compared = 0
    for event in events(store, "round"):
        sites = [int(name.removeprefix("hospital-")) for name in event["survivors"]]
        expected = federation.watch.plain_sum(round_of(store, event["round"]), sites)
        found = store.load_arrays(f"opening-{event['round']:04d}.npz")["total"]
        assert np.array_equal(found, expected)
        compared += 1
    return compared


def round_of(store: RunStore, number: int) -> tuple[int, int]:
    """Epoch and number in it of a round that has ended."""
    record = json.loads((store.folder / f"round-{number:04d}.json").read_bytes())
    call = RoundCall.decode(bytes.fromhex(record["call"]))
    return call.epoch, call.round_no


def at_most_once(federation: SmallFederation) -> bool:
    """One upload, acknowledgement and reveal a hospital and round."""
    return all(len(answers) == 1 for answers in federation.watch.answers.values())
