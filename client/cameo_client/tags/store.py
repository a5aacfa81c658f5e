"""The tags of one hospital: `tags.sqlite` in the node's home. Stored and waiting tags, reviews, messages, packs, log.

A blocked candidate leaves no row about the patient: keeping the inference would already be processing it. Only
counts by reason are kept for each run; `explain` recomputes the "why not" from the facts. What names a patient, a tag,
a reason or a person is encrypted with a key that lies apart (cipher.py, rows.py).
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cameo_client.tags import chain
from cameo_client.tags.cipher import KEYS, Cipher
from cameo_client.tags.pack import Pack, Rule
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.rows import SCHEMA, VERSION, StoredTag, same, tag_of, utc_text, values_of
from cameo_client.tags.world import Memory
from cameo_client.vault import Vault
from cameo_protocol.errors import ExitCode, OperatorError

__all__ = ["StoredTag", "TagStore", "same", "utc_text"]


class TagStore:
    """The store. Every write is one transaction with its log entry. Times come in as timezone-aware arguments."""

    def __init__(self, path: Path, vault: Vault | None = None) -> None:
        """Open or create the file (mode 0600). A damaged or newer file, or another key: `OperatorError`.

        vault: None takes that of the home in which the file lies.
        """
        vault = vault or Vault.open(path.absolute().parent)
        try:
            path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            if self._version() == 0:
                self._create(path.name, vault)
            if self._version() != VERSION or self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError
            self.cipher = Cipher(self._keys(path.name, vault))
        except (OSError, sqlite3.Error) as error:
            raise OperatorError(
                "tag-store-unusable",
                what=f"{path.name} is no sound tag store of this version ({type(error).__name__})",
                do="restore it from a backup; or move it away, approve the packs and apply them again",
                exit=ExitCode.DATA,
            ) from None

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _create(self, name: str, vault: Vault) -> None:
        """Tables and keys, unless another process has just made them."""
        self._db.execute("BEGIN IMMEDIATE")
        if self._version() == 0 and self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES ('keys', ?)", (vault.seal(name, os.urandom(KEYS)),))
            self._db.execute(f"PRAGMA user_version={VERSION}")
        self._db.execute("COMMIT")

    def _keys(self, name: str, vault: Vault) -> bytes:
        """The store's own keys; wrapped again at once where the vault has a new key-encryption key."""
        (sealed,) = self._db.execute("SELECT value FROM meta WHERE name='keys'").fetchone()
        if vault.stale(sealed):
            sealed = vault.rewrap(name, sealed)
            self._db.execute("UPDATE meta SET value=? WHERE name='keys'", (sealed,))
        return vault.unseal(name, sealed)

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

    def log(self, db: sqlite3.Connection, kind: str, body: Mapping[str, object], at: datetime) -> None:
        """One entry of the hash chain, inside the caller's transaction."""
        chain.append(db, kind, self.cipher.seal(b"log" + kind.encode(), dict(body)), at)

    def note(self, kind: str, body: Mapping[str, object], at: datetime) -> None:
        """One entry of the hash chain by itself."""
        with self.transaction() as db:
            self.log(db, kind, body, at)

    def entries(self) -> list[dict[str, Any]]:
        """The log, oldest first: seq, at, kind, body."""
        rows = self._db.execute("SELECT seq, at, kind, body FROM log ORDER BY seq")
        return [{"seq": seq, "at": at, "kind": kind, "body": self.cipher.unseal(b"log" + kind.encode(), body)}
                for seq, at, kind, body in rows]  # fmt: skip

    def approve_pack(self, pack: Pack, person: str, now: datetime, owns: Sequence[str] = ()) -> None:
        """Put a pack's content in force, and any other content of the same pack out of force.

        The person must not be, or stand for (owns), the owner of one of its rules: else `OperatorError("self-review")`.
        """
        if any(same(one, rule.owner) for rule in pack.rules for one in (person, *owns)):
            raise OperatorError("self-review", what=f"{person} owns a rule of the pack {pack.pack.id}",
                                do="have a second person approve the pack")  # fmt: skip
        sha = pack.sha256()
        content = {"pack": pack.model_dump_json(by_alias=True), "approved_by": person, "approved": now.isoformat()}
        with self.transaction() as db:
            db.execute("UPDATE packs SET retired=? WHERE pack=? AND retired IS NULL AND sha256<>?",
                       (now.isoformat(), pack.pack.id, sha))  # fmt: skip
            sealed = self.cipher.seal(b"packs" + sha.encode(), content)
            db.execute(
                "INSERT OR REPLACE INTO packs VALUES (?,?,?,NULL,?)", (sha, pack.pack.id, pack.pack.version, sealed)
            )
            body = {"pack": pack.pack.id, "version": pack.pack.version, "sha256": sha, "person": person}
            self.log(db, "pack-approved", body, now)

    def approved_packs(self) -> frozenset[str]:
        """Content hashes of the packs in force."""
        return frozenset(row[0] for row in self._db.execute("SELECT sha256 FROM packs WHERE retired IS NULL"))

    def approved_at(self) -> dict[str, datetime]:
        """When each pack in force was approved last, by its content hash."""
        rows = self._db.execute("SELECT sha256, body FROM packs WHERE retired IS NULL")
        opened = {sha: self.cipher.unseal(b"packs" + sha.encode(), body) for sha, body in rows}
        return {sha: datetime.fromisoformat(content["approved"]) for sha, content in opened.items()}

    def pack_in_force(self, pack_id: str) -> Pack | None:
        """The approved content of a pack, or None."""
        row = self._db.execute("SELECT sha256 FROM packs WHERE pack=? AND retired IS NULL", (pack_id,)).fetchone()
        return self._pack(row[0]) if row else None

    def rule(self, pack_sha256: str, rule_key: str) -> Rule | None:
        """A rule of an approved pack, in force or not, as it was when a tag was decided."""
        pack = self._pack(pack_sha256)
        return pack.rule(rule_key.split("/", 1)[1]) if pack else None

    def _pack(self, sha: str) -> Pack | None:
        row = self._db.execute("SELECT body FROM packs WHERE sha256=?", (sha,)).fetchone()
        if row is None:
            return None
        return Pack.model_validate_json(self.cipher.unseal(b"packs" + sha.encode(), row[0])["pack"])

    def memory(self, policy: TagPolicy, now: datetime) -> Memory:
        """What an evaluation at `now` must know from before."""
        held: dict[str, set[str]] = {}
        for row in self.tags(now, state="stored"):
            held.setdefault(row.rule, set()).add(row.pseudonym)
        approvals: Counter[tuple[str, str, int]] = Counter()
        rejections: set[tuple[str, str, int]] = set()
        rows = self._db.execute("SELECT who, slot, body FROM reviews WHERE expires>?", (utc_text(now),))
        for one in self._reviews(rows):
            case = (one["pseudonym"], one["rule"], one["rule_version"])
            if one["verdict"] == "approved":
                approvals[case] += 1
            else:
                rejections.add(case)
        # SQLite: beside max(at), the other columns come from the row that holds the greatest `at`.
        latest = self._db.execute("SELECT who, what, max(at), body FROM contacts GROUP BY who, what").fetchall()
        last = [(self.cipher.unseal(b"contacts" + who + what, body), at) for who, what, at, body in latest]
        return Memory(
            held={rule: frozenset(names) for rule, names in held.items()},
            approvals=approvals,
            rejections=frozenset(rejections),
            contacted={(one["pseudonym"], one["rule"]): datetime.fromisoformat(at) for one, at in last},
            contacts_today=self._today(policy, now),
        )

    def _today(self, policy: TagPolicy, now: datetime) -> dict[str, int]:
        midnight = now.astimezone(ZoneInfo(policy.quiet.zone)).replace(hour=0, minute=0, second=0, microsecond=0)
        found: Counter[str] = Counter()
        query = "SELECT who, what, body, count(*) FROM contacts WHERE at>=? AND safety=0 GROUP BY who, what"
        for who, what, body, number in self._db.execute(query, (utc_text(midnight),)):
            found[self.cipher.unseal(b"contacts" + who + what, body)["pseudonym"]] += number
        return dict(found)

    def note_contact(self, db: sqlite3.Connection, pseudonym: str, rule: str, safety: bool, now: datetime) -> None:
        """One message that is due now, inside the caller's transaction."""
        who, what = self.cipher.index("who", pseudonym), self.cipher.index("rule", rule)
        body = self.cipher.seal(b"contacts" + who + what, {"pseudonym": pseudonym, "rule": rule})
        db.execute("INSERT INTO contacts VALUES (?,?,?,?,?)", (who, what, utc_text(now), int(safety), body))

    def review(
        self, pseudonym: str, tag: str, person: str, verdict: str, now: datetime, owns: Sequence[str] = ()
    ) -> None:
        """Record one person's verdict ("approved" or "rejected") on a waiting tag; it counts from the next apply.

        Unknown tag: `OperatorError("tag-not-waiting")`. The rule's owner, and who stands for it (owns), may not
        decide: "self-review".
        """
        found = [row for row in self.tags(now, pseudonym=pseudonym, state="waiting") if row.tag == tag]
        if not found:
            raise OperatorError(
                "tag-not-waiting", what="no such tag waits for review", do="run: cameo-node tags queue --as NAME"
            )
        (row,) = found
        rule = self.rule(row.pack_sha256, row.rule)
        if rule and any(same(rule.owner, one) for one in (person, *owns)):
            raise OperatorError("self-review", what=f"{person} owns the rule", do="have somebody else review it")
        content = {"pseudonym": pseudonym, "rule": row.rule, "rule_version": row.rule_version, "person": person,
                   "verdict": verdict, "at": utc_text(now)}  # fmt: skip
        who = self.cipher.index("who", pseudonym)
        slot = self.cipher.index("review", row.rule, str(row.rule_version), " ".join(person.casefold().split()))
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO reviews VALUES (?,?,?,?)",
                       (who, slot, row.expires, self.cipher.seal(b"reviews" + who + slot, content)))  # fmt: skip
            if verdict == "rejected":
                self.drop(db, pseudonym, tag)
                self.add_history(db, now, pseudonym, tag, "removed", "waiting", "review-rejected")
            body = {"pseudonym": pseudonym, "tag": tag, "rule_version": row.rule_version, "person": person}
            self.log(db, "reviewed", {**body, "verdict": verdict}, now)

    def _reviews(self, rows: Iterable[tuple[bytes, bytes, bytes]]) -> Iterator[dict[str, Any]]:
        for who, slot, body in rows:
            yield self.cipher.unseal(b"reviews" + who + slot, body)

    def approvals(self, pseudonym: str, rule: str, version: int) -> int:
        """How many people have approved this tag of this rule version so far."""
        who = self.cipher.index("who", pseudonym)
        rows = self._reviews(self._db.execute("SELECT who, slot, body FROM reviews WHERE who=?", (who,)))
        wanted = (rule, version, "approved")
        return sum((one["rule"], one["rule_version"], one["verdict"]) == wanted for one in rows)

    def put(self, db: sqlite3.Connection, tag: StoredTag) -> None:
        """Write one tag, or replace it, inside the caller's transaction."""
        who, what = self.cipher.index("who", tag.pseudonym), self.cipher.index("tag", tag.tag)
        place = b"tags" + who + what + tag.state.encode() + tag.expires.encode()
        body = self.cipher.seal(place, values_of(tag))
        db.execute("INSERT OR REPLACE INTO tags VALUES (?,?,?,?,?)", (who, what, tag.state, tag.expires, body))

    def drop(self, db: sqlite3.Connection, pseudonym: str, tag: str) -> str | None:
        """Delete one tag inside the caller's transaction: its state, or None when there was none."""
        place = (self.cipher.index("who", pseudonym), self.cipher.index("tag", tag))
        rows = db.execute("DELETE FROM tags WHERE who=? AND what=? RETURNING state", place).fetchall()
        return str(rows[0][0]) if rows else None

    def remove(self, rows: Iterable[tuple[str, str]], why: str, now: datetime) -> int:
        """Delete (pseudonym, tag) rows at once, with history and a log entry; how many there were."""
        gone = 0
        with self.transaction() as db:
            for name, tag in rows:
                state = self.drop(db, name, tag)
                if state is not None:
                    self.add_history(db, now, name, tag, "removed", state, why)
                    gone += 1
            if gone:
                self.log(db, "removed", {"why": why, "tags": gone}, now)
        return gone

    def tags(self, now: datetime, *, pseudonym: str | None = None, state: str | None = None) -> list[StoredTag]:
        """Stored and waiting tags not yet expired, of one patient or in one state if asked, by pseudonym and tag."""
        return self.every(utc_text(now), pseudonym=pseudonym, state=state)

    def every(self, after: str = "", *, pseudonym: str | None = None, state: str | None = None) -> list[StoredTag]:
        """The same with those that have expired, where `after` is ""."""
        query = (
            "SELECT who, what, state, expires, body FROM tags"
            " WHERE expires>?1 AND (?2 IS NULL OR who=?2) AND (?3 IS NULL OR state=?3)"
        )
        who = None if pseudonym is None else self.cipher.index("who", pseudonym)
        found = []
        for row in self._db.execute(query, (after, who, state)):
            place = b"tags" + row[0] + row[1] + row[2].encode() + row[3].encode()
            found.append(tag_of(self.cipher.unseal(place, row[4])))
        return sorted(found, key=lambda tag: (tag.pseudonym, tag.tag))

    def add_history(
        self, db: sqlite3.Connection, now: datetime, pseudonym: str, tag: str, change: str, state: str, why: str
    ) -> None:
        """One change of one patient's tag, under the run there is last, inside the caller's transaction."""
        who = self.cipher.index("who", pseudonym)
        body = self.cipher.seal(b"history" + who, {"tag": tag, "change": change, "state": state, "why": why})
        query = "INSERT INTO history SELECT coalesce(max(run), 0), ?, ?, ? FROM runs"
        db.execute(query, (utc_text(now), who, body))

    def history(self, pseudonym: str) -> list[dict[str, Any]]:
        """A patient's changes, oldest first: run, at, tag, change, state, why."""
        who = self.cipher.index("who", pseudonym)
        rows = self._db.execute("SELECT run, at, body FROM history WHERE who=? ORDER BY run, rowid", (who,))
        found = [{"run": run, "at": at, **self.cipher.unseal(b"history" + who, body)} for run, at, body in rows]
        return sorted(found, key=lambda row: (row["run"], row["tag"]))

    def close_run(self, db: sqlite3.Connection, run: int, now: datetime, body: Mapping[str, object]) -> None:
        """The summary of one apply, inside the caller's transaction."""
        sealed = self.cipher.seal(b"runs" + str(run).encode(), dict(body))
        db.execute("INSERT OR REPLACE INTO runs VALUES (?,?,?)", (run, utc_text(now), sealed))

    def last_run(self) -> dict[str, Any] | None:
        """Summary of the last apply to all patients, or None: run, at, snapshot, one tally a tag, digest."""
        for run, at, body in self._db.execute("SELECT run, at, body FROM runs ORDER BY run DESC"):
            found = self.cipher.unseal(b"runs" + str(run).encode(), body)
            if not found.get("partial"):
                return {"run": run, "at": at, **found}
        return None

    def spreads(self) -> dict[str, list[int]]:
        """model id -> how its scores were spread over the patients when it was first applied here."""
        row = self._db.execute("SELECT value FROM meta WHERE name='spreads'").fetchone()
        return dict(self.cipher.unseal(b"meta spreads", row[0])) if row else {}

    def keep_spreads(self, spreads: Mapping[str, Sequence[int]]) -> None:
        """Keep the spreads of these models: the first one there was of each; those of other models go."""
        known = self.spreads()
        wanted = {name: known.get(name, list(counts)) for name, counts in spreads.items()}
        if wanted != known:
            with self.transaction() as db:
                sealed = self.cipher.seal(b"meta spreads", wanted)
                db.execute("INSERT OR REPLACE INTO meta VALUES ('spreads', ?)", (sealed,))

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
                          "DELETE FROM exports WHERE at<?", "DELETE FROM access WHERE at<?"):  # fmt: skip
                db.execute(query, (utc_text(before),))
            self.log(db, "purged", {"tags": gone, "before": utc_text(before)}, now)
        return int(gone)

    def exported(self, now: datetime, person: str | None = None) -> int:
        """Rows exported in the 24 hours before `now`, by everybody or by one person."""
        query = "SELECT coalesce(sum(rows), 0) FROM exports WHERE at>?1 AND (?2 IS NULL OR person=?2)"
        who = None if person is None else self._person(person)
        return int(self._db.execute(query, (utc_text(now - timedelta(days=1)), who)).fetchone()[0])

    def log_export(self, person: str, kind: str, rows: Sequence[StoredTag], sha256: str, now: datetime) -> None:
        """Record who took which rows out, before they are handed over: one entry a row, and one in the chain."""
        with self.transaction() as db:
            db.execute("INSERT INTO exports VALUES (?,?,?,?,?)",
                       (utc_text(now), self._person(person), kind, len(rows), sha256))  # fmt: skip
            for row in rows:
                self._note_access(db, person, f"exported as {kind}", row.pseudonym, row.tag, now)
            self.log(db, "exported", {"person": person, "kind": kind, "rows": len(rows), "sha256": sha256}, now)

    def log_access(self, person: str, action: str, seen: Sequence[tuple[str, str]], now: datetime) -> None:
        """Record that a person looked at these (pseudonym, tag), before they are shown."""
        with self.transaction() as db:
            for pseudonym, tag in seen:
                self._note_access(db, person, action, pseudonym, tag, now)
            self.log(db, "seen", {"person": person, "action": action, "rows": len(seen)}, now)

    def accesses(self, pseudonym: str) -> list[dict[str, Any]]:
        """Who has seen or taken this patient's tags, oldest first: at, person, action, tag."""
        who = self.cipher.index("who", pseudonym)
        rows = self._db.execute("SELECT at, body FROM access WHERE who=? ORDER BY at, rowid", (who,))
        return [{"at": at, **self.cipher.unseal(b"access" + who, body)} for at, body in rows]

    def _note_access(
        self, db: sqlite3.Connection, person: str, action: str, pseudonym: str, tag: str, now: datetime
    ) -> None:
        who = self.cipher.index("who", pseudonym)
        body = self.cipher.seal(b"access" + who, {"person": person, "action": action, "tag": tag})
        db.execute("INSERT INTO access VALUES (?,?,?)", (utc_text(now), who, body))

    def _person(self, name: str) -> bytes:
        return self.cipher.index("person", " ".join(name.casefold().split()))
