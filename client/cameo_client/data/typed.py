"""From text columns to the catalogue's types: numbers, bools, enums and days, each cell checked.

Pure: a frame of text in, typed columns and findings out. A cell that cannot be read is a finding and never a
silent null.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from cameo_client.data.findings import Finding, rows_of
from cameo_client.data.table_mapping import Column, TableMapping
from cameo_protocol.facts import Catalogue, Fact

DAYS_A_YEAR = 365.25
EXACT = 2.0**53  # above it a float skips whole numbers
_BOOLS = {"0": "false", "1": "true", "false": "false", "true": "true"}
_INTEGRAL = r"^([+-]?\d+)\.0*$"


def polars_type(fact: Fact) -> pl.DataType:
    """The column type of a fact: Float64, Int64, Boolean, or an Enum of the catalogue's values in their order."""
    if fact.type == "enum":
        return pl.Enum(fact.values)
    return {"float": pl.Float64(), "int": pl.Int64(), "bool": pl.Boolean()}[fact.type]


def typed_facts(
    text: pl.DataFrame, mapping: TableMapping, catalogue: Catalogue, table: str
) -> tuple[pl.DataFrame, list[Finding]]:
    """One typed column a fact, in catalogue order, and what could not be read.

    text: columns of `table.read_table`.   A fact that the source does not have is a column of nulls.
    """
    columns: list[pl.Series] = []
    findings: list[Finding] = []
    for fact in catalogue.facts:
        column = mapping.facts.get(fact.name)
        if column is None:
            columns.append(pl.Series(fact.name, [None] * text.height, dtype=polars_type(fact)))
            continue
        cells = text[str(column.column)]
        series, faults = _read(cells, fact, column, mapping.snapshot)
        columns.append(series.alias(fact.name))
        findings += [
            Finding(code, table, fact.name, problem, rows_of(bad)) for code, problem, bad in faults if bad.any()
        ]
    return pl.DataFrame(columns), findings


Fault = tuple[str, str, pl.Series]


def _read(cells: pl.Series, fact: Fact, column: Column, snapshot: date | None) -> tuple[pl.Series, list[Fault]]:
    if column.date and snapshot is not None:
        return _days(cells, fact, snapshot)
    if fact.type in ("enum", "bool"):
        return _words(cells, fact, column)
    number = numbers(cells) * column.factor
    bad = cells.is_not_null() & number.is_null()
    if fact.type == "int":
        bad = bad | ((number != number.round()) | (number.abs() > EXACT)).fill_null(value=False)
    if fact.zero_is_missing:
        number = number.set(number == 0.0, None)
    fault = ("data-type", f"hold no {'whole ' if fact.type == 'int' else ''}number", bad)
    return number.cast(polars_type(fact), strict=False), [fault]


def numbers(cells: pl.Series) -> pl.Series:
    """Float64; null where the text is no finite decimal number."""
    number = cells.cast(pl.Float64, strict=False)
    return number.set(~number.is_finite(), None)


def _words(cells: pl.Series, fact: Fact, column: Column) -> tuple[pl.Series, list[Fault]]:
    """Enum and bool cells through the mapping's `values`; "1.0" counts as "1"."""
    plain = cells.str.replace(_INTEGRAL, "$1")
    allowed = column.values or ({value: value for value in fact.values} if fact.type == "enum" else _BOOLS)
    if fact.type == "bool" and not column.values:
        plain = plain.str.to_lowercase()
    known = plain.replace_strict(list(allowed), list(allowed.values()), default=None, return_dtype=pl.String)
    series = known.cast(polars_type(fact)) if fact.type == "enum" else known == "true"
    return series, [
        ("data-value-unknown", "hold a code that is not in the mapping", cells.is_not_null() & known.is_null())
    ]


def _days(cells: pl.Series, fact: Fact, snapshot: date) -> tuple[pl.Series, list[Fault]]:
    """Days (or years) from an ISO date to the snapshot date. A date after it would leak the future: refused."""
    dates = cells.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    days = (pl.Series([snapshot]) - dates).dt.total_days().cast(pl.Float64)
    series = days / DAYS_A_YEAR if fact.unit == "years" else days
    return series.cast(polars_type(fact), strict=False), [
        ("data-type", "hold no date of the form YYYY-MM-DD", cells.is_not_null() & dates.is_null()),
        ("data-after-snapshot", "hold a date after the snapshot date", (days < 0).fill_null(value=False)),
    ]
