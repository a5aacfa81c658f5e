"""A coordinator that dies anywhere in a run goes on with it: nothing is opened twice, and every sum stays exact."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_federation import (
    FEATURES,
    SmallFederation,
    at_most_once,
    check_sums,
    events,
    made_up_vectors,
    round_of,
    small_plan,
)

from cameo_protocol.errors import OperatorError
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import ACK, ADMIT, ADVERTISE, PUBLISH, READY, REVEAL, SHARE, UPLOAD
from cameo_server.run import store as run_store
from cameo_server.run.record import RoundLog
from cameo_server.run.store import RunStore
from cameo_server.run.training import Models

RANDOM_RUNS = 60 if os.environ.get("CAMEO_FULL") else 5
ROUNDS, SPARE = 3, 4


class Halt(BaseException):
    """The coordinator's process is gone at this very point."""


class Fate:
    """Counts the points at which a coordinator may die, and dies at the chosen ones. log: the points by name."""

    def __init__(self, *deaths: int) -> None:
        self._deaths = set(deaths)
        self.log: list[str] = []

    def reach(self, point: str) -> None:
        self.log.append(point)
        if len(self.log) in self._deaths:
            raise Halt(point)


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    return small_plan(4, f"training.rounds={ROUNDS}", f"training.spare={SPARE}")


