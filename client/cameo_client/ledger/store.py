"""One SQLite file that holds a ledger's entries. Knows rows and hashes, not what they mean.

A write is on the disk, in the main file, before `write` returns: WAL with synchronous=FULL, then the WAL is emptied
into the main file, because SQLite silently forgets the end of a damaged WAL, and would forget spending with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cameo_client.ledger.entries import Head
from cameo_protocol.errors import ExitCode, OperatorError

BUSY_SECONDS = 30.0
APPLICATION_ID = 0x43414D4C  # "CAML"
SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL) STRICT",
    "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL, hash BLOB NOT NULL) STRICT",
    "CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append only'); END",
)
_FULL = {"SQLITE_FULL"}
_BUSY = {"SQLITE_BUSY", "SQLITE_LOCKED"}
_DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_CONSTRAINT"}
_BLOCKED = {"SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"}


class Row(NamedTuple):
    """A stored entry: its number from 1, canonical body, and chain hash."""

    seq: int
    body: bytes
    hash: bytes


def damaged(path: Path, what: str) -> OperatorError:
    """The error for a ledger file whose content cannot be trusted any more."""
    return OperatorError(
        "ledger-corrupt",
        what=f"{path}: {what}",
        do="nothing is released until the newest sound copy of this file is back in place",
        exit=ExitCode.DATA,
    )


def create(path: Path, body: bytes, digest: bytes) -> None:
    """Write a new ledger file (mode 0600) whose only entry is the given one. An existing file is never touched."""
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _readable(path), contextlib.closing(_connect(part)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("INSERT INTO entry VALUES (1, ?, ?)", (body, digest))
            db.execute("INSERT INTO head VALUES (1, 1, ?)", (digest,))
            db.execute("COMMIT")
        _sync(part)
        os.link(part, path)  # atomic, and fails if the file is there by now
        _sync(path.parent)
    except FileExistsError:
        raise OperatorError(
            "ledger-exists", what=f"{path} is there already", do="open it; a data set has one ledger for ever"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(path) from None
        raise _blocked(path, error.strerror or "error") from None
    finally:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{part}{suffix}")


class Store:
    """An open ledger file. `write` is the only way to change it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise OperatorError(
                "ledger-missing",
                what=f"there is no ledger at {path}",
                do="bring back the newest copy; only a data set never used gets a new ledger",
                exit=ExitCode.DATA,
            )
        with _readable(path):
            self._identity = _identity(path)
            self._db = _connect(path)
            try:
                self._check_file()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def rows_after(self, count: int) -> list[Row]:
        """The entries that follow the first `count` ones, in order."""
        with _readable(self.path):
            return [
                Row(*row)
                for row in self._db.execute("SELECT seq, body, hash FROM entry WHERE seq > ? ORDER BY seq", (count,))
            ]

    def head(self) -> Head:
        """The head that was stored with the last entry."""
        with _readable(self.path):
            rows = self._db.execute("SELECT count, hash FROM head").fetchall()
        if len(rows) != 1:
            raise damaged(self.path, "it has no head")
        return Head(*rows[0])

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see one state."""
        with _readable(self.path):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._abandon()

    def write(self, decide: Callable[[], Row | None]) -> Row | None:
        """Append the entry that `decide` returns, as one transaction that no other process can come between.

        decide may read and may raise; then, and when it returns None, nothing is written. An error from here means
        that the entry may or may not be stored: read again before trusting anything.
        """
        self._check_same_file()
        with _readable(self.path):
            self._db.execute("BEGIN IMMEDIATE")
        try:
            row = decide()
            if row is not None:
                with _readable(self.path):
                    self._db.execute("INSERT INTO entry VALUES (?, ?, ?)", row)
                    self._db.execute("UPDATE head SET count = ?, hash = ?", (row.seq, row.hash))
                    self._db.execute("COMMIT")
        finally:
            self._abandon()
        return row

    def settle(self) -> None:
        """Empty the WAL into the main file, both synced."""
        deadline = time.monotonic() + BUSY_SECONDS
        with _readable(self.path):
            while self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise _busy(self.path)

    def check_pages(self) -> None:
        """Raise unless SQLite finds every page of the file in order."""
        with _readable(self.path):
            verdict = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(self.path, "its pages are not in order")

    def _abandon(self) -> None:
        """End the transaction if one is open still; its writes, if any, are undone."""
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _check_same_file(self) -> None:
        if _identity(self.path) != self._identity:
            raise damaged(self.path, "it was replaced or removed while this process had it open")

    def _check_file(self) -> None:
        marks = [self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if marks != [APPLICATION_ID, SCHEMA_VERSION]:
            raise damaged(self.path, "it is not a ledger of this version")
        mode = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        found = [row[0] for row in self._db.execute("SELECT sql FROM sqlite_schema ORDER BY rowid")]
        if mode != "wal" or found != list(_SCHEMA):
            raise damaged(self.path, "its tables are not those of a ledger")


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one of the same name; (0, 0) when there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON", "wal_autocheckpoint = 0"):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn every SQLite error into an `OperatorError` that says what to do. Nothing was released."""
    try:
        yield
    except sqlite3.Error as error:
        # Extended names such as SQLITE_IOERR_WRITE begin with the plain one.
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        raise _translated(path, name) from None
    except (UnicodeDecodeError, OverflowError, TypeError):
        raise damaged(path, "it holds values that no ledger has") from None


def _translated(path: Path, name: str) -> OperatorError:
    plain = "_".join(name.split("_")[:2])
    if plain in _FULL:
        return _full(path)
    if plain in _BUSY:
        return _busy(path)
    if plain in _BLOCKED:
        return _blocked(path, name)
    if plain in _DAMAGED:
        return damaged(path, f"SQLite reports {name}")
    return OperatorError(
        "ledger-io",
        what=f"{path}: SQLite reports {name}; nothing was released",
        do="check the disk and the file's permissions, then run: cameo-node doctor",
        exit=ExitCode.DATA,
    )


def _full(path: Path) -> OperatorError:
    return OperatorError(
        "ledger-disk-full",
        what=f"{path} cannot grow; nothing was released",
        do="free space on this volume, then run: cameo-node start",
        exit=ExitCode.DATA,
    )


def _busy(path: Path) -> OperatorError:
    return OperatorError(
        "ledger-busy",
        what=f"{path} is in use by another process for more than {BUSY_SECONDS:.0f} s; nothing was released",
        do="stop the other process that reads or writes this ledger, then run: cameo-node start",
        exit=ExitCode.DATA,
    )


def _blocked(path: Path, reason: str) -> OperatorError:
    return OperatorError(
        "ledger-unwritable",
        what=f"{path} or its folder cannot be written ({reason}); nothing was released",
        do="give the node's user write access to this folder, then run: cameo-node doctor",
        exit=ExitCode.DATA,
    )
