"""Reading an OMOP source: one SELECT a fact, side by side as the text table that the common door types and checks."""

from __future__ import annotations

import polars as pl

from cameo_client.data.findings import bad_file
from cameo_client.data.omop_engine import Engine, open_engine
from cameo_client.data.omop_mapping import DATE_COLUMN, OmopRows, OmopSource
from cameo_client.data.omop_sql import fact_sql, outcome_sql
from cameo_protocol.facts import Catalogue, Fact


def read_omop(source: OmopSource, catalogue: Catalogue) -> pl.DataFrame:
    """One row a person as text: `person_id`, the mapped facts and outcomes; null = not known.

    A person without rows: a count or "ever" fact that may not be missing is 0, everything else is null.
    """
    mapping = source.mapping
    mapping.check(catalogue)
    with open_engine(source.path) as engine:
        tables = engine.tables()
        _check_tables(source, tables)
        frame = _persons(engine, source)
        if frame.height == 0:
            raise bad_file("data-empty", f"{source.path.name}: the table person is empty", "check the source")
        related = "concept_ancestor" in tables
        for name, rows in mapping.facts.items():
            fact = catalogue.fact(name)
            sql = fact_sql(fact, rows, mapping.snapshot, descendants=related)
            frame = _join(frame, _values(engine, source, name, rows, sql), name, zero=_zero(fact))
        for name, rows in mapping.outcomes.items():
            sql = outcome_sql(rows, mapping.snapshot, descendants=related)
            frame = _join(frame, _values(engine, source, name, rows, sql), name, zero=False)
    return frame.drop("key")


def _zero(fact: Fact) -> bool:
    return fact.derive.how in ("count", "ever") and not fact.missing


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
    """`key` (person_id of the tables) and `person_id` (the id from which pseudonyms are made, as text)."""
    column = source.mapping.person_id
    sql = f"SELECT person_id AS key, CAST({column} AS VARCHAR) AS person_id FROM person ORDER BY person_id"  # noqa: S608
    rows = engine.query(sql, f"person.{column}")
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
    if found["key"].is_duplicated().any():
        raise bad_file(
            "data-duplicate-id", f"{source.path.name}: {name} has two values for one person", "check the table person"
        )
    return found


def _join(frame: pl.DataFrame, values: pl.DataFrame, name: str, *, zero: bool) -> pl.DataFrame:
    joined = frame.join(values, on="key", how="left", maintain_order="left")
    return joined.with_columns(pl.col(name).fill_null("0")) if zero else joined
