"""The audit log over a database connection that is handed in: append-only, one entry a transaction.

Opening the file is each side's own business (`cameo_client.audit`, `cameo_server.audit`); the rules are here, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.audit_log import (
    SALT_BYTES,
    TELLING,
    AuditEntry,
    AuditHead,
    Row,
    chain,
    replay,
    verify,
)
from cameo_protocol.errors import Bug, ExitCode, OperatorError, Reject

APPLICATION_ID: Final = 0x43414D41  # "CAMA"
PRAGMAS: Final = ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON")
SCHEMA: Final = (
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL UNIQUE) STRICT",
    "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL) STRICT",
    "CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END",
)


class Database(Protocol):
    """What is used of a SQLite connection in autocommit mode."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any: ...

    def close(self) -> None: ...


@dataclass
class AuditLog:
    """One party's log. Safe for threads of a process, and for processes of a machine: writers take turns.

    kinds: what may be written in it. key: of the owner, who signs each head. clock: seconds since 1970. random: CSPRNG,
    count -> bytes. guard: turns the database's errors into `OperatorError`s.
    """

    path: Path
    db: Database
    kinds: frozenset[str]
    key: Ed25519PrivateKey
    clock: Callable[[], float]
    random: Callable[[int], bytes]
    guard: Callable[[], AbstractContextManager[None]]
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _said: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict, repr=False)

    def prepare(self) -> None:
        """Make the tables where there are none; a file of another kind is an `OperatorError`."""
        with self._lock, self.guard():
            if not self.db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
                self._create()
            found = [row[0] for row in self.db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
            kind = self.db.execute("PRAGMA application_id").fetchone()[0]
        if kind != APPLICATION_ID or found != list(SCHEMA):
            raise self._broken("it is no audit log of this version")

    def _create(self) -> None:
        with self._transaction():
            if self.db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
                return  # another process was first
            self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in SCHEMA:
                self.db.execute(statement)
            self.db.execute("INSERT INTO head VALUES (1, ?)", (AuditHead().seal(self.key),))
            self._append("log-opened", "", "", {"owner": self._owner().hex()})

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def note(self, kind: str, /, *, who: str, about: str = "", **facts: str) -> AuditHead:
        """Append one entry, on disk when this returns; the head after it. A log that does not hold is not added to."""
        with self._lock, self.guard(), self._transaction():
            return self._append(kind, who, about, facts)

    def note_if_new(self, kind: str, /, *, who: str, about: str, **facts: str) -> bool:
        """Append unless the newest entry of this kind about the same thing says the same; whether it was appended.

        Only one process may note this kind: what it said last is remembered here.
        """
        with self._lock, self.guard(), self._transaction():
            if self._said.get((kind, about)) == facts:
                return False
            new = self._last_facts(kind, about) != facts
            if new:
                self._append(kind, who, about, facts)
        self._said[kind, about] = facts
        return new

    def has_said(self, kind: str, about: str) -> bool:
        """Whether there is any entry of this kind about this thing."""
        with self._lock, self.guard():
            return (kind, about) in self._said or self._last_facts(kind, about) is not None

    def _last_facts(self, kind: str, about: str) -> dict[str, str] | None:
        for (body,) in self.db.execute("SELECT body FROM entry ORDER BY seq DESC"):
            entry = self._decoded(body)
            if (entry.kind, entry.about) == (kind, about):
                return dict(entry.facts)
        return None

    def head(self) -> AuditHead:
        """The stored head, its signature checked."""
        with self._lock, self.guard():
            return self._stored()

    def holds(self, digest: bytes) -> bool:
        """Whether some entry has this hash: that of a head that was told is in the log for ever."""
        with self._lock, self.guard():
            return self.db.execute("SELECT 1 FROM entry WHERE hash = ?", (digest,)).fetchone() is not None

    def entries(self) -> Iterator[tuple[AuditEntry, AuditHead]]:
        """Every entry with the head after it, oldest first; a bad one is an `OperatorError` that names its number."""
        with self._lock, self.guard():
            rows = list(self._rows())
        try:
            yield from replay(rows)
        except Reject as error:
            raise self._broken(error.what) from None

    def verify(self) -> AuditHead:
        """Check everything. `OperatorError` "audit-log-broken" names the first bad entry."""
        with self._lock, self.guard():
            rows, sealed = list(self._rows()), self._sealed()
            sound = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        try:
            head = verify(rows, sealed, self._owner())
        except Reject as error:
            raise self._broken(error.what) from None
        if sound != "ok":
            raise self._broken("its pages are not in order")
        return head

    def _append(self, kind: str, who: str, about: str, facts: dict[str, str]) -> AuditHead:
        if kind not in self.kinds:
            raise Bug("audit-kind", what=f"{kind} is not written in this log")
        head = self._stored()
        last = self.db.execute("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
        if (last or (0, AuditHead().last)) != (head.entries, head.last):
            raise self._broken(f"entry {head.entries}: not the last one, as the log's head says")
        entry = AuditEntry(
            at=max(int(self.clock() * 1000), head.at),
            kind=kind,
            who=who,
            about=about,
            facts=facts,
            told=head.told + (kind in TELLING),
            salt=self.random(SALT_BYTES),
        )
        try:
            body = entry.encode()
        except Reject as error:
            raise OperatorError(
                "audit-text", what=f"the audit log cannot take this: {error.what}", do="use a shorter, printable name"
            ) from None
        row = Row(head.entries + 1, body, chain(head.last, body))
        after = AuditHead(entries=row.seq, last=row.hash, told=entry.told, at=entry.at)
        self.db.execute("INSERT INTO entry VALUES (?, ?, ?)", row)
        self.db.execute("UPDATE head SET sealed = ? WHERE id = 1", (after.seal(self.key),))
        return after

    def _decoded(self, body: bytes) -> AuditEntry:
        try:
            return AuditEntry.decode(body)
        except Reject as error:
            raise self._broken(error.what) from None

    def _rows(self) -> Iterator[Row]:
        return (Row(*row) for row in self.db.execute("SELECT seq, body, hash FROM entry ORDER BY seq"))

    def _sealed(self) -> bytes:
        rows = self.db.execute("SELECT sealed FROM head").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], bytes):
            raise self._broken("it has no head")
        sealed: bytes = rows[0][0]
        return sealed

    def _stored(self) -> AuditHead:
        try:
            return AuditHead.open(self._sealed(), self._owner())
        except Reject:
            raise self._broken("the log's head is not signed by its owner") from None

    def _owner(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def _broken(self, what: str) -> OperatorError:
        return broken(self.path, what)


def broken(path: Path, what: str) -> OperatorError:
    """The error for a log whose content cannot be trusted any more."""
    return OperatorError(
        "audit-log-broken",
        what=f"{path}: {what}",
        do="keep this file for whoever investigates; put the newest sound copy in its place",
        exit=ExitCode.DATA,
    )


def unusable(path: Path, name: str) -> OperatorError:
    """The error for a database that cannot be used. name: SQLite's for the error, such as SQLITE_FULL."""
    plain = "_".join(name.split("_")[:2])
    if plain in ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_MISMATCH", "SQLITE_ERROR", "SQLITE_CONSTRAINT"):
        return broken(path, f"SQLite reports {name}")
    return OperatorError(
        "audit-log-unwritable",
        what=f"{path}: SQLite reports {name}; nothing was added to the log",
        do="free space and check permissions of this folder, then run the command again",
        exit=ExitCode.DATA,
    )
