"""The quality gate: 0 to 100 points a record and a data set, and which rules cost the points.

A record starts at 100; each fault takes the points below; a data set scores the mean of its records, less the
points for its age. Under READY the node declines to train and tags are not written. Everything here stays in the
hospital, and even here counts below 11 are hidden and no value is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
import polars as pl

from cameo_client.data.findings import SMALLEST_SHOWN, rows_of, shown
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue, Consistency

READY = 90.0
IMPLAUSIBLE = INCONSISTENT = DUPLICATE = 25.0
STALE = 20.0
DATES = "inconsistent:dates"
REPEATED = "duplicate-rows"
# Rows alike in this many numbers are compared in full.
MOST_NUMBERS = 6
Dimension = Literal["completeness", "plausibility", "consistency", "duplicates", "freshness"]


@dataclass(frozen=True)
class RuleResult:
    """One rule: how many rows fail it and the points it costs; where the count is hidden, the cost is that of 10."""

    id: str
    dimension: Dimension
    rows: str
    cost: float


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """score: 0-100, rounded down to .1. rules: those with failures, worst first. hard: what forbids use at any score.

    cleaned, left_out: cells set to null as impossible, and patients who then lacked a fact that may not be null.
    contradicting: cells set to null because they contradict another, or rows passed over because of their date.
    repeated: rows left out because they say again what another row says.
    failed: one bool column a rule, rows as the source has them; kept while the source is looked at, None afterwards.
    records: (N,) Float64, the score of each row of `HospitalData.facts`; row-level, so it is never printed.
    """

    score: float
    rules: tuple[RuleResult, ...]
    hard: tuple[str, ...]
    patients: str
    cleaned: str = "no"
    left_out: str = "no"
    contradicting: str = "no"
    repeated: str = "no"
    failed: pl.DataFrame | None = field(default=None, repr=False, compare=False)
    records: pl.Series = field(repr=False, compare=False)

    @property
    def ready(self) -> bool:
        """Whether the data may be trained on and tagged."""
        return self.score >= READY and not self.hard

    def require(self) -> None:
        """Raise `OperatorError` (exit code QUALITY) naming the worst rules, unless the data set is ready."""
        if self.ready:
            return
        worst = ", ".join(rule.id for rule in self.rules[:3])
        raise OperatorError(
            "quality-too-low",
            what=f"data quality {self.score:.1f}, {READY:.0f} is needed; worst: {', '.join(self.hard) or worst}",
            do="run: cameo-node data check --rows all   (prints the row numbers on this machine only)",
            exit=ExitCode.QUALITY,
        )

    def rows_failing(self, rule: str) -> tuple[int, ...]:
        """Positions, from 1, of the patients of the source who fail a rule; none for a rule without rows."""
        return rows_of(self.failed[rule]) if self.failed is not None and rule in self.failed.columns else ()

    def as_dict(self) -> dict[str, object]:
        """The report for `--json` and the hospital's own page."""
        return {
            "score": self.score,
            "ready": self.ready,
            "patients": self.patients,
            "cleaned": self.cleaned,
            "left_out": self.left_out,
            "contradicting": self.contradicting,
            "repeated": self.repeated,
            "hard": list(self.hard),
            "rules": [vars(rule) for rule in self.rules],
        }


@dataclass(frozen=True)
class Check:
    """A rule as a row: an expression that is true where a record fails (null counts as passing), and its points."""

    id: str
    dimension: Dimension
    fails: pl.Expr
    points: float


def checks(catalogue: Catalogue) -> tuple[Check, ...]:
    """The row rules that follow from a catalogue."""
    return tuple(_checks(catalogue))


def _checks(catalogue: Catalogue) -> Iterator[Check]:
    required = [fact.name for fact in catalogue.facts if fact.required]
    for name in required:
        yield Check(f"missing:{name}", "completeness", pl.col(name).is_null(), 100.0 / len(required))
    for name, fails in impossible(catalogue).items():
        yield Check(f"impossible:{name}", "plausibility", fails, IMPLAUSIBLE)
    for rule in catalogue.consistency:
        yield Check(f"inconsistent:{rule.id}", "consistency", _contradicts(rule), INCONSISTENT)
    yield Check(REPEATED, "duplicates", pl.col(REPEATED), DUPLICATE)


