"""An old copy of a ledger that is put back is noticed: others say back how far it was, and the hospital stops."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_federation import (
    COORDINATOR,
    SmallFederation,
    check_sums,
    events,
    identity,
    made_up_vectors,
    permissive,
    public,
    small_plan,
)

from cameo_protocol.envelope import fingerprint
from cameo_protocol.heads import LedgerHead, dataset_hash
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import ADMIT, UPLOAD, Admission, Invitation

Make = Callable[[], SmallFederation]
CODE = "ledger-rolled-back"


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    return small_plan(4, "training.rounds=3", "training.spare=4", "recalibration.share=0")


@pytest.fixture
def federation(plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFederation]:
    made = SmallFederation(plan, tmp_path)
    made_up_vectors(monkeypatch, made)
    yield made
    made.close()


def back_up(federation: SmallFederation, index: int) -> Path:
    """A copy of a hospital's ledger as it is now."""
    copy = federation.root / f"backup-{index}"
    federation.hospitals[index].close()
    shutil.copy(federation.root / f"h{index}" / "ledger.sqlite", copy)
    federation.hospitals[index] = federation._open(index)
    return copy


def put_back(federation: SmallFederation, index: int, copy: Path) -> None:
    """The hospital's machine is restored from the copy, and its node starts again."""
    federation.hospitals[index].close()
    folder = federation.root / f"h{index}"
    for path in folder.glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(copy, folder / "ledger.sqlite")
    federation.hospitals[index] = federation._open(index)


def test_an_old_copy_is_refused_at_admission(federation: SmallFederation) -> None:
    copy = back_up(federation, 2)
    federation.drive("r1")
    before = federation.hospitals[2].ledger.head().entries
    put_back(federation, 2, copy)
    assert federation.hospitals[2].ledger.head().entries < before
    store = federation.drive("r2")

    assert [(e["site"], e["stage"], e["code"]) for e in events(store, "lost")] == [("hospital-2", ADMIT, CODE)]
    assert all("hospital-2" not in event["invited"] for event in events(store, "round"))
    assert events(store, "published")
    ((code, what), *_) = federation.hospitals[2].reports
    assert code == CODE
    assert "an older copy was put back: bring back the newest one" in what
    assert federation.hospitals[2].ledger.spent() == 0


def test_an_old_copy_is_refused_in_the_middle_of_a_run(federation: SmallFederation) -> None:
    """Between two rounds the machine comes back with the ledger of the morning."""
    asked: Counter[str] = Counter()
    copies: list[Path] = []

    def restore(site: int, packet: Packet) -> None:
        asked[packet.kind] += site == 2
        if site == 2 and packet.kind == UPLOAD and asked[UPLOAD] == 1:
            copies.append(federation.root / "morning")
            shutil.copytree(federation.root / "h2", copies[0])
        if site == 2 and packet.kind == UPLOAD and asked[UPLOAD] == 3:
            federation.hospitals[2].close()
            shutil.rmtree(federation.root / "h2")
            shutil.copytree(copies[0], federation.root / "h2")
            federation.hospitals[2] = federation._open(2)

    federation.before = restore
    store = federation.drive()

    assert [(e["site"], e["code"]) for e in events(store, "refused")] == [("hospital-2", CODE)]
    assert not events(store, "returned")
    assert ["hospital-2" in event["survivors"] for event in events(store, "round")] == [True, True, False, False]
    assert asked[UPLOAD] == 3, "it is never asked for a vector again"
    check_sums(federation, store)


