"""Dry runs: the product's own coordinator and hospitals in this process, to hold ledgers against what has left.

A short form of the plan is run three times over the same made-up hospitals, four or as many as the plan has where those
are fewer (its encoding has no room for more): admission, key set-up, masked rounds, the end. Whatever a hospital hands
out is counted on the wire, and its ledger is read at that very moment.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.ledger import Ledger
from cameo_client.node.admission import Gatekeeper, Study
from cameo_client.node.hospital import Hospital
from cameo_client.node.journal import DiskJournal
from cameo_client.node.publication import Library
from cameo_lab.audit.finding import Finding
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import LEDGER_DELTA, Subject
from cameo_lab.in_process import DirectExchange
from cameo_protocol.envelope import fingerprint
from cameo_protocol.layout import ROUND_KINDS
from cameo_protocol.packet import Packet
from cameo_protocol.plan import Cohort, RiskTask, RunPlan, Site, Training
from cameo_protocol.policy import Allowed, Caps, Floors, Policy
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import Release, plan_releases
from cameo_protocol.stages import FINISH, UPLOAD, RoundCall, finish_body
from cameo_server.run.admission import admit
from cameo_server.run.party import Parties
from cameo_server.run.rounds import Rounds
from cameo_server.run.store import RunStore
from cameo_server.run.training import Models

SITES, THRESHOLD = 4, 3
RUNS = 3
MOST_TRAINING, MOST_SPARE = 2, 1
NO_CAP = 1e6
NO_FLOOR = 1e-9
TOLERANCE = 1e-9


@dataclass
class Watched:
    """One hospital on the wire. left: task -> releases that have left; late: those whose entry came after them."""

    hospital: Hospital
    ledger: Ledger
    plan: RunPlan
    left: Counter[str] = field(default_factory=Counter)
    late: int = 0

    def handle(self, packet: Packet) -> Packet:
        """The hospital's answer; what it releases is counted, and looked for in the ledger at once."""
        answer = self.hospital.handle(packet)
        if answer.kind == UPLOAD:
            kind = RoundCall.decode(packet.body).kind
            self.left.update(block.name for block in self.plan.layout(kind).blocks)
            written = entries(self.ledger)
            self.late += sum(written.get(task, 0) < count for task, count in self.left.items())
        return answer


