"""What a malicious coordinator sees and may send: the product's hospitals, met through their packets alone.

Every byte that an attack looks at was made by `cameo_client.node.hospital.Hospital`, behind its admission, its
ledger, its journal and its masks. The coordinator's side is the protocol's own state machines, up to where it lies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.ledger import Ledger
from cameo_client.node.admission import Admitted, Gatekeeper, Study
from cameo_client.node.contribution import Contributor, Patients
from cameo_client.node.hospital import Hospital
from cameo_client.node.journal import DiskJournal
from cameo_client.node.publication import Library
from cameo_lab.audit.subject import Floats, Subject
from cameo_lab.audit.subject import Hospital as Vectors
from cameo_protocol.envelope import fingerprint
from cameo_protocol.epochs import epoch_params
from cameo_protocol.errors import Bug
from cameo_protocol.layout import RoundKind
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RiskTask, RunPlan
from cameo_protocol.policy import Allowed, Caps, Floors, ModelKind, Policy, PrivacyMode, TaskKind
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.secagg.params import RoundStart
from cameo_protocol.secagg.server_round import Survivors, Void, open_round
from cameo_protocol.secagg.server_setup import Epoch, collect_adverts, collect_readies, collect_shares, open_setup
from cameo_protocol.stages import (
    ACK,
    ADMIT,
    ADVERTISE,
    ERROR,
    MAX_SETUP_ITEM,
    READY,
    REVEAL,
    SHARE,
    UPLOAD,
    Admission,
    Answer,
    EpochCall,
    Invitation,
    RoundCall,
    SurvivorsCall,
    error_code,
    pair,
    unpair,
)

T = TypeVar("T")
Lanes = npt.NDArray[np.uint32]
# No cap and no floor stands before the protocol: what is attacked is what holds for every policy.
NO_CAP = 1e6
NO_FLOOR = 1e-9


class Refused(Exception):
    """A hospital said no. code: the stable code, which is all that it says."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, eq=False)
class Captured:
    """What the coordinator holds after a round. uploads: index -> masked vector as it came; total: the opened sum."""

    uploads: Mapping[int, Lanes]
    total: Lanes


