"""The tags of one hospital: `tags.sqlite` in the node's home. Stored and waiting tags, reviews, messages, packs, log.

A blocked candidate leaves no row about the patient: keeping the inference would already be processing it. Only
counts by reason are kept for each run; `explain` recomputes the "why not" from the facts.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from cameo_client.tags import chain
from cameo_client.tags.pack import Pack, Rule
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.world import Memory
from cameo_protocol.errors import ExitCode, OperatorError

VERSION = 1
_SCHEMA = (
    """
CREATE TABLE tags (
  pseudonym TEXT NOT NULL, tag TEXT NOT NULL, rule TEXT NOT NULL, rule_version INTEGER NOT NULL,
  pack TEXT NOT NULL, pack_version TEXT NOT NULL, pack_sha256 TEXT NOT NULL, purpose TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('stored', 'waiting')), reason TEXT NOT NULL, guard INTEGER NOT NULL,
  because TEXT NOT NULL, snapshot TEXT, model TEXT NOT NULL, model_version INTEGER, model_id TEXT NOT NULL,
  model_round INTEGER, since TEXT NOT NULL, decided TEXT NOT NULL, expires TEXT NOT NULL, run INTEGER NOT NULL,
  PRIMARY KEY (pseudonym, tag)) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_tag ON tags (tag, state);
CREATE TABLE history (
  run INTEGER NOT NULL, at TEXT NOT NULL, pseudonym TEXT NOT NULL, tag TEXT NOT NULL,
  change TEXT NOT NULL CHECK (change IN ('added', 'removed', 'changed')), state TEXT NOT NULL,
  why TEXT NOT NULL) STRICT;
