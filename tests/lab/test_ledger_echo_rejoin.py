"""Joining anew with new keys gives no budget back, and others object to a head that was put back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_federation import (
    COORDINATOR,
    SmallFederation,
    events,
    identity,
    made_up_vectors,
    public,
    small_plan,
    small_site,
)

from cameo_protocol.errors import OperatorError
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import ADMIT, UPLOAD, Invitation, RoundCall

Handle = Callable[[Packet], Packet]
OPTIONS = ("training.rounds=2", "training.spare=4", "recalibration.share=0")
CODE = "ledger-rolled-back"
FORMER = {"hospital-2": (public(identity(2)).hex(),)}


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    return small_plan(4, *OPTIONS)


@pytest.fixture(scope="module")
def plan_after() -> RunPlan:
    """Hospital 2 was taken off and has joined anew: another key, another index, the same name."""
    return small_plan(4, *OPTIONS, sites=(small_site(1), small_site(3), small_site(4), small_site(5, "hospital-2")))


@pytest.fixture
def before(plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFederation]:
    made = SmallFederation(plan, tmp_path)
    made_up_vectors(monkeypatch, made)
    yield made
    made.close()


def copy_of(federation: SmallFederation, index: int) -> Path:
    federation.hospitals[index].close()
    copy = Path(shutil.copy(federation.root / f"h{index}" / "ledger.sqlite", federation.root / "old.sqlite"))
    federation.hospitals[index] = federation._open(index)
    return copy


def joined_anew(before: SmallFederation, plan: RunPlan, ledger: Path | None) -> SmallFederation:
    """The federation with hospital 2 on a new machine, to which that ledger was brought."""
    before.close()
    (before.root / "h5").mkdir()
    if ledger is not None:
        shutil.copy(ledger, before.root / "h5" / "ledger.sqlite")
    return SmallFederation(plan, before.root, former=FORMER)


def lost(federation: SmallFederation, run: str = "r2") -> list[tuple[str, str, str]]:
    return [(e["site"], e["stage"], e["code"]) for e in events(federation.drive(run), "lost")]


def test_last_months_ledger_under_new_keys_is_refused(before: SmallFederation, plan_after: RunPlan) -> None:
    old = copy_of(before, 2)
    before.drive("r1")
    after = joined_anew(before, plan_after, old)
    assert lost(after) == [("hospital-2", ADMIT, CODE)]
    hospital = after.hospitals[5]
    assert hospital.ledger.spent() == 0
    assert hospital.ledger.open_runs() == ()
    assert "when this hospital had the key" in hospital.reports[0][1]
    after.close()


def test_a_new_ledger_for_a_data_set_that_had_one_is_refused(before: SmallFederation, plan_after: RunPlan) -> None:
    before.drive("r1")
    after = joined_anew(before, plan_after, None)
    assert lost(after) == [("hospital-2", ADMIT, CODE)]
    assert after.hospitals[5].ledger.open_runs() == ()
    after.close()


def test_the_newest_ledger_goes_on_under_new_keys(before: SmallFederation, plan_after: RunPlan) -> None:
    before.drive("r1")
    after = joined_anew(before, plan_after, before.root / "h2" / "ledger.sqlite")
    spent = after.hospitals[5].ledger.spent()
    assert lost(after) == []
    assert after.hospitals[5].ledger.spent() > spent > 0
    after.close()


def test_a_head_that_the_former_key_did_not_sign_stops_nobody_for_good(
    before: SmallFederation, plan_after: RunPlan
) -> None:
    """A coordinator that makes one up is misbehaving: that invitation is refused, and nothing is kept of it."""
    before.drive("r1")
    after = joined_anew(before, plan_after, before.root / "h2" / "ledger.sqlite")
    former = public(identity(2))
    forged = Invitation(run="r", plan=plan_after.canonical(), heads=((former, b"x"),), former={5: (former,)})
    answer = after.hospitals[5].handler.handle(Packet(ADMIT, forged.seal(COORDINATOR)))
    assert answer.kind == "error"
    assert after.hospitals[5].ledger.open_runs() == ()
    assert lost(after) == []
    after.close()


def test_the_others_tell_a_forgetful_coordinator_of_former_keys(before: SmallFederation, plan_after: RunPlan) -> None:
    old = copy_of(before, 2)
    before.drive("r1")
    after = joined_anew(before, plan_after, old)
    (before.root / "heads.json").unlink()
    gate = after.hospitals[1].handler._gate
    asked = Invitation(run="r", plan=plan_after.canonical(), former={5: (public(identity(2)),)})
    _, _, _ = gate.consider(asked.seal(COORDINATOR))
    assert public(identity(2)) in {key for key, _ in gate.peers.of({public(identity(2))})}
    after.close()


@pytest.mark.parametrize("kept", ["an old one", "none"])
def test_a_round_with_anothers_old_head_is_refused(before: SmallFederation, kept: str) -> None:
    """A coordinator that helps hospital 2 to forget is found out by the others, before they send anything."""
    first: dict[int, bytes] = {}

    def put_back(site: int, packet: Packet) -> Packet:
        call = RoundCall.decode(packet.body)
        first.setdefault(0, call.heads[2])
        heads = {**call.heads, 2: first[0]}
        if kept == "none":
            del heads[2]
        return Packet(UPLOAD, RoundCall(**{**vars(call), "heads": heads}).encode(), packet.vector)

    for index in (1, 3):
        handle = before.hospitals[index].handler.handle

        def forge(packet: Packet, index: int = index, handle: Handle = handle) -> Packet:
            return handle(put_back(index, packet) if packet.kind == UPLOAD else packet)

        before.hospitals[index].handler.handle = forge  # type: ignore[method-assign]
    with pytest.raises(OperatorError):
        before.drive()
    for index in (1, 3):
        assert before.hospitals[index].reports[0][0] == "peer-head-stale"


def test_a_coordinator_restored_from_a_backup_learns_from_the_answers(before: SmallFederation) -> None:
    """Its old heads in an invitation are no reason to refuse: the answers say the newer ones."""
    before.drive("r1")
    backup = (before.root / "heads.json").read_bytes()
    before.drive("r2")
    (before.root / "heads.json").write_bytes(backup)
    assert lost(before, "r3") == []
