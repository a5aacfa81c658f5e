"""Guard 14: a hash-chained log of what was decided, by whom. Cutting, changing or inserting an entry is seen."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from datetime import datetime

from cameo_protocol.errors import ExitCode, OperatorError

GENESIS = "0" * 64
SCHEMA = """
CREATE TABLE log (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL,
  previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE) STRICT;
"""


def append(db: sqlite3.Connection, kind: str, body: bytes, at: datetime) -> str:
    """Add one entry inside the caller's transaction; its hash, hex. body: sealed, so the chain needs no key."""
    row = db.execute("SELECT seq, hash FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (row[0] + 1, row[1]) if row else (1, GENESIS)
    digest = _hash(seq, at.isoformat(), kind, body, previous)
    db.execute("INSERT INTO log VALUES (?,?,?,?,?,?)", (seq, at.isoformat(), kind, body, previous, digest))
    return digest


def head(db: sqlite3.Connection) -> tuple[int, str]:
    """(number of entries, hash of the last one); to be kept elsewhere, so that a cut-off end is seen."""
    row = db.execute("SELECT seq, hash FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, GENESIS)


def verify(db: sqlite3.Connection) -> tuple[int, str]:
    """Recompute the chain: its head. The first bad entry: `OperatorError("tag-log-broken")` with its number."""
    expected, previous = 1, GENESIS
    for seq, at, kind, body, before, digest in db.execute("SELECT * FROM log ORDER BY seq"):
        if seq != expected or before != previous or digest != _hash(seq, at, kind, body, before):
            raise OperatorError(
                "tag-log-broken",
                what=f"entry {expected} of the tag log is missing or was changed",
                do="restore tags.sqlite from the last backup and tell the privacy officer",
                exit=ExitCode.DATA,
            )
        expected, previous = seq + 1, digest
    return expected - 1, previous


def _hash(seq: int, at: str, kind: str, body: bytes, previous: str) -> str:
    content = hashlib.sha256(body).hexdigest()
    text = json.dumps(["cameo/tag-log/2", seq, at, kind, content, previous], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