CREATE TABLE runs (
  run INTEGER PRIMARY KEY, at TEXT NOT NULL, snapshot TEXT, facts_schema TEXT NOT NULL, added INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  changed INTEGER NOT NULL, unchanged INTEGER NOT NULL, counts TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE packs (
  sha256 TEXT PRIMARY KEY, pack TEXT NOT NULL, version TEXT NOT NULL, body TEXT NOT NULL, approved_by TEXT NOT NULL,
  approved TEXT NOT NULL, retired TEXT) STRICT;
CREATE TABLE reviews (
  pseudonym TEXT NOT NULL, rule TEXT NOT NULL, rule_version INTEGER NOT NULL, person TEXT NOT NULL,
  verdict TEXT NOT NULL CHECK (verdict IN ('approved', 'rejected')), at TEXT NOT NULL, expires TEXT NOT NULL,
  PRIMARY KEY (pseudonym, rule, rule_version, person)) STRICT, WITHOUT ROWID;
CREATE TABLE contacts (
  pseudonym TEXT NOT NULL, rule TEXT NOT NULL, at TEXT NOT NULL, safety INTEGER NOT NULL) STRICT;
CREATE INDEX contacts_by_time ON contacts (at);
CREATE INDEX contacts_by_patient ON contacts (pseudonym, rule, at);
CREATE INDEX history_by_patient ON history (pseudonym);
CREATE TABLE exports (
  at TEXT NOT NULL, person TEXT NOT NULL, kind TEXT NOT NULL, rows INTEGER NOT NULL, sha256 TEXT NOT NULL) STRICT;
"""
    + chain.SCHEMA
)


@dataclass(frozen=True, kw_only=True)
class StoredTag:
    """One row of `tags`: a stored or waiting tag with everything that led to it."""

    pseudonym: str
    tag: str
    rule: str
    rule_version: int
    pack: str
    pack_version: str
    pack_sha256: str
    purpose: str
    state: str
    reason: str
    guard: int
    because: tuple[str, ...]
    snapshot: str | None
    model: str
    model_version: int | None
    model_id: str
    model_round: int | None
    since: str
    decided: str
    expires: str
    run: int


class TagStore:
    """The store. Every write is one transaction with its log entry. Times come in as timezone-aware arguments."""

    def __init__(self, path: Path) -> None:
        """Open or create the file (mode 0600). A damaged or newer file: `OperatorError`."""
        try:
            path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            empty = self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
            if found == 0 and empty:
                self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version={VERSION};COMMIT;")
            elif found != VERSION or self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError
        except (OSError, sqlite3.Error) as error:
            raise OperatorError(
                "tag-store-unusable",
                what=f"{path.name} is no sound tag store ({type(error).__name__})",
                do="restore it from a backup",
                exit=ExitCode.DATA,
            ) from None

    def close(self) -> None:
        """Close the file; the store cannot be used after."""
        self._db.close()

    def __enter__(self) -> TagStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
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
                    "tag-store-write",
                    what=f"tags.sqlite could not be written ({type(error).__name__}); nothing was changed",
                    do="check disk space and that no other process writes it, then repeat the command",
                    exit=ExitCode.DATA,
                ) from None
            raise

    def approve_pack(self, pack: Pack, person: str, now: datetime) -> None:
        """Put a pack's content in force, and any other content of the same pack out of force.

        The person must not be the owner of one of its rules (four eyes), else `OperatorError("self-review")`.
        """
        if any(_same(person, rule.owner) for rule in pack.rules):
            raise OperatorError("self-review", what=f"{person} owns a rule of the pack {pack.pack.id}",
                                do="have a second person approve the pack")  # fmt: skip
        sha = pack.sha256()
        with self.transaction() as db:
            db.execute("UPDATE packs SET retired=? WHERE pack=? AND retired IS NULL AND sha256<>?",
                       (now.isoformat(), pack.pack.id, sha))  # fmt: skip
            db.execute(
                "INSERT INTO packs VALUES (?,?,?,?,?,?,NULL) ON CONFLICT(sha256) DO UPDATE SET retired=NULL,"
                " approved_by=excluded.approved_by, approved=excluded.approved",
                (sha, pack.pack.id, pack.pack.version, pack.model_dump_json(by_alias=True), person, now.isoformat()),
            )
            body = {"pack": pack.pack.id, "version": pack.pack.version, "sha256": sha, "person": person}
            chain.append(db, "pack-approved", body, now)

    def approved_packs(self) -> frozenset[str]:
        """Content hashes of the packs in force."""
        return frozenset(row[0] for row in self._db.execute("SELECT sha256 FROM packs WHERE retired IS NULL"))

    def pack_in_force(self, pack_id: str) -> Pack | None:
        """The approved content of a pack, or None."""
        row = self._db.execute("SELECT body FROM packs WHERE pack=? AND retired IS NULL", (pack_id,)).fetchone()
        return Pack.model_validate_json(row[0]) if row else None

    def memory(self, policy: TagPolicy, now: datetime) -> Memory:
        """What an evaluation at `now` must know from before."""
        held: dict[str, set[str]] = {}
        for rule, name in self._db.execute(
            "SELECT rule, pseudonym FROM tags WHERE state='stored' AND expires>?", (utc_text(now),)
        ):
            held.setdefault(rule, set()).add(name)
        approvals: Counter[tuple[str, str, int]] = Counter()
        rejections: set[tuple[str, str, int]] = set()
        for name, rule, version, verdict in self._db.execute(
            "SELECT pseudonym, rule, rule_version, verdict FROM reviews WHERE expires>?", (utc_text(now),)
        ):
            if verdict == "approved":
                approvals[name, rule, version] += 1
            else:
                rejections.add((name, rule, version))
        midnight = now.astimezone(ZoneInfo(policy.quiet.zone)).replace(hour=0, minute=0, second=0, microsecond=0)
        contacted = {
            (name, rule): datetime.fromisoformat(at)
            for name, rule, at in self._db.execute("SELECT pseudonym, rule, max(at) FROM contacts GROUP BY 1, 2")
        }
        today = self._db.execute(
            "SELECT pseudonym, count(*) FROM contacts WHERE at>=? AND safety=0 GROUP BY 1", (utc_text(midnight),)
        )
        return Memory(
            held={rule: frozenset(names) for rule, names in held.items()},
            approvals=approvals,
            rejections=frozenset(rejections),
            contacted=contacted,
            contacts_today=dict(today.fetchall()),
        )

    def review(self, pseudonym: str, tag: str, person: str, verdict: str, now: datetime) -> None:
        """Record one person's verdict ("approved" or "rejected") on a waiting tag; it counts from the next apply.

        Unknown tag: `OperatorError("tag-not-waiting")`. The rule's owner may not approve: "self-review".
        """
        row = self._db.execute(
            "SELECT rule, rule_version, pack_sha256, expires FROM tags"
            " WHERE pseudonym=? AND tag=? AND state='waiting' AND expires>?",
            (pseudonym, tag, utc_text(now)),
        ).fetchone()
        if row is None:
            raise OperatorError("tag-not-waiting", what="no such tag waits for review", do="run: cameo-node tags queue")
        rule_key, version, sha, expires = row
        if _same(self._owner(sha, rule_key), person):
            raise OperatorError("self-review", what=f"{person} owns the rule", do="have somebody else review it")
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO reviews VALUES (?,?,?,?,?,?,?)",
                       (pseudonym, rule_key, version, person, verdict, utc_text(now), expires))  # fmt: skip
            if verdict == "rejected":
                db.execute("DELETE FROM tags WHERE pseudonym=? AND tag=?", (pseudonym, tag))
                add_history(db, now, pseudonym, tag, "removed", "waiting", "review-rejected")
            body = {"pseudonym": pseudonym, "tag": tag, "rule_version": version, "person": person, "verdict": verdict}
            chain.append(db, "reviewed", body, now)

    def _owner(self, pack_sha256: str, rule_key: str) -> str:
        rule = self.rule(pack_sha256, rule_key)
        return rule.owner if rule else ""

    def rule(self, pack_sha256: str, rule_key: str) -> Rule | None:
        """A rule of an approved pack, in force or not, as it was when a tag was decided."""
        row = self._db.execute("SELECT body FROM packs WHERE sha256=?", (pack_sha256,)).fetchone()
        return Pack.model_validate_json(row[0]).rule(rule_key.split("/", 1)[1]) if row else None

    def remove(self, rows: Iterable[tuple[str, str]], why: str, now: datetime) -> int:
        """Delete (pseudonym, tag) rows at once, with history and a log entry; how many there were."""
        gone = 0
        with self.transaction() as db:
            for name, tag in rows:
                found = db.execute(
                    "DELETE FROM tags WHERE pseudonym=? AND tag=? RETURNING state", (name, tag)
                ).fetchall()
                for (state,) in found:
                    add_history(db, now, name, tag, "removed", state, why)
                gone += len(found)
            chain.append(db, "removed", {"why": why, "tags": gone}, now)
        return gone

    def approvals(self, pseudonym: str, rule: str, version: int) -> int:
        """How many people have approved this tag of this rule version so far."""
        query = "SELECT count(*) FROM reviews WHERE pseudonym=? AND rule=? AND rule_version=? AND verdict='approved'"
        return int(self._db.execute(query, (pseudonym, rule, version)).fetchone()[0])

    def tags(self, now: datetime, *, pseudonym: str | None = None, state: str | None = None) -> list[StoredTag]:
        """Stored and waiting tags not yet expired, of one patient or in one state if asked, by pseudonym and tag."""
        query = (
            "SELECT * FROM tags WHERE expires>?3 AND (?1 IS NULL OR pseudonym=?1) AND (?2 IS NULL OR state=?2)"
            " ORDER BY 1, 2"
        )
        names = list(StoredTag.__dataclass_fields__)
        found = []
        for row in self._db.execute(query, (pseudonym, state, utc_text(now))):
            values = dict(zip(names, row, strict=True))
            found.append(StoredTag(**{**values, "because": tuple(json.loads(values["because"]))}))
        return found

    def history(self, pseudonym: str) -> list[dict[str, object]]:
        """A patient's changes, oldest first."""
        names = ("run", "at", "tag", "change", "state", "why")
        rows = self._db.execute(
            "SELECT run, at, tag, change, state, why FROM history WHERE pseudonym=? ORDER BY run, tag", (pseudonym,)
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def last_run(self) -> dict[str, object] | None:
        """Summary of the last apply, or None: run, at, snapshot, one tally a tag, digest."""
        row = self._db.execute("SELECT run, at, snapshot, counts, digest FROM runs ORDER BY run DESC").fetchone()
        if row is None:
            return None
        run, at, snapshot, tallies, digest = row
        return {"run": run, "at": at, "snapshot": snapshot, "counts": json.loads(tallies),
                "digest": digest}  # fmt: skip

    def verify(self) -> tuple[int, str]:
        """Check the hash chain: (entries, head)."""
        return chain.verify(self._db)

    def head(self) -> tuple[int, str]:
        """(entries, hash of the last), to be countersigned elsewhere."""
        return chain.head(self._db)

    def purge(self, now: datetime, before: datetime) -> int:
        """Delete expired tags and reviews, and history, runs and messages older than the retention term.

        Returns how many tags went. The log stays: it names no patient but in reviews.
        """
        with self.transaction() as db:
            gone = db.execute("DELETE FROM tags WHERE expires<=?", (utc_text(now),)).rowcount
            db.execute("DELETE FROM reviews WHERE expires<=?", (utc_text(now),))
            for query in ("DELETE FROM history WHERE at<?", "DELETE FROM contacts WHERE at<?",
                          "DELETE FROM exports WHERE at<?"):  # fmt: skip
                db.execute(query, (utc_text(before),))
            chain.append(db, "purged", {"tags": gone, "before": utc_text(before)}, now)
        return int(gone)

    def exported(self, now: datetime) -> int:
        """Rows exported in the 24 hours before `now`."""
        since = utc_text(now - timedelta(days=1))
        return int(self._db.execute("SELECT coalesce(sum(rows), 0) FROM exports WHERE at>?", (since,)).fetchone()[0])

    def log_export(self, person: str, kind: str, rows: int, sha256: str, now: datetime) -> None:
        """Record who took how many rows out, before they are handed over."""
        with self.transaction() as db:
            db.execute("INSERT INTO exports VALUES (?,?,?,?,?)", (utc_text(now), person, kind, rows, sha256))
            chain.append(db, "exported", {"person": person, "kind": kind, "rows": rows, "sha256": sha256}, now)


def add_history(
    db: sqlite3.Connection, now: datetime, pseudonym: str, tag: str, change: str, state: str, why: str
) -> None:
    """One change of one patient's tag, under the run there is last."""
    query = "INSERT INTO history SELECT coalesce(max(run), 0), ?, ?, ?, ?, ?, ? FROM runs"
    db.execute(query, (utc_text(now), pseudonym, tag, change, state, why))


def _same(one: str, other: str) -> bool:
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


def utc_text(at: datetime) -> str:
    """A time as the store writes it: UTC, of fixed width, so that text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
