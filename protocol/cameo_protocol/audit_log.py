"""The audit log's chain: who did what, each entry bound to all before it. Pure.

Every entry carries 16 random bytes, so its hash says nothing about what is in it: the hash of the newest entry may be
told to another party, who so becomes a witness. Heads are told at fixed moments of a run only, each right after an
entry of its own (`TELLING`), so neither the hash nor whether it moved says what else happened in the hospital.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject

HEAD_LABEL: Final = "audit-head"
SALT_BYTES: Final = 16
MAX_BODY: Final = 8192
MAX_TEXT: Final = 200
MAX_TIME: Final = 2**53
GENESIS: Final = bytes(32)

# What may be written down, by whose log.
HOSPITAL_KINDS: Final = frozenset(
    {
        "log-opened", "admission", "round-released", "model-stored", "file-changed", "federation-accepted",
        "federation-left", "node-paused", "node-resumed", "consent-imported",
        "consent-withdrawn", "consent-purged", "consent-enforced", "tags-applied", "tag-reviewed", "pack-approved",
        "tags-exported", "backup-made", "backup-restored", "log-cut-noticed", "consent-exported", "roles-changed",
        "key-rotated", "key-forgotten", "page-link-made",
    }
)  # fmt: skip
COORDINATOR_KINDS: Final = frozenset(
    {
        "log-opened", "site-invited", "site-knocked", "site-approved", "site-added", "site-revoked",
        "certificate-renewed", "person-added", "person-revoked", "federation-issued", "run-started",
        "run-stop-asked", "run-stopped", "run-resumed", "models-released", "site-log-cut-noticed", "recipe-audited",
        "dashboard-link-made",
    }
)  # fmt: skip
# After these, and no others, a head is told.
TELLING: Final = frozenset({"admission", "round-released"})
_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One thing that was done.

    at: milliseconds since 1970, never before the entry before. who: a person, or "node" or "coordinator" by itself.
    about: id of what it was done to, such as a run. facts: a few short texts; never a patient's value. told: how many
    entries of `TELLING` there are up to and with this one. salt: random.
    """

    at: int
    kind: str
    who: str
    about: str
    facts: Mapping[str, str] = field(default_factory=dict)
    told: int
    salt: bytes

    def encode(self) -> bytes:
        """Canonical CBOR; a field out of its range is a `Reject`."""
        self.check()
        return canonical.encode({**vars(self), "facts": dict(self.facts)})

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """The inverse; otherwise `Reject`."""
        value = canonical.decode(body, max_bytes=MAX_BODY)
        if not isinstance(value, dict) or set(value) != set(cls.__dataclass_fields__):
            raise _invalid("it has other fields than an entry")
        entry = cls(**value)
        entry.check()
        return entry

    def check(self) -> None:
        """`Reject` unless every field is within its range."""
        texts = [self.who, self.about]
        if not isinstance(self.facts, dict):
            raise _invalid("its facts are no table")
        texts += self.facts.values()
        if not all(isinstance(text, str) and len(text) <= MAX_TEXT and _printable(text) for text in texts):
            raise _invalid("a text is too long or not printable")
        if not all(_KEY.fullmatch(key) for key in self.facts) or len(self.facts) > 12:
            raise _invalid("its facts have other names than allowed")
        if not isinstance(self.kind, str) or self.kind not in HOSPITAL_KINDS | COORDINATOR_KINDS:
            raise _invalid("its kind is unknown")
        numbers = (self.at, self.told)
        if not all(type(number) is int and 0 <= number <= MAX_TIME for number in numbers):
            raise _invalid("a number is out of its range")
        if not isinstance(self.salt, bytes) or len(self.salt) != SALT_BYTES:
            raise _invalid("its salt has another length")


class Row(NamedTuple):
    """An entry as stored: its number from 1, canonical body, chain hash of 32 bytes."""

    seq: int
    body: bytes
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class AuditHead:
    """How far a log is: entries >= 0, hash of the last (32 bytes), told and time of the last."""

    entries: int = 0
    last: bytes = GENESIS
    told: int = 0
    at: int = 0

    def seal(self, key: Ed25519PrivateKey) -> bytes:
        """Signed by the log's owner; it lies beside the entries and is told to nobody."""
        return envelope.seal(key, HEAD_LABEL, vars(self))

    @classmethod
    def open(cls, body: bytes, owner: bytes) -> Self:
        """Verify against the owner's 32-byte key; otherwise `Reject`."""
        match envelope.open_envelope(body, owner, HEAD_LABEL, max_bytes=512):
            case {"entries": int(entries), "last": bytes(last), "told": int(told), "at": int(at), **rest} if not rest:
                return cls(entries=entries, last=last, told=told, at=at)
        raise Reject("message-malformed", what="not the head of an audit log")


def chain(previous: bytes, body: bytes) -> bytes:
    """The hash of an entry: SHA-256 over the hash before it and its body."""
    return canonical.digest("audit-entry", [previous, body])


def follow(head: AuditHead, row: Row) -> tuple[AuditEntry, AuditHead]:
    """Take the next row; `Reject` "entry-invalid" when it does not follow from those before it."""
    if row.seq != head.entries + 1:
        raise _invalid("it is missing")
    if row.hash != chain(head.last, row.body):
        raise _invalid("it was changed, or one before it was removed")
    entry = AuditEntry.decode(row.body)
    if entry.at < head.at:
        raise _invalid("it is older than the entry before")
    if entry.told != head.told + (entry.kind in TELLING):
        raise _invalid("it counts the told heads wrongly")
    return entry, AuditHead(entries=row.seq, last=row.hash, told=entry.told, at=entry.at)


def replay(rows: Iterable[Row]) -> Iterator[tuple[AuditEntry, AuditHead]]:
    """Every entry with the head right after it; a `Reject` names the first bad one by its number."""
    head = AuditHead()
    for row in rows:
        try:
            entry, head = follow(head, row)
        except Reject as error:
            raise Reject("entry-invalid", what=f"entry {head.entries + 1}: {error.what}") from None
        yield entry, head


def verify(rows: Iterable[Row], sealed: bytes, owner: bytes) -> AuditHead:
    """The head of a whole log. `Reject` names the first bad entry, also when entries at the end are missing.

    sealed: the signed head that lies beside the rows. owner: 32-byte key.
    """
    try:
        stored = AuditHead.open(sealed, owner)
    except Reject:
        raise Reject("head-invalid", what="the log's head is not signed by its owner") from None
    head = AuditHead()
    for _, head in replay(rows):
        if head.entries == stored.entries and head != stored:
            raise Reject("entry-invalid", what=f"entry {head.entries}: not the one that the head was signed over")
    if head.entries != stored.entries:
        first = min(head.entries, stored.entries) + 1
        raise Reject("entry-invalid", what=f"entry {first}: it is missing, or was added without the owner's key")
    if head != stored:
        raise Reject("entry-invalid", what=f"entry {max(head.entries, 1)}: not the one that the head was signed over")
    return head


def _printable(text: str) -> bool:
    return text.isprintable()


def _invalid(what: str) -> Reject:
    return Reject("entry-invalid", what=what)
