"""Heads of ledgers: signed by their hospital, and only those that are news are kept."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol import envelope
from cameo_protocol.errors import Reject
from cameo_protocol.heads import (
    LABEL,
    MAX_DATASETS,
    LedgerHead,
    countersign,
    dataset_hash,
    is_stale,
    latest,
    newer,
    open_receipt,
    read_memory,
    rows_of,
    write_memory,
)

ONE, TWO = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))
FIRST, SECOND = (key.public_key().public_bytes_raw() for key in (ONE, TWO))
HEART = (FIRST, dataset_hash("heart"))


def head(entries: int, dataset: str = "heart", key: Ed25519PrivateKey = ONE, told: int = 1) -> bytes:
    return LedgerHead(
        dataset=dataset_hash(dataset), entries=entries, last=bytes([entries]) * 32, told=told, audit=bytes([told]) * 32
    ).seal(key)


def test_a_head_comes_back_and_only_from_its_hospital() -> None:
    assert LedgerHead.open(head(3), FIRST).entries == 3
    with pytest.raises(Reject, match="signature-invalid"):
        LedgerHead.open(head(3), SECOND)


@pytest.mark.parametrize(
    "change",
    [
        {"entries": 0},
        {"entries": True},
        {"entries": "3"},
        {"last": b"x"},
        {"dataset": b""},
        {"more": 1},
        {"entries": -1},
        {"told": 0},
        {"told": True},
        {"audit": bytes(31)},
    ],
)
def test_what_is_no_head_is_refused(change: dict[str, object]) -> None:
    sound = {"dataset": bytes(32), "entries": 3, "last": bytes(32), "told": 1, "audit": bytes(32)}
    with pytest.raises(Reject, match="message-malformed"):
        LedgerHead.open(envelope.seal(ONE, LABEL, sound | change), FIRST)


def test_only_news_is_kept() -> None:
    known = {HEART: head(3)}
    assert newer(known, [(FIRST, head(4))]) == {HEART: head(4)}
    assert newer(known, [(FIRST, head(3))]) == {}
    assert newer(known, [(FIRST, head(2))]) == {}
    assert newer(known, [(FIRST, head(3, told=2))]) == {HEART: head(3, told=2)}
    assert newer({HEART: head(3, told=5)}, [(FIRST, head(4, told=2))]) == {HEART: head(4, told=2)}
    assert newer({}, [(FIRST, head(2)), (FIRST, head(5)), (FIRST, head(4))]) == {HEART: head(5)}
    both = {HEART: head(1), (SECOND, HEART[1]): head(2, key=TWO)}
    assert newer({}, [(FIRST, head(1)), (SECOND, head(2, key=TWO))]) == both


def test_another_data_set_does_not_push_out_what_was_known() -> None:
    """A hospital that goes to another data set and back still owes for the first one."""
    known = {HEART: head(9)}
    known |= newer(known, [(FIRST, head(1, "lung", told=2))])
    assert newer(known, [(FIRST, head(3, told=3))]) == {}
    assert rows_of(known, {FIRST}) == tuple((FIRST, known[key]) for key in sorted(known))
    assert latest(known, FIRST) == head(1, "lung", told=2)
    assert is_stale(known, FIRST, head(8))
    assert not is_stale(known, FIRST, head(9))
    assert not is_stale(known, FIRST, head(1, "skin"))


def test_one_hospital_cannot_fill_everybodys_memory() -> None:
    flood = [(FIRST, head(1, f"set-{i}")) for i in range(50)]
    known = newer({}, flood)
    assert len(known) == MAX_DATASETS
    assert newer(known, [(FIRST, head(1, "more"))]) == {}
    assert len(newer(known, [(FIRST, head(2, "set-0")), (SECOND, head(1, key=TWO))])) == 2


def test_a_memory_comes_back_and_the_older_form_is_read() -> None:
    known = newer({}, [(FIRST, head(1)), (FIRST, head(2, "lung")), (SECOND, head(2, key=TWO))])
    assert read_memory(write_memory(known)) == known
    assert read_memory(json.dumps({FIRST.hex(): head(1).hex()}).encode()) == {HEART: head(1)}


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"00": 1}', b'{"zz": []}', b'{"00": [1]}', b'{"00": {}}'])
def test_what_is_no_memory_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read_memory(raw)


def test_a_head_in_anothers_name_is_no_news() -> None:
    assert newer({}, [(FIRST, head(9, key=TWO))]) == {}
    assert newer({HEART: head(3)}, [(FIRST, head(9, key=TWO)), (SECOND, b"")]) == {}


@given(st.binary(max_size=300))
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(Reject):
        LedgerHead.open(raw, FIRST)
    assert newer({}, [(FIRST, raw)]) == {}


def test_a_log_that_lost_what_was_told_is_noticed() -> None:
    def log(told: int, mark: int) -> LedgerHead:
        return LedgerHead(dataset=bytes(32), entries=1, last=bytes(32), told=told, audit=bytes([mark]) * 32)

    assert not log(4, 4).cuts(log(3, 3))
    assert not log(3, 3).cuts(log(3, 3))
    assert log(3, 9).cuts(log(3, 3)), "the end was cut off and written anew"
    assert log(2, 2).cuts(log(3, 3)), "an old copy was put back"


def test_a_receipt_is_of_the_coordinator_and_for_one_head() -> None:
    receipt = countersign(TWO, head(3))
    assert open_receipt(receipt, SECOND) == head(3)
    with pytest.raises(Reject, match="signature-invalid"):
        open_receipt(receipt, FIRST)
    with pytest.raises(Reject, match="message-malformed"):
        open_receipt(envelope.seal(TWO, "head-receipt", {"head": 1}), SECOND)
