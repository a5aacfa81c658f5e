"""The consent store: an append-only SQLite file of this hospital's own.

The latest decision about a scope counts; no decision is a no. A refusal or withdrawal counts at once even if its time
lies ahead (a clock that runs fast must not delay it), a grant only from its time on. Which purposes rest on another
legal basis than consent is the policy's matter and the caller's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cameo_client.consent.records import ConsentRecord, Scope, Use
from cameo_protocol.errors import ExitCode, OperatorError

SCHEMA_VERSION = 1
_NO_DELETE = "CREATE TRIGGER {0}_no_delete BEFORE DELETE ON {0} BEGIN SELECT RAISE(ABORT, '{0} is append-only'); END;"
_SCHEMA = f"""
CREATE TABLE consent (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, pseudonym TEXT NOT NULL, scope TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('granted', 'denied', 'withdrawn')), notice_version TEXT NOT NULL,
    notice_sha256 TEXT NOT NULL, method TEXT NOT NULL, at INTEGER NOT NULL, expires INTEGER, guardian TEXT,
    added INTEGER NOT NULL
) STRICT;
CREATE INDEX consent_by_patient ON consent (scope, pseudonym, at, seq);
CREATE TABLE use (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, scope TEXT NOT NULL, action TEXT NOT NULL,
    reference TEXT NOT NULL, ground TEXT NOT NULL
) STRICT;
CREATE TABLE use_patient (
    pseudonym TEXT NOT NULL, use_id INTEGER NOT NULL REFERENCES use (id), PRIMARY KEY (pseudonym, use_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE purge (
    at INTEGER NOT NULL, before INTEGER NOT NULL, consents INTEGER NOT NULL, uses INTEGER NOT NULL
) STRICT;
{
    "".join(
        f"CREATE TRIGGER {t}_no_update BEFORE UPDATE ON {t} BEGIN SELECT RAISE(ABORT, '{t} is append-only'); END;"
        for t in ("consent", "use", "use_patient", "purge")
    )
}
{"".join(_NO_DELETE.format(t) for t in ("consent", "use", "use_patient", "purge"))}
PRAGMA user_version = {SCHEMA_VERSION};
"""
_LATEST = """
SELECT pseudonym, status, expires, guardian, method FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY pseudonym ORDER BY at DESC, seq DESC) AS place
    FROM consent WHERE scope = :scope AND (status <> 'granted' OR at <= :now)
) WHERE place = 1
"""
_COLUMNS = "pseudonym, scope, status, notice_version, notice_sha256, method, at, expires, guardian"


@dataclass(frozen=True)
class UsageReport:
    """What a patient is owed: every decision and every use, oldest first. fictional: any decision is made up."""

    pseudonym: str
    decisions: tuple[ConsentRecord, ...]
    uses: tuple[Use, ...]

    @property
    def fictional(self) -> bool:
        """Whether any decision was made up for a demonstration."""
        return any(record.fictional for record in self.decisions)


@dataclass(frozen=True)
class Purge:
    """One purge: when, of what was older than which moment, and how many decisions and uses went."""

    at: datetime
    before: datetime
    decisions: int
    uses: int


class ConsentStore:
    """Opened with `ConsentStore.open`; use it as a context manager or call `close`. One process writes at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store, or make an empty one. A file that is damaged or of another kind is an `OperatorError`."""
        try:
            path.touch(mode=0o600)  # before SQLite opens it: its files beside it get the same rights
            db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            fresh = version == 0 and not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if fresh:
                db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            elif version != SCHEMA_VERSION or db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError
            path.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            raise OperatorError(
                "consent-store-unreadable",
                what=f"{path.name} is no sound consent store ({type(error).__name__})",
                do="restore it from a backup",
                exit=ExitCode.DATA,
            ) from None
        return cls(db)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. A full disk or a lock held too long is an `OperatorError`; nothing was written then."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise OperatorError(
                    "consent-store-write",
                    what=f"the consent store could not be written ({type(error).__name__}); nothing was changed",
                    do="check disk space and that no other process writes it, then repeat the command",
                    exit=ExitCode.DATA,
                ) from None
            raise

    def add(self, records: Iterable[ConsentRecord], *, now: datetime) -> int:
        """Append decisions, all or none; returns how many. now: when they were entered."""
        before = self._db.total_changes
        with self._transaction() as db:
            db.executemany(
                f"INSERT INTO consent ({_COLUMNS}, added) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (
                    (
                        r.pseudonym, r.scope, r.status, r.notice_version, r.notice_sha256, r.method, _ms(r.at),
                        None if r.expires is None else _ms(r.expires), r.guardian, _ms(now),
                    )
                    for r in records
                ),
            )  # fmt: skip
        return self._db.total_changes - before

    def granted(
        self,
        pseudonyms: Sequence[str],
        scope: Scope,
        now: datetime,
        *,
        minors: frozenset[str] = frozenset(),
        double_confirmed: bool = False,
    ) -> npt.NDArray[np.bool_]:
        """(N,) bool: whose latest decision about the scope is a grant that is valid now. No record: False.

        minors: count only with a guardian's decision. double_confirmed: only grants given by that method count
        (or made up for a demonstration).
        """
        valid = {
            name
            for name, status, expires, guardian, method in self._latest(scope, now)
            if status == "granted"
            and (expires is None or _ms(now) < expires)
            and (guardian or name not in minors)
            and (not double_confirmed or method in ("double_confirmed", "made_up"))
        }
        return np.fromiter((name in valid for name in pseudonyms), dtype=np.bool_, count=len(pseudonyms))

    def withdrawn(self, scope: Scope, now: datetime) -> frozenset[str]:
        """Pseudonyms whose latest decision about the scope is no: withdrawn or denied.

        For purposes whose legal basis is not consent: these patients objected and are left out all the same.
        """
        return frozenset(name for name, status, *_ in self._latest(scope, now) if status != "granted")

    def _latest(self, scope: Scope, now: datetime) -> sqlite3.Cursor:
        return self._db.execute(_LATEST, {"scope": scope, "now": _ms(now)})

    def counts(self, scope: Scope, now: datetime) -> dict[str, int]:
        """How many patients granted (valid now), let it expire, denied or withdrew; for the hospital's own page.

        Exact: whoever shows them hides small counts.
        """
        found = {"granted": 0, "expired": 0, "denied": 0, "withdrawn": 0}
        for _, status, expires, *_rest in self._latest(scope, now):
            found["expired" if status == "granted" and expires is not None and expires <= _ms(now) else status] += 1
        return found

    def fictional(self) -> bool:
        """Whether the store holds any made-up decision: then every page that shows it says so."""
        return self._db.execute("SELECT 1 FROM consent WHERE method = 'made_up' LIMIT 1").fetchone() is not None

    def records(self, pseudonym: str | None = None) -> Iterator[ConsentRecord]:
        """Every decision, or one patient's, oldest first."""
        where = "" if pseudonym is None else "WHERE pseudonym = ?"
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM consent {where} ORDER BY at, seq",  # noqa: S608 - constants only
            () if pseudonym is None else (pseudonym,),
        )
        return (_record(row) for row in rows)

    def log_use(self, use: Use, pseudonyms: Iterable[str]) -> None:
        """Note that these patients' data were used; once a run or tag evaluation, before its result is released."""
        with self._transaction() as db:
            made = db.execute(
                "INSERT INTO use (at, scope, action, reference, ground) VALUES (?, ?, ?, ?, ?)",
                (_ms(use.at), use.scope, use.action, use.reference, use.ground),
            )
            db.executemany(
                "INSERT INTO use_patient (pseudonym, use_id) VALUES (?, ?)",
                ((name, made.lastrowid) for name in dict.fromkeys(pseudonyms)),
            )

    def report(self, pseudonym: str) -> UsageReport:
        """Everything that the store knows of one patient; empty for an unknown one."""
        rows = self._db.execute(
            "SELECT at, scope, action, reference, ground FROM use JOIN use_patient ON use.id = use_id "
            "WHERE pseudonym = ? ORDER BY at, id",
            (pseudonym,),
        )
        uses = tuple(Use(at=_time(at), scope=s, action=a, reference=r, ground=g) for at, s, a, r, g in rows)
        return UsageReport(pseudonym, tuple(self.records(pseudonym)), uses)

    def purges(self) -> tuple[Purge, ...]:
        """The log of what was purged, oldest first."""
        rows = self._db.execute("SELECT at, before, consents, uses FROM purge ORDER BY rowid")
        return tuple(Purge(_time(at), _time(before), consents, uses) for at, before, consents, uses in rows)

    def purge(self, before: datetime, *, now: datetime) -> tuple[int, int]:
        """Delete superseded decisions and uses older than the retention term; returns how many of each.

        The latest decision of a patient about a scope stays at any age, because dropping a withdrawal could
        revive nothing but dropping a grant would change who is used. What was purged is logged in the store.
        """
        old = _ms(before)
        tables = ("consent", "use_patient", "use")
        with self._transaction() as db:
            for table in tables:
                db.execute(f"DROP TRIGGER {table}_no_delete")
            consents = db.execute(
                "DELETE FROM consent WHERE at < ? AND seq NOT IN (SELECT seq FROM (SELECT seq, ROW_NUMBER() OVER "
                "(PARTITION BY scope, pseudonym ORDER BY at DESC, seq DESC) AS place FROM consent) WHERE place = 1)",
                (old,),
            ).rowcount
            db.execute("DELETE FROM use_patient WHERE use_id IN (SELECT id FROM use WHERE at < ?)", (old,))
            uses = db.execute("DELETE FROM use WHERE at < ?", (old,)).rowcount
            for table in tables:
                db.execute(_NO_DELETE.format(table))
            db.execute("INSERT INTO purge VALUES (?, ?, ?, ?)", (_ms(now), old, consents, uses))
        return consents, uses


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _time(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _record(row: tuple[Any, ...]) -> ConsentRecord:
    pseudonym, scope, status, version, sha256, method, at, expires, guardian = row
    return ConsentRecord(
        pseudonym=pseudonym,
        scope=scope,
        status=status,
        notice_version=version,
        notice_sha256=sha256,
        method=method,
        at=_time(at),
        expires=None if expires is None else _time(expires),
        guardian=guardian,
    )