@dataclass(eq=False, repr=False)
class Wire:
    """Hospitals that a coordinator can reach, and how it asks them. It may ask anything at any time.

    plan: the subject's with the keys of these hospitals. nodes: index -> hospital. made: what each hospital put under
    its mask in the last round (for the judge of an attack, not for the attacker).
    """

    plan: RunPlan
    nodes: Mapping[int, Hospital]
    ledgers: Mapping[int, Ledger]
    key: Ed25519PrivateKey
    made: dict[int, Lanes]
    run: str = ""
    epoch: Epoch = field(init=False)
    _runs: int = 0
    _next: int = 0
    _rounds: int = 0

    @property
    def everybody(self) -> tuple[int, ...]:
        """All hospitals' indices, ascending."""
        return tuple(sorted(self.nodes))

    def ask(self, index: int, packet: Packet) -> Packet:
        """One hospital's answer; an error answer is raised as `Refused`."""
        answer = self.nodes[index].handle(packet)
        if answer.kind == ERROR:
            raise Refused(error_code(answer.body))
        return answer

    def invite(self, index: int, plan: bytes) -> Answer:
        """What a hospital answers to an invitation with these bytes as the plan, signed by its coordinator."""
        self._runs += 1
        return self._invited(index, f"attack-{self._runs}", plan)

    def begin(self) -> None:
        """A new run with all hospitals: admission by each of them, then keys for every round that it may have."""
        self._runs += 1
        self.run = f"attack-{self._runs}"
        for index in self.everybody:
            if (answer := self._invited(index, self.run, self.plan.canonical())) != "accept":
                raise Refused(answer)
        self._rounds = self.plan.training.rounds + self.plan.training.spare
        self._next = 0
        call = EpochCall(run=self.run, epoch=1, rounds=self._rounds, parties=self.everybody)
        self.epoch = self._set_up(call)

    def _invited(self, index: int, run: str, plan: bytes) -> Answer:
        packet = Packet(ADMIT, Invitation(run=run, plan=plan).seal(self.key))
        identity = next(site.identity for site in self.plan.cohort.sites if site.index == index)
        return Admission.open(self.ask(index, packet).body, bytes.fromhex(identity)).answer

    def _set_up(self, call: EpochCall) -> Epoch:
        first = Packet(ADVERTISE, call.encode())
        adverts = {i: self.ask(i, first).body for i in call.parties}
        advertised = collect_adverts(open_setup(epoch_params(self.plan, call)), adverts)
        answers = {i: unpair(self.ask(i, Packet(SHARE, pack(adverts))).body) for i in call.parties}
        envelopes = {i: envelope for i, (envelope, _) in answers.items()}
        boxes = {i: unpack(packed, max_item_bytes=MAX_SETUP_ITEM) for i, (_, packed) in answers.items()}
        shared = collect_shares(advertised, envelopes, boxes)
        readies = {}
        for i, delivery in shared.deliveries.items():
            body = pair(pack(delivery.envelopes), pack(delivery.boxes))
            readies[i] = self.ask(i, Packet(READY, body)).body
        return collect_readies(shared, readies)

    def call(self, *, step: int = 1, invited: Sequence[int] = ()) -> RoundCall:
        """The next training round; a new run is begun where the last has no more. invited: all, if empty."""
        if self._next == self._rounds:
            self.begin()
        self._next += 1
        chosen = tuple(sorted(invited)) or self.everybody
        return RoundCall(run=self.run, epoch=1, round_no=self._next - 1, kind="train", step=step, invited=chosen)

    def collect(self, call: RoundCall, parameters: Floats) -> tuple[Survivors, dict[int, Lanes]]:
        """Ask the invited for their vectors: the round with everybody's upload in it, and the uploads as they came."""
        model = parameters.astype("<f4").tobytes()
        collecting = open_round(self.epoch, round_start(call, parameters))
        uploads = {}
        self.made.clear()
        for index in call.invited:
            answer = self.ask(index, Packet(UPLOAD, call.encode(), model))
            collecting.add_upload(index, unpair(answer.body)[0], answer.vector)
            uploads[index] = np.frombuffer(answer.vector, dtype="<u4")
        return _not_void(collecting.close()), uploads

    def round(self, parameters: Floats, *, step: int = 1, invited: Sequence[int] = ()) -> Captured:
        """One whole secure sum at parameters of the coordinator's choice (free from step 1 on)."""
        call = self.call(step=step, invited=invited)
        survivors, uploads = self.collect(call, parameters)
        for index in call.invited:
            survivors.add_ack(index, self.ask(index, ack_packet(call, parameters, survivors.headers)).body)
        quorum = _not_void(survivors.close())
        for index in call.invited:
            quorum.add_reveal(index, self.ask(index, Packet(REVEAL, pack(quorum.acks))).body)
        return Captured(uploads, _not_void(quorum.close()).total)


def round_start(call: RoundCall, parameters: Floats) -> RoundStart:
    """What the secure sum knows of a round."""
    return call.start(call.model_hash(parameters.astype("<f4").tobytes()))


def ack_packet(call: RoundCall, parameters: Floats, headers: Mapping[int, bytes]) -> Packet:
    """Asks a hospital to stand by the survivor set of these headers."""
    model_hash = round_start(call, parameters).model_hash
    return Packet(ACK, SurvivorsCall(call=call, model_hash=model_hash, headers=headers).encode())


def _not_void(state: T | Void) -> T:
    if isinstance(state, Void):
        raise Refused(state.reason)
    return state


class _Recorded(Contributor):
    """The subject's own way to make a vector, and a note of it for the judge."""

    def __init__(self, vectors: Vectors, note: dict[int, Lanes], index: int) -> None:
        self._vectors, self._note, self._index = vectors, note, index

    def noisy_vector(self, kind: RoundKind, parameters: Floats) -> Lanes:
        """As the subject makes it."""
        vector = self._vectors(kind, parameters)
        self._note[self._index] = vector.copy()
        return vector


