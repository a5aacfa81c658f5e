"""How far hospitals' ledgers have come, as they said themselves: it catches a ledger of which an old copy was put back.

Every hospital signs its ledger's head with what it sends. The coordinator and the other hospitals remember the newest
and say it back; a ledger that is behind what its own hospital once signed was put back, and the hospital stops.
Beside it travels the hash of the hospital's audit log, which the coordinator countersigns each round: who cuts that
log's end is seen by others. A head follows from plans, rounds and when they were, from the officer's caps and from
random bytes (`audit_log`); nothing in it follows from patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject

LABEL: Final = "ledger-head"
RECEIPT_LABEL: Final = "head-receipt"
MAX_HEAD: Final = 512
MAX_ENTRIES: Final = 2**53


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


def newer(known: Mapping[bytes, bytes], told: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What of `told` is news: heads that are further than the known ones, or of another data set. By 32-byte identity.

    Of two heads with as many entries the one with the newer audit log is further.

    A head that is not signed by its hospital, or is none, is left out: it may have been made up on the way.
    """
    news = {}
    for identity, sealed in told.items():
        try:
            head = LedgerHead.open(sealed, identity)
        except Reject:
            continue
        before = known.get(identity)
        old = LedgerHead.open(before, identity) if before is not None else None
        if old is None or old.dataset != head.dataset or (old.entries, old.told) < (head.entries, head.told):
            news[identity] = sealed
    return news


def _count(number: int) -> bool:
    return type(number) is int and 1 <= number <= MAX_ENTRIES
