"""Write what was decided: tags replaced, history kept, messages noted, one log entry, all in one transaction."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from cameo_client.tags import incremental
from cameo_client.tags.apply import Decision, Outcome, counts
from cameo_client.tags.incremental import Marks
from cameo_client.tags.reasons import CODES
from cameo_client.tags.store import StoredTag, TagStore, utc_text

Before = Mapping[tuple[str, str], StoredTag]


def write(
    store: TagStore, outcome: Outcome, *, only: frozenset[str] | None = None, marks: Marks | None = None
) -> dict[str, int]:
    """Replace the tags of the outcome's rules by what it decided.

    Stored and waiting decisions become rows, blocked ones leave none. Tags of other rules stay unless expired.
    only: the patients that were evaluated, the tags of others stay; None: all were. marks: kept for the next
    evaluation of the changed (see incremental.py); without them it is one of everybody.
    Returns how many were added, removed, changed (state or rule version) and unchanged.
    """
    now, tally, digest = outcome.world.given.now, Counter[str](), hashlib.sha256()
    with store.transaction() as db:
        run = db.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
        store.close_run(db, run, now, {})
        rows = store.every()
        before: Before = {(row.pseudonym, row.tag): row for row in rows if only is None or row.pseudonym in only}
        tally["unchanged"] = len(rows) - len(before)
        decided = set()
        for decision in outcome.decisions(("stored", "waiting")):
            digest.update(_line(decision))
            decided.add((decision.pseudonym, decision.rule.rule.tag.name))
            tally[_put(store, db, run, decision, before, outcome)] += 1
        tally["removed"] = _drop(store, db, before, decided, outcome)
        result = {key: tally[key] for key in ("added", "removed", "changed", "unchanged")}
        incremental.save(store, db, marks)
        _close(store, db, run, outcome, {**result, "partial": only is not None}, digest.hexdigest())
    return result


def _put(
    store: TagStore, db: sqlite3.Connection, run: int, decision: Decision, before: Before, outcome: Outcome
) -> str:
    """Write one row, its history if something changed, and its message if one is due: which change it was."""
    rule, now = decision.rule, decision.decided
    key = (decision.pseudonym, rule.rule.tag.name)
    old = before.get(key)
    same = old is not None and (old.state, old.rule_version) == (decision.state, rule.rule.version)
    change = "added" if old is None else "unchanged" if same else "changed"
    since = old.since if old is not None and old.state == decision.state else utc_text(now)
    store.put(db, _row(decision, since, run, outcome))
    if change != "unchanged":
        store.add_history(db, now, *key, change, decision.state, decision.reason)
    if decision.contact == "due":
        store.note_contact(db, decision.pseudonym, rule.key, rule.rule.contact == "safety", now)
    return change


def _drop(
    store: TagStore, db: sqlite3.Connection, before: Before, decided: set[tuple[str, str]], outcome: Outcome
) -> int:
    """Delete what is no longer decided or has expired; how many rows."""
    now, gone = outcome.world.given.now, 0
    keys = {item.key for item in outcome.world.rules}
    for (name, tag), old in before.items():
        if (name, tag) in decided or not (old.rule in keys or old.expires <= utc_text(now)):
            continue
        store.drop(db, name, tag)
        why = _why(outcome, name, old.rule) if old.rule in keys else "expired"
        store.add_history(db, now, name, tag, "removed", old.state, why)
        gone += 1
    return gone


def _close(
    store: TagStore, db: sqlite3.Connection, run: int, outcome: Outcome, result: Mapping[str, int | bool], digest: str
) -> None:
    given = outcome.world.given
    snapshot = given.snapshot.isoformat() if given.snapshot else None
    tallies = [tally.as_dict() for tally in counts(outcome)]
    models = [{"name": model.name, "run": model.run, "model_id": model.model_id} for model in given.models]
    left_out = [asdict(one) for one in given.left_out]
    summary = {"snapshot": snapshot, "facts_schema": outcome.world.schema.id, **result}
    used = {"models": models, "models_left_out": left_out}
    store.close_run(db, run, given.now, {**summary, **used, "counts": tallies, "digest": digest})
    packs = sorted({item.pack_sha256 for item in outcome.world.rules})
    body = {"run": run, "snapshot": snapshot, "packs": packs, "decisions_sha256": digest, **result}
    store.log(db, "applied", body, given.now)


def _row(decision: Decision, since: str, run: int, outcome: Outcome) -> StoredTag:
    rule, given = decision.rule, outcome.world.given
    model = next((item for item in given.models if item.name in rule.models), None)
    return StoredTag(
        pseudonym=decision.pseudonym,
        tag=rule.rule.tag.name,
        rule=rule.key,
        rule_version=rule.rule.version,
        pack=rule.pack_id,
        pack_version=rule.pack_version,
        pack_sha256=rule.pack_sha256,
        purpose=rule.rule.purpose,
        state=decision.state,
        reason=decision.reason,
        guard=9 if decision.state == "waiting" else 0,
        because=decision.because,
        snapshot=given.snapshot.isoformat() if given.snapshot else None,
        model=model.name if model else "",
        model_version=model.version if model else None,
        model_id=model.model_id if model else "",
        model_round=model.round if model else None,
        since=since,
        decided=utc_text(decision.decided),
        expires=utc_text(decision.expires),
        run=run,
        model_run=model.run if model else "",
    )


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
