"""Every change of an audit log is seen, and the first bad entry is named."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_protocol.audit_log import (
    COORDINATOR_KINDS,
    HOSPITAL_KINDS,
    TELLING,
    AuditEntry,
    AuditHead,
    Row,
    chain,
    replay,
    verify,
)
from cameo_protocol.errors import Reject

KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
OWNER = KEY.public_key().public_bytes_raw()
KINDS = sorted(HOSPITAL_KINDS)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("C", "Z")), max_size=12)
Log = tuple[list[Row], bytes]


def make(events: list[tuple[str, str]], key: Ed25519PrivateKey = KEY) -> Log:
    rows: list[Row] = []
    head = AuditHead()
    for number, (kind, about) in enumerate(events):
        told = head.told + (kind in TELLING)
        entry = AuditEntry(
            at=number, kind=kind, who="A. Officer", about=about, facts={"run": about}, told=told, salt=bytes(16)
        )
        body = entry.encode()
        rows.append(Row(len(rows) + 1, body, chain(head.last, body)))
        head = AuditHead(entries=len(rows), last=rows[-1].hash, told=told, at=number)
    return rows, head.seal(key)


LOGS = st.lists(st.tuples(st.sampled_from(KINDS), TEXT), min_size=1, max_size=8).map(make)


def replaced(row: Row, field: str, value: bytes) -> Row:
    return row._replace(body=value) if field == "body" else row._replace(hash=value)


def first_bad(rows: list[Row], sealed: bytes) -> int:
    """The number that the refusal names."""
    with pytest.raises(Reject, match="entry ") as caught:
        verify(rows, sealed, OWNER)
    return int(caught.value.what.split("entry ")[1].split(":")[0])


@settings(deadline=None)
@given(LOGS)
def test_a_log_as_it_was_written_is_sound(log: Log) -> None:
    rows, sealed = log
    head = verify(rows, sealed, OWNER)
    assert (head.entries, head.last) == (len(rows), rows[-1].hash)
    assert head.told == sum(entry.kind in TELLING for entry, _ in replay(rows))


@settings(max_examples=40, deadline=None)
@given(LOGS, st.data())
def test_every_flipped_byte_is_seen_in_its_entry(log: Log, data: st.DataObject) -> None:
    rows, sealed = log
    at = data.draw(st.integers(0, len(rows) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    for field in ("body", "hash"):
        original: bytes = getattr(rows[at], field)
        for position in range(len(original)):
            changed = bytearray(original)
            changed[position] ^= bit
            forged = [*rows[:at], replaced(rows[at], field, bytes(changed)), *rows[at + 1 :]]
            assert first_bad(forged, sealed) == at + 1
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= bit
        with pytest.raises(Reject, match="head-invalid"):
            verify(rows, bytes(flipped), OWNER)


@settings(deadline=None)
@given(LOGS, st.data())
def test_a_removed_entry_is_named(log: Log, data: st.DataObject) -> None:
    rows, sealed = log
    at = data.draw(st.integers(0, len(rows) - 1))
    assert first_bad(rows[:at] + rows[at + 1 :], sealed) == at + 1
    renumbered = [row._replace(seq=number) for number, row in enumerate(rows[:at] + rows[at + 1 :], 1)]
    assert first_bad(renumbered, sealed) == at + 1


@settings(deadline=None)
@given(LOGS, st.data())
def test_a_cut_off_end_is_named(log: Log, data: st.DataObject) -> None:
    rows, sealed = log
    left = data.draw(st.integers(0, len(rows) - 1))
    assert first_bad(rows[:left], sealed) == left + 1


@settings(deadline=None)
@given(LOGS.filter(lambda log: len(log[0]) > 1), st.data())
def test_exchanged_entries_are_named(log: Log, data: st.DataObject) -> None:
    rows, sealed = log
    one = data.draw(st.integers(0, len(rows) - 2))
    other = data.draw(st.integers(one + 1, len(rows) - 1))
    order = list(rows)
    order[one], order[other] = rows[other]._replace(seq=one + 1), rows[one]._replace(seq=other + 1)
    assert first_bad(order, sealed) == one + 1


@settings(deadline=None)
@given(LOGS, st.sampled_from(KINDS), st.data())
def test_an_entry_that_is_put_in_is_named(log: Log, kind: str, data: st.DataObject) -> None:
    """Whoever has no key can chain on, but cannot sign what comes out."""
    rows, sealed = log
    at = data.draw(st.integers(0, len(rows)))
    before = rows[at - 1].hash if at else AuditHead().last
    told = [entry.told for entry, _ in replay(rows[:at])][-1] if at else 0
    body = AuditEntry(at=at, kind=kind, who="x", about="", told=told + (kind in TELLING), salt=bytes(16)).encode()
    added = [*rows[:at], Row(at + 1, body, chain(before, body)), *rows[at:]]
    assert first_bad([row._replace(seq=n) for n, row in enumerate(added, 1)], sealed) >= at + 1


def test_a_log_that_was_made_anew_needs_the_key() -> None:
    rows, sealed = make([("admission", "r1"), ("model-stored", "r1")], STRANGER)
    with pytest.raises(Reject, match="head-invalid"):
        verify(rows, sealed, OWNER)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_no_entry(raw: bytes) -> None:
    with pytest.raises(Reject):
        AuditEntry.decode(raw)
    with pytest.raises(Reject):
        AuditHead.open(raw, OWNER)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "gossip"}, {"who": "a\nb"}, {"who": 3}, {"about": "x" * 201}, {"facts": {"Name": "x"}},
        {"facts": {"run": 1}}, {"facts": []}, {"told": -1}, {"told": True}, {"at": 2**60}, {"salt": b"short"},
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(change: dict[str, object]) -> None:
    sound = {"at": 1, "kind": "admission", "who": "node", "about": "r", "facts": {}, "told": 1, "salt": bytes(16)}
    AuditEntry(**sound).check()  # type: ignore[arg-type]
    with pytest.raises(Reject, match="entry-invalid"):
        AuditEntry(**(sound | change)).encode()  # type: ignore[arg-type]


def test_both_sides_write_other_things() -> None:
    assert {"log-opened"} == HOSPITAL_KINDS & COORDINATOR_KINDS
