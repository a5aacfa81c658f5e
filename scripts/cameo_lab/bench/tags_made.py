"""Made-up rules and patients for `cameo bench tags`: random, but the same from one seed in every process."""

from __future__ import annotations

from datetime import date
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.tags.bind import BoundRule, bind_rule
from cameo_client.tags.pack import Pack
from cameo_client.tags.predicate import And, Compare, Missing, Not, OneOf, Op, Or, Tree, columns, to_sql
from cameo_client.tags.schema import Column, Schema
from cameo_protocol.facts import Purpose

FACTS = (
    "age", "bmi", "sbp", "dbp", "hba1c", "ldl", "egfr",
    "visits_12m", "days_since_visit",
    "dx_t2d", "dx_htn", "smoker", "insulin",
    "sex", "region", "ckd_stage",
    "risk_t2d_12m", "risk_lapse",
)  # fmt: skip
_ORDERED: tuple[Op, ...] = ("<", "<=", ">", ">=")
_PURPOSES: tuple[Purpose, ...] = ("care_management", "health_education", "service_reminder", "marketing", "research")
MISSING = 0.15  # share of nulls in each fact
WITH_NAN = "bmi"  # one in ten of its missing values is a NaN


def made_patients(schema: Schema, rows: int, seed: int, names: tuple[str, ...] = FACTS) -> pl.DataFrame:
    """`pseudonym` and the named facts, independent of each other, in the types that the data layer gives."""
    draw = np.random.default_rng(seed)
    made = {"pseudonym": pl.Series([f"{row:032x}" for row in range(rows)], dtype=pl.String)}  # sorted, as real ones are
    return pl.DataFrame(made | {name: _values(schema.column(name), rows, draw) for name in names})


def _values(column: Column, rows: int, draw: np.random.Generator) -> pl.Series:
    missing = draw.random(rows) < MISSING
    if column.kind == "bool":
        values = pl.Series(draw.random(rows) < 0.25)
    elif column.kind == "enum":
        values = pl.Series(column.values, dtype=pl.String).gather(draw.integers(0, len(column.values), rows))
    else:
        low, high = _span(column)
        numbers: npt.NDArray[np.float64] = draw.normal((low + high) / 2, (high - low) / 4, rows).clip(low, high)
        values = pl.Series(np.rint(numbers).astype(np.int64) if column.whole else np.round(numbers, 3))
        if column.name == WITH_NAN:
            nan = pl.Series(missing & (draw.random(rows) < 0.1))
            values = values.zip_with(~nan, pl.Series([float("nan")]).new_from_index(0, rows))
            missing &= ~nan.to_numpy()
    return values.zip_with(pl.Series(~missing), pl.Series([None], dtype=values.dtype).new_from_index(0, rows))


def made_rules(schema: Schema, count: int, seed: int) -> tuple[BoundRule, ...]:
    """`count` rules of two to four comparisons, nested, one in five with `unless`; from text, as a pack's are."""
    random = Random(seed)  # noqa: S311 - a benchmark's input
    header = {"id": "made", "version": "1.0.0", "facts_schema": schema.id, "title": "Made-up rules"}
    pack = Pack.model_validate({"pack": header, "rules": [_rule(number, schema, random) for number in range(count)]})
    digest = pack.sha256()
    return tuple(bind_rule(rule, pack, schema, pack_sha256=digest) for rule in pack.rules)


def _rule(number: int, schema: Schema, random: Random) -> dict[str, Any]:
    when = made_tree(schema, random, random.choice((2, 3, 3, 3, 4, 4)))
    unless = made_tree(schema, random, 1) if random.random() < 0.2 else None
    read = columns(when) + (columns(unless) if unless else ())
    fits = [purpose for purpose in _PURPOSES if all(purpose in schema.column(name).purposes for name in read)]
    models = sorted({schema.column(name).model for name in read} - {""})
    purpose = random.choice(fits)
    return {
        "id": f"rule-{number}", "version": 1, "status": "active",
        "tag": {"name": f"tag-{number}", "dimension": "dynamic", "category": "disease", "ttl_days": 30},
        "when": to_sql(when), "unless": to_sql(unless) if unless else "", "trigger": "state",
        "model": {"name": models[0], "min_version": 1, "max_age_days": 365} if models else None,
        "priority": number, "exclusive_group": f"group-{number % 20}" if number % 4 == 0 else None,
        "contact": "patient" if number % 3 == 0 else "none", "cooldown_days": 7,
        "purpose": purpose, "review": random.choice(("none", "none", "none", "sample")),
        "evidence": ["Made up for a measurement"], "review_by": date(2030, 1, 1), "owner": "bench",
        "reviewer": "nobody else", "effective": {"from": date(2025, 1, 1)},
        "explain": "Made up.", "explain_staff": "Made up.",
        "tests": [{"given": {}, "expect": "true"}, {"given": {}, "expect": "false"}],
    }  # fmt: skip


def made_tree(schema: Schema, random: Random, leaves: int) -> Tree:
    """A random predicate over FACTS with that many comparisons."""
    if leaves == 1:
        tree = _leaf(schema.column(random.choice(FACTS)), random)
    else:
        cut = random.randint(1, leaves - 1)
        parts = (made_tree(schema, random, cut), made_tree(schema, random, leaves - cut))
        tree = And(parts) if random.random() < 0.85 else Or(parts)
    return Not(tree) if leaves == 1 and random.random() < 0.15 else tree


def _leaf(column: Column, random: Random) -> Tree:
    if random.random() < 0.05:
        return Missing(column.name)
    if column.kind == "bool":
        return Compare(column.name, "=", random.random() < 0.7)
    if column.kind == "enum":
        chosen = random.sample(column.values, random.randint(1, len(column.values) - 1))
        return Compare(column.name, "=", chosen[0]) if len(chosen) == 1 else OneOf(column.name, tuple(chosen))
    low, high = _span(column)
    op = random.choice(_ORDERED)
    value = random.triangular(low, high, high if op in (">", ">=") else low)  # in the tail, as clinical thresholds are
    return Compare(column.name, op, float(round(value, 0 if column.whole else 2)))


def _span(column: Column) -> tuple[float, float]:
    """Where most made-up values lie, inside the plausible range."""
    if column.name.startswith(("risk_", "steps_rate")):
        return 0.0, 1.0
    narrow = {"sbp": (90, 180), "dbp": (50, 110), "hba1c": (4.5, 10), "ldl": (1, 6),
              "egfr": (15, 120), "bmi": (18, 42), "age": (20, 90), "visits_12m": (0, 20),
              "metformin_fills_90d": (0, 6), "days_since_visit": (0, 400)}  # fmt: skip
    low, high = narrow[column.name]
    return float(low), float(high)
