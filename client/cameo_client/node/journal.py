"""The round journal on disk: what has been released stays released, whatever crashes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from cameo_protocol.errors import ExitCode, OperatorError, Reject
from cameo_protocol.secagg.journal import Stage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS released (
    transcript BLOB NOT NULL, round_no INTEGER NOT NULL, stage TEXT NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (transcript, round_no, stage)
) STRICT, WITHOUT ROWID;
"""


class DiskJournal:
    """Implements `secagg.journal.Journal` in SQLite with WAL and synchronous=FULL: on disk before it returns.

    reach: called with the name of a failpoint after each entry.
    """

    def __init__(self, path: Path, reach: Callable[[str], None] = lambda _point: None) -> None:
        self._reach = reach
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise _unusable(path, error) from None
        self._path = path

    def record(self, transcript: bytes, round_no: int, stage: Stage, digest: bytes) -> None:
        """Store that a stage of a round is spent; a second time is a `Reject`, whatever the digest."""
        try:
            self._db.execute("INSERT INTO released VALUES (?, ?, ?, ?)", (transcript, round_no, stage, digest))
        except sqlite3.IntegrityError:
            raise Reject("already-released", what=f"the {stage} of round {round_no} has left already") from None
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from None
        self._reach(f"{stage}-journaled")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _unusable(path: Path, error: sqlite3.Error) -> OperatorError:
    return OperatorError(
        "journal-unusable",
        what=f"cannot write {path}: {error}",
        do="free space on the disk or make the file writable; nothing has been released",
        exit=ExitCode.DATA,
    )
