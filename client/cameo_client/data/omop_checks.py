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
BEFORE_BIRTH, AFTER_DEATH = "data-before-birth", "data-after-death"
COLUMNS_SQL = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = ANY (current_schemas(true))"
)


@dataclass(frozen=True, eq=False)
class RowFaults:
    """empty: tables without rows. bad: rows that no fact is made from. twice: rows whose key another row has.

    units: rows in another unit than the others of their fact. dates: events of a person before birth or long after
    death; contradicted: those persons' `person_id`.
    """

    empty: tuple[Finding, ...] = ()
    bad: tuple[Finding, ...] = ()
    units: tuple[Finding, ...] = ()
    twice: tuple[Finding, ...] = ()
    dates: tuple[Finding, ...] = ()
    contradicted: frozenset[int] = field(default=frozenset(), repr=False)


def row_faults(engine: Engine, mapping: OmopMapping, tables: set[str], today: date | None) -> RowFaults:
    """Everything that is wrong with single rows. today: when known, rows of the future are faults."""
    used = _used(mapping)
    bad = [*_strangers(engine, used), *(_future(engine, used, _horizon(mapping, today)) if today else ())]
    dates, people = _contradictions(engine, mapping, tables, used)
    return RowFaults(
        empty=tuple(_empty(engine, used)),
        bad=tuple(bad),
        units=tuple(_mixed_units(engine, mapping)) if "measurement" in used else (),
        twice=tuple(_twice(engine, used)),
        dates=tuple(dates),
        contradicted=frozenset(people),
    )


def persons_twice(engine: Engine) -> tuple[Finding, ...]:
    """Persons who are listed more than once."""
    sql = "SELECT person_id AS place FROM person GROUP BY person_id HAVING COUNT(*) > 1"
    problem = "have the person_id of another row"
    return tuple(
        Finding("data-duplicate-id", "person", "person_id", problem, keys) for keys in _keys(engine, "person", sql)
    )


def _used(mapping: OmopMapping) -> list[str]:
    rows = (*mapping.facts.values(), *mapping.outcomes.values())
    return sorted({one.table for one in rows} & CONCEPT_COLUMN.keys())


def _contradictions(
    engine: Engine, mapping: OmopMapping, tables: set[str], used: list[str]
) -> tuple[list[Finding], set[int]]:
    """Rows up to the snapshot whose date contradicts their person's birth or death, and the persons."""
    found: list[Finding] = []
    people: set[int] = set()
    born = any(rows.value == "birth_datetime" for rows in mapping.facts.values())
    died = "death" in tables and any(rows.table == "death" for rows in mapping.facts.values())
    for table in used:
        day = DATE_COLUMN[table]
        select = f"SELECT {table}_id AS place, person_id FROM {table} WHERE {day} <= DATE '{mapping.snapshot}' AND "
        for keys in _keys(engine, table, select + before_birth(table), people) if born else ():
            found.append(Finding("data-before-birth", table, day, "are dated before their person's birth", keys))
        for keys in _keys(engine, table, select + after_death(table), people) if died else ():
            problem = "are dated more than 60 days after their person's death"
            found.append(Finding("data-after-death", table, day, problem, keys))
    return found, people


def _empty(engine: Engine, used: list[str]) -> Iterator[Finding]:
    for table in used:
        if engine.query(f"SELECT person_id FROM {table} LIMIT 1", f"the keys of {table}").height == 0:
            yield Finding("data-table-empty", table, "", "are in it: the table is empty", ())


def _twice(engine: Engine, used: list[str]) -> Iterator[Finding]:
    for table in used:
        sql = f"SELECT {table}_id AS place FROM {table} GROUP BY {table}_id HAVING COUNT(*) > 1"
        for keys in _keys(engine, table, sql):
            yield Finding("data-duplicate-row", table, f"{table}_id", "have the key of another row", keys)


def _strangers(engine: Engine, used: list[str]) -> Iterator[Finding]:
    for table in used:
        known = f"SELECT 1 FROM person AS p WHERE p.person_id = {table}.person_id"
        sql = f"SELECT {table}_id AS place FROM {table} WHERE NOT EXISTS ({known})"
        for keys in _keys(engine, table, sql):
            yield Finding("data-person-unknown", table, "person_id", "belong to nobody in the table person", keys)


def _horizon(mapping: OmopMapping, today: date) -> date:
    """The last day of which a row can tell: today, or the end of the longest outcome window if that is later."""
    windows = [rows.within_days or 0 for rows in mapping.outcomes.values()]
    return max(today, mapping.snapshot + timedelta(days=max(windows, default=0)))


def _future(engine: Engine, used: list[str], last: date) -> Iterator[Finding]:
    for table in used:
        day = DATE_COLUMN[table]
        for keys in _keys(engine, table, f"SELECT {table}_id AS place FROM {table} WHERE {day} > DATE '{last}'"):
            yield Finding("data-future-date", table, day, "are dated in the future", keys)


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
        for keys in _keys(engine, "measurement", sql):
            yield Finding("data-mixed-units", "measurement", name, "are in another unit than the others", keys)


def _keys(engine: Engine, table: str, sql: str, people: set[int] | None = None) -> Iterator[tuple[int, ...]]:
    """The column `place` of a query, once, where it has rows; its `person_id` are added to people."""
    found = engine.query(f"SELECT * FROM ({sql}) AS found LIMIT {MOST_ROWS}", f"the keys of {table}")
    if found.height:
        if people is not None:
            people |= set(found["person_id"].to_list())
        yield tuple(found["place"].cast(pl.Int64, strict=False).fill_null(0).sort().to_list())
