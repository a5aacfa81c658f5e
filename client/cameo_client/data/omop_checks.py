"""What is wrong with single rows of an OMOP source, found where they are, in SQL that both engines read alike.

Only the tables that the mapping reads are looked at. A finding's rows are the keys of the rows in their table, such as
measurement_id. The rule for dates around death is that of the OHDSI Data Quality Dashboard (plausibleDuringLife).
"""

# ruff: noqa: S608 - every name in these texts comes from a closed list and every value is a number or a date
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl

from cameo_client.data.findings import Finding
from cameo_client.data.omop_engine import Engine
from cameo_client.data.omop_mapping import CONCEPT_COLUMN, DATE_COLUMN, OmopMapping
from cameo_client.data.omop_sql import after_death, before_birth

MOST_ROWS = 1_000_000
FUTURE, BEFORE_BIRTH, AFTER_DEATH = "data-future-date", "data-before-birth", "data-after-death"
COLUMNS_SQL = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = ANY (current_schemas(true))"
)


@dataclass(frozen=True, eq=False)
class RowFaults:
    """empty: tables without rows. bad: rows that no fact is made from. twice: rows whose key another row has.

    dates: events of a person before birth or long after death; contradicted: those persons' `person_id`.
    """

    empty: tuple[Finding, ...] = ()
    bad: tuple[Finding, ...] = ()
    twice: tuple[Finding, ...] = ()
    dates: tuple[Finding, ...] = ()
    contradicted: frozenset[int] = field(default=frozenset(), repr=False)


def row_faults(engine: Engine, mapping: OmopMapping, tables: set[str], today: date | None) -> RowFaults:
    """Everything that is wrong with single rows. today: when known, rows of the future are faults."""
    used = _used(mapping)
    bad = [*_strangers(engine, used), *(_future(engine, used, _horizon(mapping, today)) if today else ())]
    if "measurement" in used:
        bad += _mixed_units(engine, mapping)
    twice = [finding for table in used for finding in _find(engine, table, _twice(table), "data-duplicate-row",
             f"{table}_id", "have the key of another row")]  # fmt: skip
    dates, people = [], set()
    for table in used:
        for code, where, problem in _contradictions(mapping, tables, table):
            past = f"{DATE_COLUMN[table]} <= DATE '{mapping.snapshot}'"
            sql = f"SELECT {table}_id AS place, person_id FROM {table} WHERE {past} AND {where}"
            keys, persons = _keys(engine, table, sql)
            people |= persons
            if keys:
                dates.append(Finding(code, table, DATE_COLUMN[table], problem, keys))
    return RowFaults(tuple(_empty(engine, used)), tuple(bad), tuple(twice), tuple(dates), frozenset(people))


def persons_twice(engine: Engine) -> tuple[Finding, ...]:
    """Persons who are listed more than once."""
    sql = "SELECT person_id AS place FROM person GROUP BY person_id HAVING COUNT(*) > 1"
    return tuple(_find(engine, "person", sql, "data-duplicate-id", "person_id", "have the person_id of another row"))


def _used(mapping: OmopMapping) -> list[str]:
    rows = (*mapping.facts.values(), *mapping.outcomes.values())
    return sorted({one.table for one in rows} & CONCEPT_COLUMN.keys())


def _contradictions(mapping: OmopMapping, tables: set[str], table: str) -> Iterator[tuple[str, str, str]]:
    """(code, condition, problem) of each rule that the source's columns allow."""
    if any(rows.value == "birth_datetime" for rows in mapping.facts.values()):
        yield BEFORE_BIRTH, before_birth(table), "are dated before their person's birth"
    if "death" in tables and any(rows.table == "death" for rows in mapping.facts.values()):
        yield AFTER_DEATH, after_death(table), "are dated more than 60 days after their person's death"


def _empty(engine: Engine, used: list[str]) -> Iterator[Finding]:
    for table in used:
        if engine.query(f"SELECT person_id FROM {table} LIMIT 1", f"the keys of {table}").height == 0:
            yield Finding("data-table-empty", table, "", "are in it: the table is empty", ())


def _twice(table: str) -> str:
    return f"SELECT {table}_id AS place FROM {table} GROUP BY {table}_id HAVING COUNT(*) > 1"


def _strangers(engine: Engine, used: list[str]) -> Iterator[Finding]:
    for table in used:
        known = f"SELECT 1 FROM person AS p WHERE p.person_id = {table}.person_id"
        sql = f"SELECT {table}_id AS place FROM {table} WHERE NOT EXISTS ({known})"
        yield from _find(engine, table, sql, "data-person-unknown", "person_id", "belong to nobody in the table person")


def _horizon(mapping: OmopMapping, today: date) -> date:
    """The last day of which a row can tell: today, or the end of the longest outcome window if that is later."""
    windows = [rows.within_days or 0 for rows in mapping.outcomes.values()]
    return max(today, mapping.snapshot + timedelta(days=max(windows, default=0)))


def _future(engine: Engine, used: list[str], last: date) -> Iterator[Finding]:
    for table in used:
        sql = f"SELECT {table}_id AS place FROM {table} WHERE {DATE_COLUMN[table]} > DATE '{last}'"
        yield from _find(engine, table, sql, FUTURE, DATE_COLUMN[table], "are dated in the future")


def _mixed_units(engine: Engine, mapping: OmopMapping) -> Iterator[Finding]:
    """Measurements of one fact in several units, where the source says in which: the rows in all but the commonest."""
    there = engine.query(COLUMNS_SQL, "the list of columns").filter(pl.col("table_name") == "measurement")
    if "unit_concept_id" not in there["column_name"].str.to_lowercase():
        return
    for name, rows in mapping.facts.items():
        if rows.table != "measurement" or rows.value != "value_as_number":
            continue
        mine = f"measurement_concept_id IN ({', '.join(map(str, rows.concepts))})" if rows.concepts else "1 = 1"
        given = f"{mine} AND value_as_number IS NOT NULL AND COALESCE(unit_concept_id, 0) <> 0"
        common = (
            f"SELECT unit_concept_id FROM measurement WHERE {given} GROUP BY unit_concept_id "
            "ORDER BY COUNT(*) DESC, unit_concept_id LIMIT 1"
        )
        sql = f"SELECT measurement_id AS place FROM measurement WHERE {given} AND unit_concept_id <> ({common})"
        yield from _find(engine, "measurement", sql, "data-mixed-units", name, "are in another unit than the others")


def _find(engine: Engine, table: str, sql: str, code: str, column: str, problem: str) -> Iterator[Finding]:
    keys, _ = _keys(engine, table, sql)
    if keys:
        yield Finding(code, table, column, problem, keys)


def _keys(engine: Engine, table: str, sql: str) -> tuple[tuple[int, ...], set[int]]:
    found = engine.query(f"SELECT * FROM ({sql}) AS found LIMIT {MOST_ROWS}", f"the keys of {table}")
    keys = found["place"].cast(pl.Int64, strict=False).drop_nulls().sort()
    return tuple(keys.to_list()), set(found["person_id"].to_list()) if "person_id" in found.columns else set()
