"""One SQL text a fact: from dated OMOP rows to one value a person.

Pure text, in the SQL that DuckDB and PostgreSQL read alike. Every window ends at the snapshot date at the latest, so a
fact never sees what a label predicts; an outcome's window starts the day after it. Each text yields (person_id,
value): a FLOAT8, or a VARCHAR for words; persons without a row have none, and what that means is decided by
`cameo_client.data.omop`.
"""

# ruff: noqa: S608 - every name in these texts comes from a closed list and every value is a number or a date
from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from cameo_client.data.omop_mapping import CONCEPT_COLUMN, DATE_COLUMN, NUMBERS, OmopRows
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Fact

DAYS_A_YEAR = 365.25
AFTER_DEATH_DAYS = 60


@dataclass(frozen=True)
class Cleaning:
    """Which rows are passed over: repeated ones, those before birth, those long after death."""

    repeated: bool = False
    before_birth: bool = False
    after_death: bool = False


AS_IT_IS = Cleaning()


def before_birth(table: str) -> str:
    """True for rows of a table that are dated before their person's birth."""
    born = f"p.person_id = {table}.person_id AND {table}.{DATE_COLUMN[table]} < CAST(p.birth_datetime AS DATE)"
    return f"EXISTS (SELECT 1 FROM person AS p WHERE {born})"


def after_death(table: str) -> str:
    """True for rows of a table that are dated long after their person's death."""
    late = f"{table}.{DATE_COLUMN[table]} - d.death_date > {AFTER_DEATH_DAYS}"
    return f"EXISTS (SELECT 1 FROM death AS d WHERE d.person_id = {table}.person_id AND {late})"


def fact_sql(fact: Fact, rows: OmopRows, snapshot: date, *, descendants: bool, clean: Cleaning = AS_IT_IS) -> str:
    """The derivation of one fact. descendants: the source has the table `concept_ancestor`.

    A combination of table, value and way of deriving that makes no sense is an `OperatorError`.
    """
    if rows.table == "person":
        return _person(fact, rows, snapshot)
    first = None if fact.derive.lookback_days is None else snapshot - timedelta(days=fact.derive.lookback_days)
    events = _events(rows, first, snapshot - timedelta(days=fact.derive.until_days), descendants, clean)
    how, day = fact.derive.how, f"DATE '{snapshot}'"
    if how in ("last", "given") and rows.value:
        latest = "ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY day DESC, place DESC)"
        ranked = f"SELECT person_id, value, {latest} AS rank FROM ({events}) AS e WHERE value IS NOT NULL"
        return f"SELECT person_id, value FROM ({ranked}) AS r WHERE rank = 1"
    if how == "streak" and rows.value in NUMBERS and rows.above is not None:
        return _streak(events, rows.above, day)
    formula = {
        "count": "CAST(COUNT(*) AS FLOAT8)",
        "ever": "MAX(value)" if rows.value in NUMBERS else "CAST(1 AS FLOAT8)",
        "mean": "AVG(value)" if rows.value in NUMBERS else "",
        "share": "AVG(value)" if rows.value in NUMBERS else "",
        "days_since": f"CAST({day} - MAX(day) AS FLOAT8)",
        "years_since": f"CAST({day} - MIN(day) AS FLOAT8) / {DAYS_A_YEAR}",
    }.get(how, "")
    if not formula:
        raise OperatorError(
            "source-mismatch",
            what=f"{fact.name} is derived as {how!r}, for which {rows.table} needs another `value` or `above`",
            do="correct the mapping of this fact",
        )
    return f"SELECT person_id, {formula} AS value FROM ({events}) AS e GROUP BY person_id"


