"""Write what was decided: tags replaced, history kept, messages noted, one log entry, all in one transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping

from cameo_client.tags import chain
from cameo_client.tags.apply import Decision, Outcome, counts
from cameo_client.tags.reasons import CODES
from cameo_client.tags.store import TagStore, add_history, utc_text

_PUT = "INSERT OR REPLACE INTO tags VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
Before = Mapping[tuple[str, str], tuple[str, int, str, str, str]]


def write(store: TagStore, outcome: Outcome) -> dict[str, int]:
    """Replace the tags of the outcome's rules by what it decided.

    Stored and waiting decisions become rows, blocked ones leave none. Tags of other rules stay unless expired.
    Returns how many were added, removed, changed (state or rule version) and unchanged.
    """
    now, tally, digest = outcome.world.given.now, Counter[str](), hashlib.sha256()
    with store.transaction() as db:
        run = db.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
        db.execute("INSERT INTO runs VALUES (?,?,NULL,'',0,0,0,0,'','')", (run, utc_text(now)))
        rows = db.execute("SELECT pseudonym, tag, state, rule_version, since, rule, expires FROM tags")
        before: Before = {(row[0], row[1]): row[2:] for row in rows}
        decided = set()
        for decision in outcome.decisions(("stored", "waiting")):
            digest.update(_line(decision))
            decided.add((decision.pseudonym, decision.rule.rule.tag.name))
            tally[_put(db, run, decision, before, outcome)] += 1
        tally["removed"] = _drop(db, before, decided, outcome)
        result = {key: tally[key] for key in ("added", "removed", "changed", "unchanged")}
        _close(db, run, outcome, result, digest.hexdigest())
    return result


def _put(db: sqlite3.Connection, run: int, decision: Decision, before: Before, outcome: Outcome) -> str:
    """Write one row, its history if something changed, and its message if one is due: which change it was."""
    rule, now = decision.rule, decision.decided
    key = (decision.pseudonym, rule.rule.tag.name)
    old = before.get(key)
    same = old is not None and old[:2] == (decision.state, rule.rule.version)
    change = "added" if old is None else "unchanged" if same else "changed"
    since = old[2] if old is not None and old[0] == decision.state else utc_text(now)
    db.execute(_PUT, _row(decision, since, run, outcome))
    if change != "unchanged":
        add_history(db, now, *key, change, decision.state, decision.reason)
    if decision.contact == "due":
        safety = int(rule.rule.contact == "safety")
        db.execute("INSERT INTO contacts VALUES (?,?,?,?)", (decision.pseudonym, rule.key, utc_text(now), safety))
    return change


def _drop(db: sqlite3.Connection, before: Before, decided: set[tuple[str, str]], outcome: Outcome) -> int:
    """Delete what is no longer decided or has expired; how many rows."""
    now, gone = outcome.world.given.now, 0
    keys = {item.key for item in outcome.world.rules}
    for (name, tag), (state, _, _, rule, expires) in before.items():
        if (name, tag) in decided or not (rule in keys or expires <= utc_text(now)):
            continue
        db.execute("DELETE FROM tags WHERE pseudonym=? AND tag=?", (name, tag))
        add_history(db, now, name, tag, "removed", state, _why(outcome, name, rule) if rule in keys else "expired")
        gone += 1
    return gone


def _close(db: sqlite3.Connection, run: int, outcome: Outcome, result: Mapping[str, int], digest: str) -> None:
    given = outcome.world.given
    snapshot = given.snapshot.isoformat() if given.snapshot else None
    tallies = json.dumps([tally.as_dict() for tally in counts(outcome)])
    db.execute(
        "UPDATE runs SET snapshot=?, facts_schema=?, added=?, removed=?, changed=?, unchanged=?, counts=?, digest=?"
        " WHERE run=?",
        (snapshot, outcome.world.schema.id, *result.values(), tallies, digest, run),
    )
    packs = sorted({item.pack_sha256 for item in outcome.world.rules})
    body = {"run": run, "snapshot": snapshot, "packs": packs, "decisions_sha256": digest, **result}
    chain.append(db, "applied", body, given.now)


def _row(decision: Decision, since: str, run: int, outcome: Outcome) -> tuple[object, ...]:
    rule, given = decision.rule, outcome.world.given
    model = next((item for item in given.models if item.name in rule.models), None)
    return (
        decision.pseudonym, rule.rule.tag.name, rule.key, rule.rule.version, rule.pack_id, rule.pack_version,
        rule.pack_sha256, rule.rule.purpose, decision.state, decision.reason,
        9 if decision.state == "waiting" else 0, json.dumps(decision.because),
        given.snapshot.isoformat() if given.snapshot else None,
        model.name if model else "", model.version if model else None, model.model_id if model else "",
        model.round if model else None, since, utc_text(decision.decided), utc_text(decision.expires), run,
    )  # fmt: skip


def _why(outcome: Outcome, pseudonym: str, key: str) -> str:
    """Why a tag went away: the guard's reason, or that the rule no longer proposes it."""
    row = outcome.row(pseudonym)
    if row is None:
        return "patient-not-in-facts"
    if outcome.candidates[key][row]:
        return CODES[int(outcome.codes[key][row])]
    return "unknown" if outcome.world.unknown[key][row] else "not-proposed"


def _line(decision: Decision) -> bytes:
    parts = (decision.pseudonym, decision.rule.key, str(decision.rule.rule.version), decision.state, decision.reason)
    return "\0".join(parts).encode() + b"\n"
