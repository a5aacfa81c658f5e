"""A small ward for tag tests: the heart catalogue, a few patients, and a consent book that says what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from cameo_client.data.catalogue import load_catalogue
from cameo_client.tags.apply import Outcome, apply
from cameo_client.tags.lint import bind_pack
from cameo_client.tags.policy import TagPolicy, load_policy
from cameo_client.tags.schema import ModelInfo, Schema, schema_of
from cameo_client.tags.world import Circumstances, Memory, Quality
from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import Catalogue

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@dataclass
class ConsentBook:
    """Says yes to a scope for the patients in `yes`, unless they are in `no`."""

    yes: dict[str, set[str]] = field(default_factory=dict)
    no: dict[str, set[str]] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)

    def granted(
        self,
        pseudonyms: Sequence[str],
        scope: str,
        now: datetime,
        *,
        minors: frozenset[str] = frozenset(),
        double_confirmed: bool = False,
    ) -> Any:
        yes = self.yes.get(scope, set()) - self.no.get(scope, set()) - (minors - self.guarded)
        return np.array([name in yes for name in pseudonyms], dtype=bool)

    def withdrawn(self, scope: str, now: datetime) -> frozenset[str]:
        return frozenset(self.no.get(scope, set()))


class Kit:
    """Builds packs, frames and circumstances with one-line changes."""

    noon = NOON

    def __init__(self, catalogue: Catalogue, policy: TagPolicy) -> None:
        self.catalogue, self.policy = catalogue, policy

    @property
    def schema(self) -> Schema:
        return schema_of(self.catalogue)

    def rule(self, **changes: Any) -> dict[str, Any]:
        """A sound rule as plain values; a value of `None` removes the key."""
        base: dict[str, Any] = {
            "id": "bp-high",
            "version": 1,
            "status": "active",
            "tag": {"name": "bp-high", "dimension": "dynamic", "category": "disease", "ttl_days": 90},
            "when": "sbp >= 140",
            "trigger": "disease",
            "priority": 50,
            "purpose": "care_management",
            "review": "none",
            "evidence": ["A guideline"],
            "review_by": "2030-01-01",
            "owner": "clinic",
            "reviewer": "safety officer",
            "effective": {"from": "2025-01-01"},
            "explain": "Your reading was high.",
            "explain_staff": "A high reading.",
            "tests": [{"given": {}, "expect": "true"}, {"given": {}, "expect": "false"}],
        }
        merged = {**base, **changes}
        if "id" in changes and "tag" not in changes:
            merged["tag"] = {**base["tag"], "name": changes["id"]}
        return {key: value for key, value in merged.items() if value is not None}

    def text(self, *rules: dict[str, Any], **header: Any) -> str:
        """A pack's YAML text."""
        schema_id = f"{self.catalogue.id}@{self.catalogue.version}"
        head = {"id": "pack", "version": "1.0.0", "facts_schema": schema_id, "title": "A pack", **header}
        return yaml.safe_dump({"pack": head, "rules": list(rules)}, sort_keys=False)

    def frame(self, *rows: dict[str, Any]) -> pl.DataFrame:
        """Facts with the given values; what is not given is null (a flag: false, age: 50). Names are p0, p1, …"""
        flags = {fact.name for fact in self.catalogue.facts if fact.type == "bool" and not fact.missing}
        kinds = {"float": pl.Float64, "int": pl.Int64, "bool": pl.Boolean, "enum": pl.String}
        columns = {fact.name: kinds[fact.type] for fact in self.catalogue.facts}
        extra = {name for row in rows for name in row} - set(columns)
        full = [{**dict.fromkeys(columns), **dict.fromkeys(flags, False), "age": 50.0, **row} for row in rows]
        series = [pl.Series("pseudonym", [f"p{i}" for i in range(len(rows))], dtype=pl.String)]
        series += [pl.Series(name, [row[name] for row in full], dtype=dtype) for name, dtype in columns.items()]
        series += [pl.Series(name, [row.get(name) for row in full], dtype=pl.Float64) for name in sorted(extra)]
        return pl.DataFrame(series)

    def models(self, *names: str, **changes: Any) -> tuple[ModelInfo, ...]:
        """Good models of these names."""
        base = {"version": 1, "model_id": "m", "released": NOON, "audited": True, "calibrated": True}
        return tuple(ModelInfo(name=name, **{**base, **changes}) for name in names)

    def run(self, rules: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], **changes: Any) -> Outcome:
        """Apply a pack to rows; everything is in order unless `changes` says otherwise."""
        pack, bound = bind_pack(self.text(*rules), "pack.yaml", self.schema, today=date(2026, 6, 1))
        given: dict[str, Any] = {
            "policy": self.policy,
            "consent": ConsentBook(),
            "quality": Quality(97.0),
            "approved_packs": {pack.sha256()},
            "now": NOON,
            "snapshot": date(2026, 5, 20),
            "memory": Memory(),
        }
        return apply(self.frame(*rows), bound, self.schema, Circumstances(**{**given, **changes}))

    @staticmethod
    def book(**yes: set[str]) -> ConsentBook:
        """A consent book in which these patients said yes, by scope."""
        return ConsentBook(yes=dict(yes))

    @staticmethod
    def fates(outcome: Outcome, tag: str) -> list[str]:
        """Each patient's state, with the reason, or "-" when the tag was not proposed."""
        decided = {one.pseudonym: one for one in outcome.decisions() if one.rule.rule.tag.name == tag}
        return [
            f"{decided[name].state} {decided[name].reason}".strip() if name in decided else "-"
            for name in outcome.world.pseudonyms
        ]


@pytest.fixture(scope="session")
def policy() -> TagPolicy:
    return load_policy(conf_dir() / "tags" / "policy" / "guards.yaml")


@pytest.fixture(scope="session")
def kit(policy: TagPolicy) -> Kit:
    return Kit(load_catalogue("cardiometabolic"), policy)


@pytest.fixture(scope="session")
def heart(policy: TagPolicy) -> Kit:
    return Kit(load_catalogue("heart"), policy)


@pytest.fixture(scope="session")
def packs() -> Path:
    return conf_dir() / "tags"