def ledger_entries(subject: Subject) -> Finding:
    """Every release has its ledger entry, before it leaves, with its own count, sigma and q."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cameo-audit-") as folder, ExitStack() as stack:
        figures = _figures(subject, *_play(subject, Path(folder), stack))
    return Finding(
        name="ledger-entries",
        passed=figures["releases"] > 0 and all(figures[name] == 0 for name in ("missing", "late", "understated")),
        figures=figures,
        limit=f"0 releases of {RUNS} runs missing in a ledger, later than the bytes, or cheaper than they are",
        control={},
        control_failed=True,
        seconds=time.perf_counter() - began,
    )


def entries(ledger: Ledger) -> dict[str, int]:
    """Task -> releases committed."""
    return {row["task"]: row["releases"] for row in ledger.report()["tasks"]}


def _figures(subject: Subject, plan: RunPlan, watched: Mapping[int, Watched]) -> dict[str, float]:
    claims = dict(subject.releases())
    totals = dict.fromkeys(("releases", "missing", "late", "understated"), 0.0)
    for one in watched.values():
        written = {row["task"]: row for row in one.ledger.report()["tasks"]}
        totals["late"] += one.late
        for task, count in one.left.items():
            row: dict[str, Any] = written.get(task, {"releases": 0, "spent": 0.0})
            release = Release(sigma=claims[task].sigma, q=claims[task].q, count=count)
            totals["releases"] += count
            totals["missing"] += max(0, count - row["releases"])
            totals["understated"] += row["spent"] < epsilon([release], LEDGER_DELTA) * (1 - TOLERANCE)
    planned = sum(release.count for _, release in plan_releases(plan))
    totals["planned"] = float(RUNS * len(watched) * planned)
    return totals


def _play(subject: Subject, folder: Path, stack: ExitStack) -> tuple[RunPlan, dict[int, Watched]]:
    """Three whole runs over the same hospitals, up to the last sum; nothing is published."""
    key = Ed25519PrivateKey.generate()
    sites = min(SITES, len(subject.plan.cohort.sites))
    keys = {index: Ed25519PrivateKey.generate() for index in range(1, sites + 1)}
    plan = _short(subject.plan, keys)
    watched = {index: _hospital(subject, plan, key, keys, index, folder, stack) for index in keys}
    handlers: dict[int, Callable[[Packet], Packet]] = {index: one.handle for index, one in watched.items()}
    for number in range(RUNS):
        run = f"dry-{number + 1}"
        store = RunStore(folder / run)
        store.create(plan.canonical())
        exchange = DirectExchange(handlers)
        parties = Parties(
            plan=plan,
            nodes={index: index for index in keys},
            exchange=exchange,
            store=store,
            clock=time.monotonic,
            pause=time.sleep,
        )
        admit(parties, run, key)
        _rounds(plan, Models.initial(plan, subject.features), Rounds(parties, run, key))
        end = Packet(FINISH, finish_body(key, run))
        for _ in exchange.ask(dict.fromkeys(keys, end), 1.0):
            pass
    return plan, watched


def _rounds(plan: RunPlan, models: Models, rounds: Rounds) -> None:
    left = sum(plan.rounds_of(kind) for kind in ROUND_KINDS)
    for kind in ROUND_KINDS:
        for step in range(plan.rounds_of(kind)):
            at = step if kind == "train" else plan.training.rounds
            opened = rounds.sum(kind, at, models.broadcast(plan), left)
            left -= 1
            if opened is not None and kind == "train":
                models = models.after(plan, opened.total)


def _short(plan: RunPlan, keys: Mapping[int, Ed25519PrivateKey]) -> RunPlan:
    """The plan over throw-away hospitals, with a few rounds; every number that a ledger entry names is the plan's."""
    sites = tuple(Site(name=f"dry-{i}", index=i, identity=_public(key).hex()) for i, key in keys.items())
    return plan.model_copy(
        update={
            "cohort": Cohort(sites=sites, threshold=THRESHOLD, colluders=min(plan.cohort.colluders, 1)),
            "training": Training(
                rounds=min(plan.training.rounds, MOST_TRAINING), spare=min(plan.training.spare, MOST_SPARE)
            ),
        }
    )


def _hospital(
    subject: Subject,
    plan: RunPlan,
    coordinator: Ed25519PrivateKey,
    keys: Mapping[int, Ed25519PrivateKey],
    index: int,
    folder: Path,
    stack: ExitStack,
) -> Watched:
    def unheard(*_: str) -> None:
        """A hospital's own log; nobody reads it here."""

    public, home = _public(coordinator), folder / f"hospital-{index}"
    home.mkdir()
    policy = _policy(plan, public, keys)
    study = Study(patients=nobody(plan, subject.features), features=subject.features)
    ledger = stack.enter_context(subject.open_ledger(home / "ledger.sqlite"))
    journal = DiskJournal(home / "journal.sqlite")
    stack.callback(journal.close)
    gate = Gatekeeper(
        site=f"dry-{index}",
        coordinator=public,
        identity=keys[index],
        policy=lambda: policy,
        study=lambda _: study,
        ledger=ledger,
        noise=subject.noise,
        random=os.urandom,
        report=unheard,
    )
    library = Library(home / "models", public, ledger, unheard)
    return Watched(Hospital(gate, library, journal, os.urandom, unheard), ledger, plan)


def _policy(plan: RunPlan, coordinator: bytes, keys: Mapping[int, Ed25519PrivateKey]) -> Policy:
    """A policy that lets these runs through: what is looked at here is the ledger, not the officer's limits."""
    risks = [task for task in plan.tasks if isinstance(task, RiskTask)]
    return Policy(
        version=1,
        coordinator=fingerprint(coordinator),
        peers={f"dry-{index}": fingerprint(_public(key)) for index, key in keys.items()},
        floors=Floors(threshold=2, colluders=0, sigma=NO_FLOOR),
        caps=Caps(epsilon_per_data_set=NO_CAP, epsilon_per_year=NO_CAP),
        allowed=Allowed(
            tasks=tuple(sorted({task.kind for task in plan.tasks})),
            models=tuple(sorted({task.model for task in risks})),
            privacy=(plan.privacy.mode,),
            catalogues=(plan.data.catalogue,),
            labels=tuple(sorted({task.label for task in risks})),
        ),
    )


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
