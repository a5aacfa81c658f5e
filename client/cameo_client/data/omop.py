"""Reading an OMOP source: one SELECT a fact, side by side as the text table that the common door types and checks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import polars as pl

from cameo_client.data.findings import bad_file, refuse
from cameo_client.data.omop_checks import (
    AFTER_DEATH,
    BEFORE_BIRTH,
    COLUMNS_SQL,
    RowFaults,
    persons_twice,
    row_faults,
)
from cameo_client.data.omop_engine import Engine, open_engine
from cameo_client.data.omop_mapping import CONCEPT_COLUMN, DATE_COLUMN, OmopRows, OmopSource
from cameo_client.data.omop_sql import Cleaning, fact_sql, outcome_sql
from cameo_protocol.facts import Catalogue, Fact


@dataclass(frozen=True, eq=False)
class OmopTable:
    """text: one row a person, `person_id`, the mapped facts and outcomes; null = not known.

    faults: what is wrong with single rows. contradicted: (N,) bool, persons with an event before birth or long after
    death.
    """

    text: pl.DataFrame = field(repr=False)
    faults: RowFaults
    contradicted: pl.Series = field(repr=False)


def read_omop(
    source: OmopSource, catalogue: Catalogue, today: date | None = None, scratch: Path | None = None
) -> OmopTable:
    """Read every fact and outcome. today: when known, rows of the future are faults. scratch: see `private_folder`.

    A person without rows: a count or "ever" fact that may not be missing is 0, everything else is null.
    """
    mapping = source.mapping
    mapping.check(catalogue)
    with open_engine(source.path, scratch) as engine:
        tables = engine.tables()
        _check_tables(source, tables)
        _check_columns(engine, source)
        frame = _persons(engine, source)
        if frame.height == 0:
            raise bad_file("data-empty", f"{source.path.name}: the table person is empty", "check the source")
        twice = persons_twice(engine)
        if mapping.duplicates == "refuse":
            refuse(twice)
        faults = row_faults(engine, mapping, tables, today)
        faults = replace(faults, twice=(*twice, *faults.twice))
        clean = _cleaning(faults, source)
        related = "concept_ancestor" in tables
        for name, rows in mapping.facts.items():
            fact = catalogue.fact(name)
            sql = fact_sql(fact, rows, mapping.snapshot, descendants=related, clean=clean)
            frame = _join(frame, _values(engine, source, name, rows, sql), name, zero=_zero(fact))
        for name, rows in mapping.outcomes.items():
            sql = outcome_sql(rows, mapping.snapshot, descendants=related, clean=clean)
            frame = _join(frame, _values(engine, source, name, rows, sql), name, zero=False)
    contradicted = frame["key"].is_in(list(faults.contradicted))
    return OmopTable(frame.drop("key"), faults, contradicted)


def _cleaning(faults: RowFaults, source: OmopSource) -> Cleaning:
    """What the queries pass over: only what is there, so that a clean source is read without a further condition."""
    codes = {finding.code for finding in faults.dates}
    clear = source.mapping.contradictions == "clear"
    return Cleaning(
        repeated=any(finding.table != "person" for finding in faults.twice) and source.mapping.duplicates == "drop",
        before_birth=clear and BEFORE_BIRTH in codes,
        after_death=clear and AFTER_DEATH in codes,
    )


def _zero(fact: Fact) -> bool:
    return fact.derive.how in ("count", "ever") and not fact.missing


def _check_columns(engine: Engine, source: OmopSource) -> None:
    """Refuse a source whose tables lack a column that the mapping reads."""
    there = {
        (table.lower(), column.lower())
        for table, column in engine.query(COLUMNS_SQL, "the list of columns").select("table_name", "column_name").rows()
    }
    mapping = source.mapping
    needed: list[tuple[str, str]] = [("person", "person_id"), ("person", mapping.person_id)]
    for rows in (*mapping.facts.values(), *mapping.outcomes.values()):
        needed += [(rows.table, "person_id"), *([(rows.table, rows.value)] if rows.value else [])]
        if rows.table in DATE_COLUMN:
            needed.append((rows.table, DATE_COLUMN[rows.table]))
        if rows.table in CONCEPT_COLUMN:
            needed.append((rows.table, f"{rows.table}_id"))
            needed += [(rows.table, CONCEPT_COLUMN[rows.table])] if rows.concepts else []
    if lacking := [pair for pair in needed if pair not in there]:
        table, column = lacking[0]
        raise bad_file(
            "data-column-missing",
            f"{source.path.name}: the table {table} has no column {column}",
            "export it, or correct the mapping",
        )


def _check_tables(source: OmopSource, tables: set[str]) -> None:
    mapping = source.mapping
    needed = {"person"} | {rows.table for rows in (*mapping.facts.values(), *mapping.outcomes.values())}
    if mapping.outcomes:
        needed.add("observation_period")
    if lacking := sorted(needed - tables):
        raise bad_file(
            "data-table-missing",
            f"{source.path.name}: it has no table {lacking[0]}",
            "export it, or correct the mapping",
        )


def _persons(engine: Engine, source: OmopSource) -> pl.DataFrame:
    """`key` (person_id of the tables) and `person_id` (the id from which pseudonyms are made, as text), in its order.

    The order gives the row numbers of quality rules a meaning: the n-th person by person_id, or by source value.
    """
    column = source.mapping.person_id
    sql = f"SELECT person_id AS key, CAST({column} AS VARCHAR) AS person_id FROM person ORDER BY key"  # noqa: S608
    rows = engine.query(sql, f"person.{column}")
    if source.mapping.duplicates == "drop":
        rows = rows.unique(maintain_order=True)
    if column == "person_source_value":
        rows = rows.sort("person_id", maintain_order=True)
    return rows.select(_key(rows, "key", source), pl.col("person_id").str.strip_chars().replace({"": None}))


def _key(rows: pl.DataFrame, column: str, source: OmopSource) -> pl.Series:
    """person_id as a number, as OMOP has it."""
    if not (rows[column].dtype.is_numeric() or rows.height == 0):
        raise bad_file(
            "data-type", f"{source.path.name}: person_id holds no whole numbers", "number the persons, as OMOP does"
        )
    return rows[column].cast(pl.Int64).alias("key")


def _values(engine: Engine, source: OmopSource, name: str, rows: OmopRows, sql: str) -> pl.DataFrame:
    """(key, value) as text; two values for one person are a fault of the source, such as a person listed twice."""
    found = engine.query(sql, f"{rows.table}.{rows.value or DATE_COLUMN.get(rows.table, 'person_id')} for {name}")
    found = found.filter(pl.col("value").is_not_null())
    found = found.select(_key(found, "person_id", source), pl.col("value").cast(pl.String).alias(name))
    if rows.table == "person" and source.mapping.duplicates == "drop":
        found = found.unique()
    if found["key"].is_duplicated().any():
        raise bad_file(
            "data-duplicate-id", f"{source.path.name}: {name} has two values for one person", "check the table person"
        )
    return found


def _join(frame: pl.DataFrame, values: pl.DataFrame, name: str, *, zero: bool) -> pl.DataFrame:
    joined = frame.join(values, on="key", how="left", maintain_order="left")
    return joined.with_columns(pl.col(name).fill_null("0")) if zero else joined
