"""How far hospitals' ledgers have come, as they said themselves: it catches a ledger of which an old copy was put back.

Every hospital signs its ledger's head with what it sends. The coordinator and the other hospitals remember the newest
and say it back; a ledger that is behind what its own hospital once signed was put back, and the hospital stops. Heads
are remembered by identity key and data set: a hospital that serves another data set meanwhile owes for the first one.
Beside it travels the hash of the hospital's audit log, which the coordinator countersigns each round: who cuts that
log's end is seen by others. A head follows from plans, rounds and when they were, from the officer's caps and from
random bytes (`audit_log`); nothing in it follows from patients.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject

LABEL: Final = "ledger-head"
RECEIPT_LABEL: Final = "head-receipt"
MAX_HEAD: Final = 512
MAX_ENTRIES: Final = 2**53
MAX_DATASETS: Final = 16


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """dataset: 32-byte hash of the data set's name; entries: how many the ledger has, >= 1; last: hash of the last.

    told: how many heads of its audit log this hospital has told; audit: the log's hash then.
    """

    dataset: bytes
    entries: int
    last: bytes
    told: int
    audit: bytes

    def seal(self, key: Ed25519PrivateKey) -> bytes:
        """Signed with the hospital's identity key."""
        return envelope.seal(key, LABEL, vars(self))

    @classmethod
    def open(cls, body: bytes, identity: bytes) -> Self:
        """Verify against the hospital's 32-byte identity; otherwise `Reject`."""
        match envelope.open_envelope(body, identity, LABEL, max_bytes=MAX_HEAD):
            case {
                "dataset": bytes(dataset),
                "entries": int(entries),
                "last": bytes(last),
                "told": int(told),
                "audit": bytes(audit),
                **rest,
            } if not rest and len(dataset) == len(last) == len(audit) == 32 and _count(entries) and _count(told):
                return cls(dataset=dataset, entries=entries, last=last, told=told, audit=audit)
        raise Reject("message-malformed", what="not the head of a ledger")

    @property
    def rank(self) -> tuple[int, int]:
        """Of two heads of one data set, the greater is further: more entries, then the newer audit log."""
        return self.entries, self.told

    def cuts(self, before: LedgerHead) -> bool:
        """Whether the audit log lost what was told of it before: as many heads were told or fewer, and not this one."""
        return self.told <= before.told and self.audit != before.audit


def countersign(key: Ed25519PrivateKey, head: bytes) -> bytes:
    """The coordinator's receipt for a signed head."""
    return envelope.seal(key, RECEIPT_LABEL, {"head": head})


def open_receipt(receipt: bytes, coordinator: bytes) -> bytes:
    """The signed head that was countersigned; `Reject` when the coordinator did not sign it."""
    match envelope.open_envelope(receipt, coordinator, RECEIPT_LABEL, max_bytes=MAX_HEAD + 128):
        case {"head": bytes(head), **rest} if not rest:
            return head
    raise Reject("message-malformed", what="not the receipt of a head")


def dataset_hash(name: str) -> bytes:
    """What a head says of its data set; 32 bytes."""
    return canonical.digest(LABEL, name)


Rows = tuple[tuple[bytes, bytes], ...]  # (32-byte identity, signed head)
Memory = dict[tuple[bytes, bytes], bytes]  # (32-byte identity, 32-byte hash of the data set) -> newest signed head


def newer(known: Mapping[tuple[bytes, bytes], bytes], told: Iterable[tuple[bytes, bytes]]) -> Memory:
    """What of `told` is news: heads of a data set that are further than the known ones of the same hospital and set.

    A head that is not signed by its hospital, or is none, is left out: it may have been made up on the way. So is one
    of more than `MAX_DATASETS` data sets of a hospital.
    """
    news: Memory = {}
    for identity, sealed in told:
        try:
            head = LedgerHead.open(sealed, identity)
        except Reject:
            continue
        key = (identity, head.dataset)
        before = news.get(key, known.get(key))
        full = sum(owner == identity for owner, _ in known.keys() | news.keys()) >= MAX_DATASETS
        if not full if before is None else LedgerHead.open(before, identity).rank < head.rank:
            news[key] = sealed
    return news


def rows_of(known: Mapping[tuple[bytes, bytes], bytes], identities: Container[bytes]) -> Rows:
    """Everything that is known of these hospitals, in a fixed order."""
    return tuple((key[0], known[key]) for key in sorted(known) if key[0] in identities)


def latest(known: Mapping[tuple[bytes, bytes], bytes], identity: bytes) -> bytes | None:
    """Of all data sets of a hospital, the head that it told last; None when it never told one."""
    heads = [sealed for owner, sealed in rows_of(known, {identity})]
    return max(heads, key=lambda sealed: LedgerHead.open(sealed, identity).told, default=None)


def is_stale(known: Mapping[tuple[bytes, bytes], bytes], identity: bytes, told: bytes) -> bool:
    """Whether a head is behind the known one of the same data set. `Reject` when its hospital did not sign it."""
    head = LedgerHead.open(told, identity)
    before = known.get((identity, head.dataset))
    return before is not None and head.rank < LedgerHead.open(before, identity).rank


def write_memory(known: Mapping[tuple[bytes, bytes], bytes]) -> bytes:
    """JSON: identity -> its heads, all as hex."""
    rows: dict[str, list[str]] = {}
    for identity, sealed in ((key[0], known[key]) for key in sorted(known)):
        rows.setdefault(identity.hex(), []).append(sealed.hex())
    return json.dumps(rows, indent=1).encode()


def read_memory(raw: bytes) -> Memory:
    """Of `write_memory`, and of the older form with one head an identity. ValueError when it is neither."""
    rows = json.loads(raw)
    if not isinstance(rows, dict):
        raise ValueError("no object")
    told = []
    for name, heads in rows.items():
        identity = bytes.fromhex(name)
        for sealed in [heads] if isinstance(heads, str) else heads if isinstance(heads, list) else [heads]:
            if not isinstance(sealed, str):
                raise ValueError("a head that is no text")
            told.append((identity, bytes.fromhex(sealed)))
    return newer({}, told)


def _count(number: int) -> bool:
    return type(number) is int and 1 <= number <= MAX_ENTRIES