@dataclass
class _Gate(Gatekeeper):
    """Admission as it is; an admitted run takes its vectors from the subject, where a test may have planted a fault."""

    subject: Subject = field(kw_only=True)
    patients: Patients = field(kw_only=True)
    made: dict[int, Lanes] = field(kw_only=True)

    def _admit(self, run: str, plan: RunPlan, index: int) -> Admitted:
        admitted = super()._admit(run, plan, index)
        vectors = self.subject.open(plan, self.patients, self.subject.noise)
        admitted.contributor = _Recorded(vectors, self.made, index)
        return admitted


@contextmanager
def open_wire(subject: Subject, hospitals: Sequence[Patients]) -> Iterator[Wire]:
    """The subject's hospitals over these patients, one entry a site of the plan; all files are gone afterwards."""
    if len(hospitals) != len(subject.plan.cohort.sites):
        raise Bug("attack-hospitals", what="patients are needed for every site of the plan")
    keys = [Ed25519PrivateKey.generate() for _ in hospitals]
    plan, key = rekeyed(subject.plan, keys), Ed25519PrivateKey.generate()
    policy = _policy(plan, key)
    made: dict[int, Lanes] = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="cameo-attack-")))
        nodes, ledgers = {}, {}
        for site, own, patients in zip(plan.cohort.sites, keys, hospitals, strict=True):
            folder = root / site.name
            folder.mkdir()
            ledgers[site.index] = _ledger(plan, folder, stack)
            gate = _Gate(
                site=site.name,
                coordinator=key.public_key().public_bytes_raw(),
                identity=own,
                policy=lambda: policy,
                study=partial(_study, subject.features, patients),
                ledger=ledgers[site.index],
                noise=subject.noise,
                random=os.urandom,
                report=_unheard,
                subject=subject,
                patients=patients,
                made=made,
            )
            nodes[site.index] = _hospital(gate, folder, stack)
        yield Wire(plan, nodes, ledgers, key, made)


def _ledger(plan: RunPlan, folder: Path, stack: ExitStack) -> Ledger:
    ledger = Ledger.create(
        folder / "ledger.sqlite", dataset="made-up", delta=plan.privacy.delta, clock=time.time, random=os.urandom
    )
    return stack.enter_context(ledger)


def _hospital(gate: Gatekeeper, folder: Path, stack: ExitStack) -> Hospital:
    journal = DiskJournal(folder / "journal.sqlite")
    stack.callback(journal.close)
    library = Library(folder, gate.coordinator, gate.ledger, _published)
    return Hospital(gate, library, journal, os.urandom, _unheard)


def _study(features: int, patients: Patients, _: RunPlan) -> Study:
    return Study(patients=patients, features=features)


def rekeyed(plan: RunPlan, keys: Sequence[Ed25519PrivateKey]) -> RunPlan:
    """The plan for the same sites with other identity keys."""
    sites = tuple(
        site.model_copy(update={"identity": key.public_key().public_bytes_raw().hex()})
        for site, key in zip(plan.cohort.sites, keys, strict=True)
    )
    return plan.model_copy(update={"cohort": plan.cohort.model_copy(update={"sites": sites})})


def _policy(plan: RunPlan, key: Ed25519PrivateKey) -> Policy:
    peers = {site.name: fingerprint(bytes.fromhex(site.identity)) for site in plan.cohort.sites}
    return Policy(
        version=1,
        coordinator=fingerprint(key.public_key().public_bytes_raw()),
        peers=peers,
        floors=Floors(hospitals=3, threshold=2, colluders=0, sigma=NO_FLOOR),
        caps=Caps(epsilon_per_data_set=NO_CAP, epsilon_per_year=NO_CAP),
        allowed=Allowed(
            tasks=get_args(TaskKind),
            models=get_args(ModelKind),
            privacy=get_args(PrivacyMode),
            catalogues=(plan.data.catalogue,),
            labels=tuple(task.label for task in plan.tasks if isinstance(task, RiskTask)),
        ),
    )


def _published(_run: str) -> None:
    """Nothing is published by an attacker."""


def _unheard(_code: str, _what: str) -> None:
    """A hospital's own log, which no attacker reads."""
