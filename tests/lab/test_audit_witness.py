"""A hospital's audit log in a run: what is in it, who has seen it, and that cutting its end is noticed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_federation import COORDINATOR, SmallFederation, events, identity, made_up_vectors, public, small_plan

from cameo_client.backup import make_backup, open_backup, put_back
from cameo_client.home import NodeHome
from cameo_client.node import witness
from cameo_client.node.witness import Witness, check_receipt
from cameo_client.vault import Vault
from cameo_protocol.errors import OperatorError
from cameo_protocol.heads import LedgerHead, countersign, open_receipt
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import ADMIT, UPLOAD, Admission, RoundCall, unpair


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    return small_plan(4, "training.rounds=3", "training.spare=4", "recalibration.share=0")


@pytest.fixture
def federation(plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFederation]:
    made = SmallFederation(plan, tmp_path)
    made_up_vectors(monkeypatch, made)
    yield made
    made.close()


def kinds(federation: SmallFederation, index: int) -> Counter[str]:
    return Counter(entry.kind for entry, _ in federation.hospitals[index].witness.log.entries())


def test_a_run_is_written_down_and_countersigned_each_round(federation: SmallFederation) -> None:
    receipts: list[bytes] = []

    def watch(site: int, packet: Packet) -> None:
        if site == 2 and packet.kind == UPLOAD:
            receipts.append(RoundCall.decode(packet.body).receipts[2])

    federation.before = watch
    store = federation.drive()
    rounds = len(events(store, "round"))
    assert kinds(federation, 2) == {"log-opened": 1, "admission": 1, "round-released": rounds}
    log, home = federation.hospitals[2].witness.log, NodeHome(federation.root / "h2")
    assert log.verify().told == 1 + rounds
    heads = [LedgerHead.open(open_receipt(raw, public(COORDINATOR)), public(identity(2))) for raw in receipts]
    assert [head.told for head in heads] == list(range(1, rounds + 1)), "each head that was told comes back signed"
    assert all(log.holds(head.audit) for head in heads)
    assert check_receipt(log, home.receipt, public(COORDINATOR), public(identity(2)))
    assert not events(store, "audit-log-cut")


def test_what_else_happens_in_a_hospital_moves_nothing_that_is_told(federation: SmallFederation) -> None:
    """With or without local entries: as many bytes, the same count, and a hash that is random either way."""
    told: dict[int, list[bytes]] = {1: [], 2: []}

    def busy(site: int, packet: Packet) -> None:
        if site == 2 and packet.kind in (ADMIT, UPLOAD):
            for _ in range(50):
                federation.hospitals[2].witness.log.note("tag-reviewed", who="A. Nurse", about="lung-screening")

    handle = {index: federation.hospitals[index].handler.handle for index in told}

    def listen(index: int, packet: Packet) -> Packet:
        answer = handle[index](packet)
        if answer.kind == ADMIT:
            told[index].append(Admission.open(answer.body, public(identity(index))).head)
        if answer.kind == UPLOAD:
            told[index].append(unpair(answer.body)[1])
        return answer

    for index in told:
        federation.hospitals[index].handler.handle = partial(listen, index)  # type: ignore[method-assign]
    federation.before = busy
    federation.drive()
    quiet, loud = ([LedgerHead.open(raw, public(identity(i))) for raw in told[i]] for i in (1, 2))
    assert [head.told for head in quiet] == [head.told for head in loud]
    assert [len(raw) for raw in told[1]] == [len(raw) for raw in told[2]]
    assert len({head.audit for head in quiet + loud}) == len(quiet + loud)
    assert kinds(federation, 2)["tag-reviewed"] == 50 * len(loud)


def test_a_log_whose_end_was_cut_is_noticed_by_others_and_by_itself(federation: SmallFederation) -> None:
    folder = federation.root / "h2"
    federation.hospitals[2].close()
    shutil.copy(folder / "audit.sqlite", federation.root / "old")
    federation.hospitals[2] = federation._open(2)
    federation.drive("r1")
    federation.hospitals[2].close()
    for path in folder.glob("audit.sqlite*"):
        path.unlink()
    shutil.copy(federation.root / "old", folder / "audit.sqlite")
    federation.hospitals[2] = federation._open(2)
    hospital = federation.hospitals[2]
    with pytest.raises(OperatorError, match="audit-log-cut"):
        check_receipt(hospital.witness.log, folder / "audit-receipt.cbor", public(COORDINATOR), public(identity(2)))

    store = federation.drive("r2")
    assert {event["site"] for event in events(store, "audit-log-cut")} == {"hospital-2"}, "the second party sees it"
    assert hospital.reports[0][0] == "audit-log-cut"
    assert kinds(federation, 2)["log-cut-noticed"] == 1
    assert all("hospital-2" in event["survivors"] for event in events(store, "round")), "it is told, not locked out"


def test_a_log_that_was_begun_anew_with_a_new_key_is_noticed(federation: SmallFederation) -> None:
    """Whoever has the account can take log, key and receipt away; what the coordinator has seen stays seen."""
    folder = federation.root / "h2"
    federation.drive("r1")
    federation.hospitals[2].close()
    gone = [*folder.glob("audit.sqlite*"), *folder.glob("audit-receipt*"), *folder.glob("keys/audit.key")]
    assert gone
    for path in gone:
        path.unlink()
    federation.hospitals[2] = federation._open(2)
    store = federation.drive("r2")
    assert {event["site"] for event in events(store, "audit-log-cut")} == {"hospital-2"}
    assert kinds(federation, 2)["log-cut-noticed"] == 1


def test_a_receipt_that_the_coordinator_did_not_sign_is_refused(federation: SmallFederation) -> None:
    handle = federation.hospitals[2].handler.handle

    def forge(packet: Packet) -> Packet:
        if packet.kind != UPLOAD:
            return handle(packet)
        call = RoundCall.decode(packet.body)
        forged = {**call.receipts, 2: bytes(len(call.receipts[2]))}
        return handle(Packet(UPLOAD, RoundCall(**{**vars(call), "receipts": forged}).encode(), packet.vector))

    federation.hospitals[2].handler.handle = forge  # type: ignore[method-assign]
    federation.drive()
    assert {code for code, _ in federation.hospitals[2].reports} == {"message-malformed"}
    assert federation.hospitals[2].ledger.spent() == 0, "refused before anything is charged"


def test_an_older_receipt_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    """Otherwise a coordinator that says an old head again would hide what a log has lost since."""
    witness = Witness(receipt=tmp_path / "receipt")

    def receipt(told: int) -> bytes:
        head = LedgerHead(dataset=bytes(32), entries=9, last=bytes(32), told=told, audit=bytes([told] * 32))
        return countersign(COORDINATOR, head.seal(identity(2)))

    for told, kept in ((3, 3), (2, 3), (3, 3), (4, 4)):
        witness.keep_receipt(receipt(told), public(COORDINATOR), public(identity(2)))
        assert (tmp_path / "receipt").read_bytes() == receipt(kept)
    (tmp_path / "receipt").write_bytes(b"noise")
    witness.keep_receipt(receipt(1), public(COORDINATOR), public(identity(2)))
    assert (tmp_path / "receipt").read_bytes() == receipt(1), "one that does not hold is no receipt"


def test_a_decline_is_written_down_by_its_code(federation: SmallFederation) -> None:
    hospital = federation.hospitals[3]
    hospital.handler._gate.study = lambda _plan: (_ for _ in ()).throw(
        OperatorError("quality-too-low", what="Zhang Wei, 1961-04-02", do="run: cameo-node data check")
    )
    federation.drive()
    entry = next(entry for entry, _ in hospital.witness.log.entries() if entry.kind == "admission")
    assert entry.facts == {"answer": "declined-local", "codes": "quality-too-low"}


def test_a_backup_from_before_a_round_is_refused_on_the_echo(federation: SmallFederation) -> None:
    """`cameo-node backup`, a run, `cameo-node restore`: the others have seen a newer ledger."""
    folder = federation.root / "h2"
    home = NodeHome(folder)
    vault = Vault.open(home)
    sealed, _ = make_backup(home, vault, "hospital-2", "2026-01-01T00:00:00Z")
    newest: list[bytes] = []
    federation.drive("r1")
    newest.append(make_backup(home, vault, "hospital-2", "2026-01-02T00:00:00Z")[0])

    def restore(raw: bytes) -> None:
        federation.hospitals[2].close()
        shutil.rmtree(folder)
        put_back(home, open_backup(raw, vault)[1])
        federation.hospitals[2] = federation._open(2)

    restore(sealed)
    store = federation.drive("r2")
    assert [(e["site"], e["code"]) for e in events(store, "lost")] == [("hospital-2", "ledger-rolled-back")]
    assert federation.hospitals[2].ledger.spent() == 0, "nothing was released with the old ledger"
    restore(newest[0])
    store = federation.drive("r3")
    assert not events(store, "lost"), "the newest one is welcome"


def test_what_cannot_be_written_down_does_not_leave(federation: SmallFederation) -> None:
    def full(site: int, packet: Packet) -> None:
        if site == 2 and packet.kind == UPLOAD:
            federation.hospitals[2].witness.log.db.execute("PRAGMA query_only = ON")

    federation.before = full
    store = federation.drive()
    assert [(e["site"], e["stage"]) for e in events(store, "lost")][:1] == [("hospital-2", UPLOAD)]
    assert all("hospital-2" not in event["survivors"] for event in events(store, "round"))
    assert "audit-log-unwritable" in federation.hospitals[2].reports[0][1]


def test_the_doctor_says_it_before_a_run_does(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    home = NodeHome(federation.root / "h2")
    coordinator = SimpleNamespace(coordinator=public(COORDINATOR).hex())
    monkeypatch.setattr(witness, "load_federation", lambda _home: coordinator)
    assert "every entry holds" in witness.look_at_log(home)
    federation.drive()
    assert "what the coordinator has seen of it is there" in witness.look_at_log(home)
    federation.hospitals[2].close()
    for path in home.root.glob("audit.sqlite*"):
        path.unlink()
    federation.hospitals[2] = federation._open(2)
    with pytest.raises(OperatorError, match="audit-log-cut"):
        witness.look_at_log(home)