def repeated_rows(facts: pl.DataFrame, catalogue: Catalogue) -> pl.Series:
    """(N,) bool, true for rows that say exactly the same as another one.

    A cheap number a row finds the few that could be; only those are compared in full.
    """
    names = [fact.name for fact in catalogue.facts]
    numbers = [fact.name for fact in catalogue.facts if fact.type in ("float", "int")][:MOST_NUMBERS]
    mark = np.zeros(facts.height)
    for place, name in enumerate(numbers, 1):
        mark += facts[name].cast(pl.Float64).fill_null(-1.0).fill_nan(-1.0).to_numpy() * math.sqrt(place + 1)
    ordered = np.sort(mark)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    found = np.zeros(facts.height, dtype=bool)
    if len(shared):
        suspects = np.flatnonzero(np.isin(mark, shared))
        found[suspects] = facts[suspects].select(pl.struct(names).is_duplicated()).to_series().to_numpy()
    return pl.Series(REPEATED, found)


def impossible(catalogue: Catalogue) -> dict[str, pl.Expr]:
    """Fact -> expression that is true where its value lies outside the plausible range."""
    return {
        fact.name: (pl.col(fact.name) < fact.plausible[0]) | (pl.col(fact.name) > fact.plausible[1])
        for fact in catalogue.facts
        if fact.plausible is not None
    }


def contradictions(catalogue: Catalogue) -> dict[str, tuple[Consistency, pl.Expr]]:
    """Rule id -> the rule, and an expression that is true where its two facts contradict each other."""
    return {rule.id: (rule, _contradicts(rule).fill_null(value=False)) for rule in catalogue.consistency}


def _contradicts(rule: Consistency) -> pl.Expr:
    one, other = pl.col(rule.fact), pl.col(rule.other)
    if rule.kind == "below":
        return one >= other
    if rule.kind == "at_most":
        return one > other
    return (one.cast(pl.Float64) > 0) & ~other


def assess(
    facts: pl.DataFrame,
    catalogue: Catalogue,
    *,
    age_days: int | None,
    max_age_days: int | None,
    contradicted: pl.Series | None = None,
) -> QualityReport:
    """Score typed facts before any cleaning.

    facts: one row a patient, columns of the catalogue.   age_days: of the snapshot at the time of the check, or
    None when it is not known; above max_age_days the data set loses STALE points. contradicted: (N,) bool, patients
    whose events contradict their dates of birth or death.
    """
    rules = checks(catalogue)
    facts = facts.with_columns(repeated_rows(facts, catalogue))
    if contradicted is not None:
        told = [fails for _, fails in contradictions(catalogue).values()]  # by the facts: charged once, not twice
        rules += (Check(DATES, "consistency", pl.col(DATES) & ~pl.any_horizontal(False, *told), INCONSISTENT),)
        facts = facts.with_columns(contradicted.alias(DATES))
    failed = facts.select(check.fails.fill_null(value=False).alias(check.id) for check in rules)
    counts = failed.sum().row(0)
    points = [pl.col(check.id) * check.points for check, count in zip(rules, counts, strict=True) if count]
    lost = failed.select(pl.sum_horizontal(pl.lit(0.0), *points)).to_series() if points else _zeros(facts.height)
    records = (100.0 - lost).clip(0.0, 100.0).alias("quality")
    results = [
        RuleResult(check.id, check.dimension, shown(count), _cost(check.points, count, facts.height))
        for check, count in zip(rules, counts, strict=True)
        if count
    ]
    stale = age_days is not None and max_age_days is not None and age_days > max_age_days
    if stale:
        results.append(RuleResult("stale-snapshot", "freshness", "all", STALE))
    mean = float(records.mean() or 0.0) - (STALE if stale else 0.0)  # type: ignore[arg-type]
    return QualityReport(
        score=max(0.0, math.floor(mean * 10) / 10),
        rules=tuple(sorted(results, key=lambda rule: (-rule.cost, rule.id))),
        hard=_hard(facts, catalogue),
        patients=shown(facts.height),
        failed=failed,
        records=records,
    )


def _zeros(height: int) -> pl.Series:
    return pl.zeros(height, dtype=pl.Float64, eager=True)


def _hard(facts: pl.DataFrame, catalogue: Catalogue) -> tuple[str, ...]:
    """Failures that no score makes good: too few patients, or a required fact that the source does not have."""
    found = ["minimum-cohort"] if facts.height < SMALLEST_SHOWN else []
    empty = [f.name for f in catalogue.facts if f.required and facts[f.name].null_count() == facts.height]
    return tuple(found + [f"empty:{name}" for name in empty])


def _cost(points: float, count: int, height: int) -> float:
    """Points that a rule takes from the data set, rounded up to .1; a count below 11 is taken for 10, to hide it."""
    return math.ceil(points * min(max(count, SMALLEST_SHOWN - 1), height) / height * 10) / 10


def age_days(snapshot: date | None, today: date | None) -> int | None:
    """Whole days from the snapshot to today; None when either is unknown."""
    return None if snapshot is None or today is None else (today - snapshot).days