def test_a_file_swapped_under_a_running_node_is_noticed_before_the_next_vector(federation: SmallFederation) -> None:
    copy = back_up(federation, 2)
    asked: Counter[str] = Counter()

    def swap(site: int, packet: Packet) -> None:
        asked[packet.kind] += site == 2
        if site == 2 and packet.kind == UPLOAD and asked[UPLOAD] == 2:
            hospital = federation.hospitals[2]
            hospital.ledger.shut()
            path = federation.root / "h2" / "ledger.sqlite"
            shutil.copy(copy, path)
            fresh = federation._open(2)
            hospital.handler._gate.ledger = hospital.ledger = fresh.ledger
            phase = hospital.handler._phase
            phase.admitted.ledger = fresh.ledger  # type: ignore[union-attr]

    federation.before = swap
    store = federation.drive()
    lost = events(store, "lost")[0]
    assert (lost["site"], lost["stage"], lost["code"]) == ("hospital-2", UPLOAD, CODE)
    assert "hospital-2" not in events(store, "round")[1]["survivors"]
    check_sums(federation, store)


def test_a_coordinator_that_lost_its_memory_hears_it_from_the_other_hospitals(federation: SmallFederation) -> None:
    copy = back_up(federation, 2)
    federation.drive("r1")
    put_back(federation, 2, copy)
    (federation.root / "heads.json").unlink()
    store = federation.drive("r2")

    assert [(e["site"], e["stage"], e["code"]) for e in events(store, "lost")] == [("hospital-2", UPLOAD, CODE)]
    assert all("hospital-2" not in event["survivors"] for event in events(store, "round"))
    assert federation.hospitals[2].ledger.spent() == 0


def test_without_any_memory_the_old_copy_would_pass(federation: SmallFederation) -> None:
    """The control: it is the echo, and nothing else, that finds it."""
    copy = back_up(federation, 2)
    federation.drive("r1")
    put_back(federation, 2, copy)
    (federation.root / "heads.json").unlink()
    for index in federation.hospitals:
        federation.hospitals[index].close()
        (federation.root / f"h{index}" / "peers.json").unlink()
        federation.hospitals[index] = federation._open(index)
    store = federation.drive("r2")
    assert all("hospital-2" in event["survivors"] for event in events(store, "round"))


def test_a_ledger_that_is_ahead_of_its_echo_goes_on(federation: SmallFederation) -> None:
    """A head that was lost on the way does not make a sound ledger look old."""
    federation.drive("r1")
    federation.hospitals[2].ledger.reserve("other", "plan", _releases(federation), _caps())
    store = federation.drive("r2")
    assert not events(store, "lost")


def test_a_ledger_of_another_data_set_owes_nothing_to_this_one(federation: SmallFederation) -> None:
    federation.drive("r1")
    gate = federation.hospitals[2].handler._gate
    old = LedgerHead(dataset=dataset_hash("retired"), entries=99, last=bytes(32), told=1, audit=bytes(32)).seal(
        identity(2)
    )
    others = {i: head for i in (1, 3, 4) for _, head in gate.peers.of({public(identity(i))})}
    gate.check_echo(federation.plan, 2, {**others, 2: old})


def test_a_coordinator_that_the_officer_has_not_approved_hears_nothing_of_ledgers(federation: SmallFederation) -> None:
    federation.drive("r1")
    gate = federation.hospitals[2].handler._gate
    asked = Invitation(run="r2", plan=federation.plan.canonical()).seal(COORDINATOR)

    def answer() -> Admission:
        return Admission.open(gate.consider(asked)[2], public(identity(2)))

    approved = permissive(federation.plan)
    gate.policy = lambda: approved.model_copy(update={"coordinator": fingerprint(bytes(32))})
    told = answer()
    assert (told.answer, told.head, told.peers) == ("declined-policy", b"", ())
    gate.policy = lambda: approved.model_copy(
        update={"caps": approved.caps.model_copy(update={"epsilon_per_year": 0.01})}
    )
    told = answer()
    assert told.answer != "accept"
    assert told.head, "any other decline says how far the ledger is"
    assert len(told.peers) == 3


def _releases(federation: SmallFederation) -> tuple[object, ...]:
    from cameo_protocol.privacy.releases import round_releases

    return tuple(round_releases(federation.plan, "train"))


def _caps() -> object:
    from cameo_client.ledger import Caps

    return Caps(dataset=50, year=50)