def outcome_sql(rows: OmopRows, snapshot: date, *, descendants: bool, clean: Cleaning = AS_IT_IS) -> str:
    """1 where an event falls within the window after the snapshot date, 0 where the person was observed to its end.

    Persons who were observed for a shorter time and had no event have no row: their outcome is not known. With
    `absent` 1 and 0 change places, and an early end of observation leaves only those who had the event.
    """
    end = snapshot + timedelta(days=rows.within_days or 0)
    events = _events(rows, snapshot + timedelta(days=1), end, descendants, clean)
    happened = f"SELECT DISTINCT person_id FROM ({events}) AS e"
    seen = f"SELECT DISTINCT person_id FROM observation_period WHERE observation_period_end_date >= DATE '{end}'"
    yes, no = ("0", "1") if rows.absent else ("1", "0")
    return (
        f"SELECT person_id, CAST({yes} AS FLOAT8) AS value FROM ({happened}) AS h UNION ALL "
        f"SELECT person_id, CAST({no} AS FLOAT8) AS value FROM ({seen}) AS s "
        f"WHERE person_id NOT IN ({happened})"
    )


def _person(fact: Fact, rows: OmopRows, snapshot: date) -> str:
    if rows.value == "birth_datetime":
        age = f"CAST(DATE '{snapshot}' - CAST(birth_datetime AS DATE) AS FLOAT8)"
        years = f" / {DAYS_A_YEAR}" if fact.unit == "years" else ""
        return f"SELECT person_id, {age}{years} AS value FROM person WHERE birth_datetime IS NOT NULL"
    return f"SELECT person_id, CAST({rows.value} AS VARCHAR) AS value FROM person WHERE {rows.value} IS NOT NULL"


def _events(rows: OmopRows, first: date | None, last: date, descendants: bool, clean: Cleaning) -> str:
    """person_id, day, value and `place` (which orders rows of one day) of the rows of one table in a window."""
    day = DATE_COLUMN[rows.table]
    place = "0" if rows.table == "death" else f"{rows.table}_id"
    value = "NULL" if rows.value is None else rows.value
    kind = "FLOAT8" if rows.value is None or rows.value in NUMBERS else "VARCHAR"
    tests = [f"{day} <= DATE '{last}'", *_passed_over(rows.table, clean)]
    if first is not None:
        tests.append(f"{day} >= DATE '{first}'")
    if rows.concepts:
        column, listed = CONCEPT_COLUMN[rows.table], ", ".join(map(str, rows.concepts))
        below = f"SELECT descendant_concept_id FROM concept_ancestor WHERE ancestor_concept_id IN ({listed})"
        tests.append(f"({column} IN ({listed}){f' OR {column} IN ({below})' if descendants else ''})")
    return (
        f"SELECT {'DISTINCT ' if clean.repeated else ''}person_id, {day} AS day, "
        f"CAST({value} AS {kind}) AS value, {place} AS place "
        f"FROM {rows.table} WHERE {' AND '.join(tests)}"
    )


def _passed_over(table: str, clean: Cleaning) -> list[str]:
    """What a row must meet besides its window. A death is what the others are held against, so it is taken as it is."""
    tests = []
    if clean.before_birth and table != "death":
        tests.append(f"NOT {before_birth(table)}")
    if clean.after_death and table != "death":
        tests.append(f"NOT {after_death(table)}")
    return tests


def _streak(events: str, above: float, day: str) -> str:
    """Days in a row, the snapshot date being the first, whose highest value is above the bound; 0 with other days only.

    The k-th latest high day belongs to the streak exactly when it lies k - 1 days before the snapshot date.
    """
    days = (
        f"SELECT person_id, day, MAX(value) AS top FROM ({events}) AS e WHERE value IS NOT NULL GROUP BY person_id, day"
    )
    latest = "ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY day DESC)"
    return (
        f"WITH days AS ({days}), high AS (SELECT person_id, day, {latest} AS rank FROM days WHERE top > {above!r}), "
        f"run AS (SELECT person_id, COUNT(*) AS length FROM high WHERE {day} - day = rank - 1 GROUP BY person_id) "
        "SELECT p.person_id, CAST(COALESCE(run.length, 0) AS FLOAT8) AS value "
        "FROM (SELECT DISTINCT person_id FROM days) AS p LEFT JOIN run ON run.person_id = p.person_id"
    )
