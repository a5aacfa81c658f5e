"""Which patients must be evaluated again: those whose facts, model outputs, consents or reviews are not as they were.

Each evaluation leaves a mark of what every patient's decision rested on, and one mark of what all rested on: rules,
policy, models, day. `affected` compares. A decision depends on the patient's own row and on the circumstances only, so
evaluating the affected gives the tags that evaluating everybody would give (a law in the tests). On another day, or
when something changed that concerns everybody, all are affected.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from cameo_client.consent.uses import minors
from cameo_client.tags.apply import needed_columns
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.engine import PSEUDONYM, prepare
from cameo_client.tags.schema import Schema
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Circumstances

_PLACE = b"meta marks"


@dataclass(frozen=True)
class Marks:
    """everybody: what concerns all patients.   patients: pseudonym -> 64-bit hash of what concerns that one."""

    everybody: str
    patients: Mapping[str, int]


def marks(facts: pl.DataFrame, rules: Sequence[BoundRule], schema: Schema, given: Circumstances) -> Marks:
    """The marks of an evaluation of these facts. They hold nothing but hashes; the store seals them all the same."""
    frame = prepare(facts, schema, needed_columns(rules, schema, given.policy))
    rows = pl.concat(
        [frame.select(pl.all().exclude(PSEUDONYM)).with_columns(pl.col(pl.Categorical).cast(pl.String)),
         _consents(frame, rules, given),
         pl.DataFrame({"poor record": _members(frame, given.quality.poor), "memory": _memory(frame, rules, given)})],
        how="horizontal",
    )  # fmt: skip
    hashes = rows.hash_rows()
    return Marks(_everybody(rules, schema, given), dict(zip(frame[PSEUDONYM].to_list(), hashes.to_list(), strict=True)))


def affected(
    before: Marks | None, after: Marks, rules: Sequence[BoundRule], given: Circumstances
) -> frozenset[str] | None:
    """Who must be evaluated again, those who are gone from the facts included; None: everybody.

    Whoever has a tag that leads to messages is among them until its message went out: quiet hours and the day's cap
    pass without any change of facts.
    """
    if before is None or before.everybody != after.everybody:
        return None
    changed = {name for name, mark in after.patients.items() if before.patients.get(name) != mark}
    changed |= before.patients.keys() - after.patients.keys()
    for item in rules:
        if item.rule.contact == "none":
            continue
        since = given.now - timedelta(days=item.rule.cooldown_days)
        told = {name for (name, key), at in given.memory.contacted.items() if key == item.key and at > since}
        changed |= given.memory.held.get(item.key, frozenset()) - told
    return frozenset(changed)


def load(store: TagStore) -> Marks | None:
    """The marks of the last evaluation that was written, or None."""
    with store.transaction() as db:
        row = db.execute("SELECT value FROM meta WHERE name='marks'").fetchone()
    return None if row is None else Marks(**store.cipher.unseal(_PLACE, row[0]))


def save(store: TagStore, db: sqlite3.Connection, found: Marks | None) -> None:
    """Replace the marks inside the caller's transaction; None: the next evaluation is one of everybody."""
    db.execute("DELETE FROM meta WHERE name='marks'")
    if found is not None:
        sealed = store.cipher.seal(_PLACE, {"everybody": found.everybody, "patients": dict(found.patients)})
        db.execute("INSERT INTO meta VALUES ('marks', ?)", (sealed,))


def _everybody(rules: Sequence[BoundRule], schema: Schema, given: Circumstances) -> str:
    """The day is part of it: effective dates, evidence, terms and models' ages count in days."""
    policy, used = given.policy, {item.pack_sha256 for item in rules}
    limit = policy.max_snapshot_age_days
    parts = {
        "rules": [[item.key, item.pack_sha256] for item in rules],
        "schema": schema.id,
        "policy": policy.model_dump_json(),
        "models": sorted(repr(model) for model in given.models),
        "approved": sorted(used & set(given.approved_packs)),
        "approved_at": sorted((sha, at.isoformat()) for sha, at in given.approved_at.items() if sha in used),
        "quality": given.quality.score >= policy.quality_floor,
        "stale": limit is not None
        and (given.snapshot is None or given.now.date() - given.snapshot > timedelta(days=limit)),
        "day": given.now.date().isoformat(),
        "hash": pl.__version__,  # hashes of rows are the same within one version only
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _consents(frame: pl.DataFrame, rules: Sequence[BoundRule], given: Circumstances) -> pl.DataFrame:
    names = frame[PSEUDONYM].to_list()
    young = minors(frame, given.policy.age_column)
    columns: dict[str, pl.Series] = {}
    for scope in sorted({scope for item in rules for scope in item.rule.scopes()}):
        double = scope in given.policy.double_confirmed
        alone = given.consent.granted(names, scope, given.now, double_confirmed=double)
        granted = given.consent.granted(names, scope, given.now, minors=young, double_confirmed=double)
        columns |= {f"{scope} alone": pl.Series(alone), f"{scope} granted": pl.Series(granted)}
        columns[f"{scope} refused"] = _members(frame, given.consent.withdrawn(scope, given.now))
    return pl.DataFrame(columns)


def _memory(frame: pl.DataFrame, rules: Sequence[BoundRule], given: Circumstances) -> pl.Series:
    """Of each patient: reviews, and the tags whose thresholds depend on having them; null for most."""
    found: dict[str, list[str]] = {}
    for case, number in given.memory.approvals.items():
        found.setdefault(case[0], []).append(f"{case[1]} {case[2]} approved {number}")
    for case in given.memory.rejections:
        found.setdefault(case[0], []).append(f"{case[1]} {case[2]} rejected")
    for item in rules:
        if item.rule.hysteresis is not None:
            for name in given.memory.held.get(item.key, ()):
                found.setdefault(name, []).append(f"{item.key} held")
    texts = ["\n".join(sorted(found[name])) if name in found else None for name in frame[PSEUDONYM].to_list()]
    return pl.Series(texts, dtype=pl.String)


def _members(frame: pl.DataFrame, names: frozenset[str]) -> pl.Series:
    return frame[PSEUDONYM].is_in(pl.Series(sorted(names), dtype=pl.String).implode())
