"""SIGKILL of a hospital between any two writes: at most one upload, acknowledgement and reveal a round, for ever.

Hospital 2 is a process of its own with the real ledger and journal on disk. It is killed at a named point, comes back,
and is then asked once more for everything that it was asked in that round.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from small_federation import (
    MadeUp,
    SmallFederation,
    SmallHospital,
    at_most_once,
    check_sums,
    events,
    made_up_vectors,
    small_plan,
)

from cameo_client.node.failpoints import Failpoints
from cameo_lab.in_process import Gone
from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.releases import round_releases
from cameo_protocol.stages import ACK, REVEAL, UPLOAD, RoundCall, error_code

SEEDS = 30 if os.environ.get("CAMEO_FULL") else 1
POINTS = (
    "upload-asked", "upload-charged", "upload-journaled", "upload-answered",
    "ack-asked", "ack-journaled", "ack-answered",
    "reveal-asked", "reveal-journaled", "reveal-answered",
)  # fmt: skip
SETUP = ("adv-asked", "adv-answered", "shr-asked", "shr-answered", "rdy-asked", "rdy-answered")
ROUNDS = 4
VICTIM = 2


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    return small_plan(4, f"training.rounds={ROUNDS}", "training.spare=4", "recalibration.share=0")


@dataclass
class Process:
    """A hospital in a child process that may die; `handle` is that of its handler, and says `Gone` when it died."""

    plan: RunPlan
    folder: Path
    note: Callable[[Any], None]
    spec: str
    deaths: int = 0
    asked: list[Packet] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start(self.spec)

    def _start(self, spec: str) -> None:
        self._pipe, theirs = Pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                self._pipe.close()
                _serve(self.plan, self.folder, spec, theirs)
            finally:
                os._exit(1)
        theirs.close()

    def handle(self, packet: Packet) -> Packet:
        if packet.kind == UPLOAD:
            self.asked.clear()
        if packet.kind in (UPLOAD, ACK, REVEAL):
            self.asked.append(packet)
        try:
            return self._call(packet)
        except (EOFError, ConnectionError):
            os.waitpid(self._child, 0)
            self.deaths += 1
            self._start("")
            self.refusals += [error_code(self._call(again).body) for again in self.asked]
            raise Gone from None

    def _call(self, packet: Packet) -> Packet:
        self._pipe.send(tuple(packet))
        answer, vectors = self._pipe.recv()
        for vector in vectors:
            self.note(vector)
        return Packet(*answer)

    def close(self) -> None:
        self._pipe.close()
        os.waitpid(self._child, 0)


def _serve(plan: RunPlan, folder: Path, spec: str, pipe: Connection) -> None:
    made: list[Any] = []
    MadeUp.seen = lambda vector: made.append(vector.copy())  # type: ignore[assignment]
    hospital = SmallHospital(plan, VICTIM, folder, Failpoints("victim", spec).reach)
    while True:
        made.clear()
        answer = hospital.handler.handle(Packet(*pipe.recv()))
        pipe.send((tuple(answer), made))


@dataclass
class Remote:
    """In the place of a `SmallHospital`: only its handler is there."""

    handler: Process

    def close(self) -> None:
        self.handler.close()


def killed_run(plan: RunPlan, root: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> tuple[SmallFederation, Any]:
    federation = SmallFederation(plan, root)
    made_up_vectors(monkeypatch, federation)
    federation.hospitals[VICTIM].close()
    process = Process(plan, root / f"h{VICTIM}", federation.watch.note, f"victim:{spec}")
    federation.hospitals[VICTIM] = Remote(process)  # type: ignore[assignment]
    store = federation.drive()
    federation.close()
    check_sums(federation, store)
    assert at_most_once(federation)
    assert process.deaths == 1
    assert events(store, "published")
    assert not events(store, "void")
    return federation, (store, process)


def released(folder: Path) -> set[tuple[bytes, int, str]]:
    with sqlite3.connect(folder / "journal.sqlite") as db:
        return set(db.execute("SELECT transcript, round_no, stage FROM released"))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_kill_in_a_round(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, seed: int
) -> None:
    nth = random.Random(f"{point}{seed}").randint(1, ROUNDS - 1)
    federation, (store, process) = killed_run(plan, tmp_path, monkeypatch, f"{point}@{nth}")

    # What was asked before it died is refused after it came back: it is out until the next epoch.
    assert process.refusals
    assert set(process.refusals) == {"out-of-order"}
    (lost,) = events(store, "lost")
    assert (lost["site"], lost["stage"]) == ("hospital-2", point.split("-", maxsplit=1)[0])
    assert [event["sites"] for event in events(store, "returned")] == [["hospital-2"]]
    assert len(events(store, "epoch")) == 2
    rounds = events(store, "round")
    assert ("hospital-2" in rounds[nth - 1]["survivors"]) == (not point.startswith("upload"))
    assert all("hospital-2" in event["survivors"] for number, event in enumerate(rounds, 1) if number != nth)
    # Whatever left is in the ledger; a charge whose upload never left stays.
    kept = SmallHospital(plan, VICTIM, tmp_path / f"h{VICTIM}")
    charged = len(kept.ledger._book.rounds)
    kept.close()
    uploads = sum(
        len(sent) for (site, stage, _), sent in federation.watch.answers.items() if (site, stage) == (2, UPLOAD)
    )
    assert charged == uploads + (point in ("upload-charged", "upload-journaled", "upload-answered"))
    stages = {stage for _, _, stage in released(tmp_path / f"h{VICTIM}")}
    assert stages == {UPLOAD, ACK, REVEAL}


@pytest.mark.parametrize("point", SETUP)
def test_a_kill_in_the_set_up(plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    _, (store, _) = killed_run(plan, tmp_path, monkeypatch, point)
    assert events(store, "lost")[0]["stage"] == point.split("-", maxsplit=1)[0]
    assert events(store, "returned")
    assert "hospital-2" in events(store, "round")[-1]["survivors"]


def test_a_restarted_hospital_refuses_a_round_that_its_files_know(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its keys were still there: the journal and the ledger refuse on their own."""
    federation = SmallFederation(plan, tmp_path)
    made_up_vectors(monkeypatch, federation)
    first = federation.hospitals[1]
    seen: list[Packet] = []
    federation.after = lambda site, packet: seen.append(packet) if site == 1 else None
    federation.drive()
    call = RoundCall.decode(next(packet for packet in seen if packet.kind == UPLOAD).body)
    for _, epoch, number in list(first.ledger._book.rounds):
        assert epoch == call.epoch
        with pytest.raises(Reject, match="run-closed"):
            first.ledger.commit("r1", number, "train", round_releases(plan, "train"), epoch=epoch)
    transcript, number, stage = next(iter(released(tmp_path / "h1")))
    with pytest.raises(Reject, match="already-released"):
        first.journal.record(transcript, number, stage, bytes(32))
    federation.close()
