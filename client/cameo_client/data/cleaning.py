"""What a mapping lets the door put right, each kind counted: impossible values, contradictions, repeated rows.

Nothing is put right that the mapping does not name, and nothing is made up: a value becomes null or a row is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from cameo_client.data import quality
from cameo_client.data.table_mapping import TableMapping
from cameo_protocol.facts import Catalogue


@dataclass(frozen=True, eq=False)
class Cleaned:
    """facts: (N,) rows as given, with nulls. kept: (N,) bool, rows with every fact that may not be missing.

    impossible, contradicting: how many cells became null.
    """

    facts: pl.DataFrame
    kept: pl.Series
    impossible: int
    contradicting: int


def clean(facts: pl.DataFrame, catalogue: Catalogue, mapping: TableMapping) -> Cleaned:
    """Clear the impossible values, then, where the mapping says so, both values of what contradicts each other."""
    bad = facts.select(
        fails.fill_null(value=False).alias(name) for name, fails in quality.impossible(catalogue).items()
    )
    cleaned = _nulls(facts, bad)
    contradicting = 0
    if mapping.contradictions == "clear":
        for rule, fails in quality.contradictions(catalogue).values():
            mask = cleaned.select(fails.alias("bad"))["bad"]
            cleaned = _nulls(cleaned, pl.DataFrame({rule.fact: mask, rule.other: mask}))
            contradicting += 2 * int(mask.sum())
    needed = [pl.col(fact.name).is_not_null() for fact in catalogue.facts if not fact.missing]
    kept = cleaned.with_columns(pl.all_horizontal(pl.lit(value=True), *needed).alias("kept"))["kept"]
    return Cleaned(cleaned, kept, sum(int(bad[name].sum()) for name in bad.columns), contradicting)


def _nulls(facts: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """facts with null where bad, (N,) bool a fact, is true."""
    return facts.with_columns(
        pl.when(~bad[name]).then(pl.col(name)).otherwise(None).alias(name) for name in bad.columns if bad[name].any()
    )


def without_repeats(text: pl.DataFrame, mapping: TableMapping) -> tuple[pl.DataFrame, int]:
    """The rows without those that equal an earlier one in every mapped column, and how many went.

    Without a person id two equal rows may be two patients, so then nothing goes.
    """
    if mapping.duplicates != "drop" or mapping.person_id == "row":
        return text, 0
    kept = text.unique(keep="first", maintain_order=True)
    return kept, text.height - kept.height