@pytest.fixture
def make(tmp_path: Path, plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    made: list[SmallFederation] = []
    append, write = RoundLog.append, run_store.write_file

    def build(fate: Fate) -> SmallFederation:
        federation = SmallFederation(plan, tmp_path / str(len(made)))
        made_up_vectors(monkeypatch, federation)
        made.append(federation)
        federation.before = lambda site, packet: fate.reach(f"{packet.kind}-before-{site}")
        federation.after = lambda site, packet: fate.reach(f"{packet.kind}-after-{site}")

        def dying_append(log: RoundLog, kind: Any, *arguments: Any, **options: Any) -> None:
            fate.reach(f"{kind}-unwritten")
            append(log, kind, *arguments, **options)
            fate.reach(f"{kind}-written")

        def dying_write(path: Path, data: bytes) -> None:
            fate.reach(f"{path.name}-unwritten")
            write(path, data)
            fate.reach(f"{path.name}-written")

        monkeypatch.setattr(RoundLog, "append", dying_append)
        monkeypatch.setattr(run_store, "write_file", dying_write)
        return federation

    yield build
    for federation in made:
        federation.close()


def drive_to_the_end(federation: SmallFederation) -> tuple[RunStore, int]:
    """Start the coordinator as often as it dies; returns how often it died."""
    deaths = 0
    while True:
        try:
            return federation.drive(), deaths
        except Halt:
            deaths += 1


def check(federation: SmallFederation, store: RunStore) -> None:
    """What holds after any deaths: see the assertions."""
    ended = events(store, "round", "void")
    numbers = [event["round"] for event in ended]
    assert numbers == list(range(1, len(numbers) + 1)), "every round is told once, in order"
    calls = [round_of(store, number) for number in numbers]
    assert len(set(calls)) == len(calls), "no round of an epoch is used twice"
    assert check_sums(federation, store) == len(events(store, "round"))
    assert at_most_once(federation), "one upload, acknowledgement and reveal a hospital and round"
    assert sum(event["kind"] == "train" for event in ended) <= ROUNDS + SPARE
    for index, hospital in federation.hospitals.items():
        charged = {(epoch, number) for _, epoch, number in hospital.ledger._book.rounds}
        made = {call for call, vectors in federation.watch.vectors.items() if index in vectors}
        assert made == charged <= set(calls), "what left is in the ledger, and nothing else"
    assert not list(store.folder.glob("round-*.log")), "masked vectors are gone when their round has ended"
    check_model(federation.plan, store)


def check_model(plan: RunPlan, store: RunStore) -> None:
    """The model is what the recorded openings come to."""
    models = Models.initial(plan, FEATURES)
    for event in events(store, "round"):
        if event["kind"] == "train":
            models = models.after(plan, store.load_arrays(f"opening-{event['round']:04d}.npz")["total"])
    found = store.load_arrays(f"model-{ROUNDS:04d}.npz")["parameters"]
    assert np.array_equal(found, np.frombuffer(models.result(plan), dtype="<f4"))


def test_a_run_that_nobody_kills(make: Callable[..., Any]) -> None:
    fate = Fate()
    federation = make(fate)
    store, deaths = drive_to_the_end(federation)
    assert deaths == 0
    check(federation, store)
    assert {point.split("-")[0] for point in fate.log} >= {ADMIT, ADVERTISE, SHARE, READY, UPLOAD, ACK, REVEAL, PUBLISH}


@pytest.mark.parametrize("seed", range(RANDOM_RUNS))
def test_random_deaths(make: Callable[..., Any], seed: int) -> None:
    """About three deaths a run, at points that chance chooses."""
    draw = random.Random(seed)
    federation = make(Fate(*draw.sample(range(1, 330), 3)))
    store, deaths = drive_to_the_end(federation)
    assert deaths > 0
    check(federation, store)
    assert len(events(store, "start")) + len(events(store, "resumed")) == deaths + 1


NAMED = (
    "upload-before-1",
    "upload-after-3",
    "upload-written",
    "survivors-unwritten",
    "survivors-written",
    "ack-after-2",
    "ack-written",
    "reveal-before-1",
    "reveal-after-4",
    "opening-0001.npz-unwritten",
    "opening-0001.npz-written",
    "round-0001.json-written",
    "epoch-0001.call-written",
    "epoch-0001.setup-unwritten",
    "taking-part.json-unwritten",
    "card.json-written",
    "publish-after-2",
)


@pytest.mark.parametrize("point", NAMED)
def test_a_death_at_a_named_point(make: Callable[..., Any], point: str) -> None:
    class Once(Fate):
        def reach(self, name: str) -> None:
            self.log.append(name)
            if name == point and self.log.count(point) == 1:
                raise Halt

    federation = make(Once())
    store, deaths = drive_to_the_end(federation)
    assert deaths == 1
    check(federation, store)
    assert not events(store, "void"), "the round is finished, not lost"
    assert not events(store, "lost"), "who answered a coordinator that died answers the next one with the same bytes"


def test_a_hospital_lost_while_the_coordinator_is_down(make: Callable[..., Any]) -> None:
    """The set that was chosen before the death is kept, though one of it cannot answer any more."""

    class Once(Fate):
        def reach(self, name: str) -> None:
            self.log.append(name)
            if name == "survivors-written" and self.log.count(name) == 2:
                federation.restart(2)
                raise Halt

    federation = make(Once())
    store, deaths = drive_to_the_end(federation)
    assert deaths == 1
    check(federation, store)
    second = events(store, "round")[1]
    assert second["survivors"] == [f"hospital-{i}" for i in (1, 2, 3, 4)]
    assert [(e["site"], e["stage"]) for e in events(store, "lost")] == [("hospital-2", ACK)]
    assert not events(store, "void")


def test_a_hospital_revoked_while_the_coordinator_is_down_is_not_asked_again(make: Callable[..., Any]) -> None:
    revoked: set[int] = set()

    class Once(Fate):
        def reach(self, name: str) -> None:
            assert not (revoked and name.endswith("-before-2")), "hospital 2 is asked after it was revoked"
            self.log.append(name)
            if name == "upload-written" and self.log.count(name) == 5:  # the first vector of the second round
                revoked.add(2)
                raise Halt

    federation = make(Once())
    members = {"members": lambda: frozenset({1, 2, 3, 4} - revoked)}
    with pytest.raises(Halt):
        federation.drive(**members)
    store = federation.drive(**members)
    check(federation, store)
    assert [event["code"] for event in events(store, "lost")] == ["revoked"]
    assert all("hospital-2" not in event["survivors"] for event in events(store, "round")[1:])


def test_vectors_that_the_disk_lost_after_the_choice_void_the_round(make: Callable[..., Any], plan: RunPlan) -> None:
    """Another survivor set for vectors that were shown once must never be asked for."""

    class Once(Fate):
        def reach(self, name: str) -> None:
            self.log.append(name)
            if name == "ack-written" and self.log.count(name) == 1:
                raise Halt

    federation = make(Once())
    with pytest.raises(Halt):
        federation.drive()
    log = RoundLog(federation.root / "runs" / "r1" / "round-0001.log")
    rows = list(log.rows("call", "upload", "survivors", "ack", "reveal"))
    log.delete()
    for row in rows:
        if (row.kind, row.party) != ("upload", 2):
            log.append(row.kind, row.body, party=row.party, vector=row.vector)
    store, _ = drive_to_the_end(federation)
    assert events(store, "void")[0]["reason"] == "record-damaged"
    check(federation, store)


def test_a_damaged_folder_is_an_error_that_says_so(make: Callable[..., Any]) -> None:
    for name in ("taking-part.json", "round-0001.json", "opening-0001.npz", "epoch-0001.setup", "epoch-0001.call"):

        class Once(Fate):
            def reach(self, point: str) -> None:
                self.log.append(point)
                if point == "upload-written" and self.log.count(point) == 6:
                    raise Halt

        federation = make(Once())
        with pytest.raises(Halt):
            federation.drive()
        (federation.root / "runs" / "r1" / name).write_bytes(b"\xff\x00")
        with pytest.raises(OperatorError) as refused:
            federation.drive()
        assert refused.value.code == "run-unreadable"
        assert ("0001" if "0001" in name else name) in refused.value.what


def test_a_round_that_cannot_be_written_leaves_a_run_that_goes_on(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = make(Fate())
    whole = RoundLog.append

    def full(log: RoundLog, kind: Any, *arguments: Any, **options: Any) -> None:
        if kind == "survivors":
            raise OperatorError("disk-write", what="no space", do="free space")
        whole(log, kind, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RoundLog, "append", full)
        with pytest.raises(OperatorError) as stopped:
            federation.drive()
    assert stopped.value.code == "disk-write"
    store, _ = drive_to_the_end(federation)
    assert not events(store, "stopped", "finished")
    assert not events(store, "void")
    check(federation, store)
