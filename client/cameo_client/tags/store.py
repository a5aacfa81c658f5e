"""The tags of one hospital: `tags.sqlite` in the node's home. Stored and waiting tags, reviews, messages, packs, log.

A blocked candidate leaves no row about the patient: keeping the inference would already be processing it. Only
counts by reason are kept for each run; `explain` recomputes the "why not" from the facts.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from cameo_client.tags import chain
from cameo_client.tags.apply import Decision, Outcome, counts
from cameo_client.tags.pack import Pack
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.reasons import CODES
from cameo_client.tags.world import Memory
from cameo_protocol.errors import ExitCode, OperatorError

VERSION = 1
_PUT = "INSERT OR REPLACE INTO tags VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS tags (
  pseudonym TEXT NOT NULL, tag TEXT NOT NULL, rule TEXT NOT NULL, rule_version INTEGER NOT NULL,
  pack TEXT NOT NULL, pack_version TEXT NOT NULL, pack_sha256 TEXT NOT NULL, purpose TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('stored', 'waiting')), reason TEXT NOT NULL, guard INTEGER NOT NULL,
  because TEXT NOT NULL, snapshot TEXT, model TEXT NOT NULL, model_version INTEGER, model_id TEXT NOT NULL,
  model_round INTEGER, since TEXT NOT NULL, decided TEXT NOT NULL, expires TEXT NOT NULL, run INTEGER NOT NULL,
  PRIMARY KEY (pseudonym, tag)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_by_tag ON tags (tag, state);
CREATE TABLE IF NOT EXISTS history (
  run INTEGER NOT NULL, at TEXT NOT NULL, pseudonym TEXT NOT NULL, tag TEXT NOT NULL,
  change TEXT NOT NULL CHECK (change IN ('added', 'removed', 'changed')), state TEXT NOT NULL,
  why TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS runs (
  run INTEGER PRIMARY KEY, at TEXT NOT NULL, snapshot TEXT, facts_schema TEXT NOT NULL, added INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  changed INTEGER NOT NULL, unchanged INTEGER NOT NULL, counts TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS packs (
  sha256 TEXT PRIMARY KEY, pack TEXT NOT NULL, version TEXT NOT NULL, body TEXT NOT NULL, approved_by TEXT NOT NULL,
  approved TEXT NOT NULL, retired TEXT) STRICT;
CREATE TABLE IF NOT EXISTS reviews (
  pseudonym TEXT NOT NULL, rule TEXT NOT NULL, rule_version INTEGER NOT NULL, person TEXT NOT NULL,
  verdict TEXT NOT NULL CHECK (verdict IN ('approved', 'rejected')), at TEXT NOT NULL, expires TEXT NOT NULL,
  PRIMARY KEY (pseudonym, rule, rule_version, person)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contacts (
  pseudonym TEXT NOT NULL, rule TEXT NOT NULL, at TEXT NOT NULL, safety INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS contacts_by_time ON contacts (at);
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
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, VERSION):
                raise _unusable(f"{path.name} has version {found}; this program reads version {VERSION}")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise _unusable(f"{path.name}: {type(error).__name__}") from None

    def close(self) -> None:
        """Close the file; the store cannot be used after."""
        self._db.close()

    def __enter__(self) -> TagStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def approve_pack(self, pack: Pack, person: str, now: datetime) -> None:
        """Put a pack's content in force, and any other content of the same pack out of force.

        The person must not be the owner of one of its rules (four eyes), else `OperatorError("self-review")`.
        """
        if any(person == rule.owner for rule in pack.rules):
            raise OperatorError("self-review", what=f"{person} owns a rule of the pack {pack.pack.id}",
                                do="have a second person approve the pack")  # fmt: skip
        sha = pack.sha256()
        with self._write() as db:
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
            "SELECT rule, pseudonym FROM tags WHERE state='stored' AND expires>?", (_utc(now),)
        ):
            held.setdefault(rule, set()).add(name)
        approvals: Counter[tuple[str, str, int]] = Counter()
        rejections: set[tuple[str, str, int]] = set()
        for name, rule, version, verdict in self._db.execute(
            "SELECT pseudonym, rule, rule_version, verdict FROM reviews WHERE expires>?", (_utc(now),)
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
            "SELECT pseudonym, count(*) FROM contacts WHERE at>=? AND safety=0 GROUP BY 1", (_utc(midnight),)
        )
        return Memory(
            held={rule: frozenset(names) for rule, names in held.items()},
            approvals=approvals,
            rejections=frozenset(rejections),
            contacted=contacted,
            contacts_today=dict(today.fetchall()),
        )

    def write(self, outcome: Outcome) -> dict[str, int]:
        """Replace the tags of the outcome's rules by what it decided, with history and one log entry.

        Returns how many were added, removed, changed (state or rule version) and unchanged. Tags of other rules
        stay unless they have expired.
        """
        now, tally = outcome.world.given.now, Counter[str]()
        with self._write() as db:
            run = db.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
            before = {(row[0], row[1]): row[2:] for row in db.execute(
                "SELECT pseudonym, tag, state, rule_version, since, rule, expires FROM tags")}  # fmt: skip
            decided, digest = set(), hashlib.sha256()
            for decision in outcome.decisions(("stored", "waiting")):
                digest.update(_line(decision))
                decided.add((decision.pseudonym, decision.rule.rule.tag.name))
                tally[self._put(db, run, decision, before, outcome)] += 1
            keys = {item.key for item in outcome.world.rules}
            for (name, tag), (state, _, _, rule, expires) in before.items():
                expired = expires <= _utc(now)
                if (name, tag) not in decided and (rule in keys or expired):
                    db.execute("DELETE FROM tags WHERE pseudonym=? AND tag=?", (name, tag))
                    why = _why_gone(outcome, name, rule) if rule in keys else "expired"
                    db.execute("INSERT INTO history VALUES (?,?,?,?,?,?,?)",
                               (run, _utc(now), name, tag, "removed", state, why))  # fmt: skip
                    tally["removed"] += 1
            result = {key: tally[key] for key in ("added", "removed", "changed", "unchanged")}
            self._close_run(db, run, outcome, result, digest.hexdigest())
        return result

    def _put(self, db: sqlite3.Connection, run: int, decision: Decision,
             before: Mapping[tuple[str, str], tuple[object, ...]], outcome: Outcome) -> str:  # fmt: skip
        rule, now = decision.rule, decision.decided
        key = (decision.pseudonym, rule.rule.tag.name)
        old = before.get(key)
        change = (
            "added" if old is None else "unchanged" if old[:2] == (decision.state, rule.rule.version) else "changed"
        )
        since = str(old[2]) if old is not None and old[0] == decision.state else _utc(now)
        db.execute(_PUT, _row(decision, since, run, outcome))
        if change != "unchanged":
            db.execute("INSERT INTO history VALUES (?,?,?,?,?,?,?)",
                       (run, _utc(now), *key, change, decision.state, decision.reason))  # fmt: skip
        if decision.contact == "due":
            safety = int(rule.rule.contact == "safety")
            db.execute("INSERT INTO contacts VALUES (?,?,?,?)", (decision.pseudonym, rule.key, _utc(now), safety))
        return change

    def _close_run(
        self, db: sqlite3.Connection, run: int, outcome: Outcome, result: Mapping[str, int], digest: str
    ) -> None:
        given = outcome.world.given
        snapshot = given.snapshot.isoformat() if given.snapshot else None
        tallies = json.dumps([tally.as_dict() for tally in counts(outcome)])
        db.execute(
            "INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?,?)",
            (run, _utc(given.now), snapshot, outcome.world.schema.id, result["added"], result["removed"],
             result["changed"], result["unchanged"], tallies, digest),
        )  # fmt: skip
        packs = sorted({item.pack_sha256 for item in outcome.world.rules})
        body = {"run": run, "snapshot": snapshot, "packs": packs, "decisions_sha256": digest, **result}
        chain.append(db, "applied", body, given.now)

    def review(self, pseudonym: str, tag: str, person: str, verdict: str, now: datetime) -> None:
        """Record one person's verdict ("approved" or "rejected") on a waiting tag; it counts from the next apply.

        Unknown tag: `OperatorError("tag-not-waiting")`. The rule's owner may not approve: "self-review".
        """
        row = self._db.execute(
            "SELECT rule, rule_version, pack_sha256, expires FROM tags WHERE pseudonym=? AND tag=? AND state='waiting'",
            (pseudonym, tag),
        ).fetchone()
        if row is None:
            raise OperatorError("tag-not-waiting", what="no such tag waits for review", do="run: cameo-node tags queue")
        rule_key, version, sha, expires = row
        if self._owner(sha, rule_key) == person:
            raise OperatorError("self-review", what=f"{person} owns the rule", do="have somebody else review it")
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO reviews VALUES (?,?,?,?,?,?,?)",
                       (pseudonym, rule_key, version, person, verdict, _utc(now), expires))  # fmt: skip
            if verdict == "rejected":
                db.execute("DELETE FROM tags WHERE pseudonym=? AND tag=?", (pseudonym, tag))
                db.execute("INSERT INTO history SELECT coalesce(max(run), 0), ?, ?, ?, 'removed', 'waiting',"
                           " 'review-rejected' FROM runs", (_utc(now), pseudonym, tag))  # fmt: skip
            body = {"pseudonym": pseudonym, "tag": tag, "rule_version": version, "person": person, "verdict": verdict}
            chain.append(db, "reviewed", body, now)

    def _owner(self, pack_sha256: str, rule_key: str) -> str:
        row = self._db.execute("SELECT body FROM packs WHERE sha256=?", (pack_sha256,)).fetchone()
        rule = Pack.model_validate_json(row[0]).rule(rule_key.split("/", 1)[1]) if row else None
        return rule.owner if rule else ""

    def approvals(self, pseudonym: str, rule: str, version: int) -> int:
        """How many people have approved this tag of this rule version so far."""
        query = "SELECT count(*) FROM reviews WHERE pseudonym=? AND rule=? AND rule_version=? AND verdict='approved'"
        return int(self._db.execute(query, (pseudonym, rule, version)).fetchone()[0])

    def tags(self, *, pseudonym: str | None = None, state: str | None = None) -> list[StoredTag]:
        """Stored and waiting tags, of one patient or in one state if asked, in order of pseudonym and tag."""
        query = "SELECT * FROM tags WHERE (?1 IS NULL OR pseudonym=?1) AND (?2 IS NULL OR state=?2) ORDER BY 1, 2"
        names = list(StoredTag.__dataclass_fields__)
        found = []
        for row in self._db.execute(query, (pseudonym, state)):
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

    def purge(self, now: datetime) -> int:
        """Delete tags past their expiry, and reviews and messages that no longer matter; how many tags went."""
        with self._write() as db:
            gone = db.execute("DELETE FROM tags WHERE expires<=?", (_utc(now),)).rowcount
            db.execute("DELETE FROM reviews WHERE expires<=?", (_utc(now),))
            db.execute("DELETE FROM contacts WHERE at<?", (_utc(now - timedelta(days=3660)),))
            chain.append(db, "purged", {"tags": gone}, now)
        return int(gone)


def _row(decision: Decision, since: str, run: int, outcome: Outcome) -> tuple[object, ...]:
    rule, given = decision.rule, outcome.world.given
    model = next((item for item in given.models if item.name in rule.models), None)
    return (
        decision.pseudonym, rule.rule.tag.name, rule.key, rule.rule.version, rule.pack_id, rule.pack_version,
        rule.pack_sha256, rule.rule.purpose, decision.state, decision.reason,
        9 if decision.state == "waiting" else 0, json.dumps(decision.because),
        given.snapshot.isoformat() if given.snapshot else None,
        model.name if model else "", model.version if model else None, model.model_id if model else "",
        model.round if model else None, since, _utc(decision.decided), _utc(decision.expires), run,
    )  # fmt: skip


def _why_gone(outcome: Outcome, pseudonym: str, key: str) -> str:
    """Why a tag went away: the guard's reason, or that the rule no longer proposes it."""
    row = outcome.row(pseudonym)
    if row is None:
        return "patient-not-in-facts"
    code = CODES[int(outcome.codes[key][row])]
    if outcome.candidates[key][row]:
        return code
    return "unknown" if outcome.world.unknown[key][row] else "not-proposed"


def _line(decision: Decision) -> bytes:
    parts = (decision.pseudonym, decision.rule.key, str(decision.rule.rule.version), decision.state, decision.reason)
    return "\0".join(parts).encode() + b"\n"


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _unusable(what: str) -> OperatorError:
    return OperatorError("tag-store-unusable", what=what, do="restore tags.sqlite from a backup", exit=ExitCode.DATA)
