"""How far hospitals' ledgers have come, as they said themselves: it catches a ledger of which an old copy was put back.

Every hospital signs its ledger's head with what it sends. The coordinator and the other hospitals remember the newest
and say it back; a ledger that is behind what its own hospital once signed was put back, and the hospital stops.
A head follows from plans, rounds and when they were, and from the officer's caps; nothing in it follows from patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject

LABEL: Final = "ledger-head"
MAX_HEAD: Final = 512
MAX_ENTRIES: Final = 2**53


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """dataset: 32-byte hash of the data set's name; entries: how many the ledger has, >= 1; last: hash of the last."""

    dataset: bytes
    entries: int
    last: bytes

    def seal(self, key: Ed25519PrivateKey) -> bytes:
        """Signed with the hospital's identity key."""
        return envelope.seal(key, LABEL, {"dataset": self.dataset, "entries": self.entries, "last": self.last})

    @classmethod
    def open(cls, body: bytes, identity: bytes) -> Self:
        """Verify against the hospital's 32-byte identity; otherwise `Reject`."""
        match envelope.open_envelope(body, identity, LABEL, max_bytes=MAX_HEAD):
            case {"dataset": bytes(dataset), "entries": int(entries), "last": bytes(last), **rest} if (
                not rest and len(dataset) == len(last) == 32 and type(entries) is int and 1 <= entries <= MAX_ENTRIES
            ):
                return cls(dataset=dataset, entries=entries, last=last)
        raise Reject("message-malformed", what="not the head of a ledger")


def dataset_hash(name: str) -> bytes:
    """What a head says of its data set; 32 bytes."""
    return canonical.digest(LABEL, name)


def newer(known: Mapping[bytes, bytes], told: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What of `told` is news: heads that are further than the known ones, or of another data set. By 32-byte identity.

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
        if old is None or old.dataset != head.dataset or old.entries < head.entries:
            news[identity] = sealed
    return news
