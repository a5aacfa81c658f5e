"""One way of evaluating the made-up rules, in a process of its own, so that CPU time and peak memory are its alone.

python -m cameo_lab.bench.tags_ways, one JSON object on standard input (see `Work`), one on standard output: cpu_s
(median of the repeats), peak_mb (resident, of the process until the first evaluation ends), sha256 of all answers and
of the first `sample` patients'.
"""

from __future__ import annotations

import hashlib
import json
import operator
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cameo_client.data.catalogue import load_catalogue
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.predicate import And, Compare, Leaf, Missing, Not, OneOf, Or, Surely, Tree, to_sql
from cameo_client.tags.schema import Schema, schema_of
from cameo_lab.bench.peak import peak_mb
from cameo_lab.bench.tags_made import FACTS, made_rules
from cameo_protocol.errors import Bug

if TYPE_CHECKING:
    import polars as pl

Cell = bool | None
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a process is asked for. file: Parquet of `made_patients`. sample: rows of the row-wise ways."""

    way: str
    file: str
    rules: int
    seed: int
    repeats: int
    sample: int


def engine(work: Work, rules: Sequence[BoundRule], schema: Schema) -> dict[str, Any]:
    """Ours: `prepare` and `derive` on facts in memory; the answers are Polars columns."""
    import polars as pl

    from cameo_client.tags.engine import derive, prepare

    facts = pl.read_parquet(work.file, memory_map=False)
    figures, answers = _timed(work, lambda: derive(prepare(facts, schema, FACTS), rules, {}))
    return figures | {"sha256": digest(answers), "sha256_sample": digest(answers.head(work.sample))}


def duckdb(work: Work, rules: Sequence[BoundRule], schema: Schema) -> dict[str, Any]:
    """DuckDB on a table in memory, one SELECT of all predicates, the answers as Polars columns."""
    import duckdb as duck
    import polars as pl

    with duck.connect() as db:
        db.execute(f"CREATE TABLE t AS SELECT {_facts_sql(schema)} FROM read_parquet(?)", [work.file])  # noqa: S608
        sql = f"SELECT {select(rules)} FROM t"  # noqa: S608 - canonical text of checked trees
        figures, answers = _timed(work, lambda: pl.DataFrame(db.sql(sql)))
    return figures | {"sha256": digest(answers), "sha256_sample": digest(answers.head(work.sample))}


def sqlite(work: Work, rules: Sequence[BoundRule], _: Schema) -> dict[str, Any]:
    """SQLite, which goes through a table row by row, into a second table; on the sample."""
    import sqlite3

    import polars as pl

    head = pl.read_parquet(work.file, n_rows=work.sample).fill_nan(None)
    with sqlite3.connect(":memory:") as db:
        names = ", ".join(("pseudonym", *FACTS))
        db.execute(f"CREATE TABLE t ({names})")
        marks = ", ".join("?" * (len(FACTS) + 1))
        db.executemany(f"INSERT INTO t VALUES ({marks})", head.iter_rows())  # noqa: S608

        def evaluate() -> None:
            db.execute("DROP TABLE IF EXISTS answers")
            db.execute(f"CREATE TABLE answers AS SELECT {select(rules)} FROM t ORDER BY t.rowid")  # noqa: S608

        figures, _ = _timed(work, evaluate)
        rows = db.execute("SELECT * FROM answers ORDER BY rowid").fetchall()
    answers = pl.DataFrame(rows, schema=[f"r{number}" for number in range(len(rules))], orient="row")
    return figures | {"sha256_sample": digest(answers)}


def rowwise(work: Work, rules: Sequence[BoundRule], _: Schema) -> dict[str, Any]:
    """Each rule as nested Python functions, called patient by patient, as rule engines do; on the sample."""
    import polars as pl

    head = pl.read_parquet(work.file, n_rows=work.sample).fill_nan(None)
    patients = list(head.iter_rows(named=True))
    tests = [closure(rule.enter) for rule in rules]
    figures, rows = _timed(work, lambda: [[test(patient) for test in tests] for patient in patients])
    answers = pl.DataFrame(rows, schema=dict.fromkeys((rule.key for rule in rules), pl.Boolean), orient="row")
    return figures | {"sha256_sample": digest(answers)}


WAYS: dict[str, Callable[[Work, Sequence[BoundRule], Schema], dict[str, Any]]] = {
    "engine": engine, "duckdb": duckdb, "sqlite": sqlite, "rowwise": rowwise,
}  # fmt: skip


def closure(tree: Tree) -> Callable[[Row], Cell]:
    """A predicate as a Python function of one patient, with SQL's three answers."""
    if isinstance(tree, Not):
        inner = closure(tree.part)
        return lambda row: None if (answer := inner(row)) is None else not answer
    if isinstance(tree, And | Or):
        parts = [closure(part) for part in tree.parts]
        decisive = isinstance(tree, Or)

        def joined(row: Row) -> Cell:
            answer: Cell = not decisive
            for part in parts:
                one = part(row)
                if one is decisive:
                    return decisive
                answer = None if one is None else answer
            return answer

        return joined
    return _leaf(tree)


def _leaf(leaf: Leaf) -> Callable[[Row], Cell]:
    name = leaf.column
    if isinstance(leaf, Missing):
        return lambda row: row[name] is None
    if isinstance(leaf, Surely):
        wanted = leaf.value
        return lambda row: row[name] is wanted
    if isinstance(leaf, OneOf):
        values = leaf.values
        return lambda row: None if (value := row[name]) is None else value in values
    return _compare(leaf)


def _compare(leaf: Compare) -> Callable[[Row], Cell]:
    operators: dict[str, Callable[[Any, Any], bool]] = {
        "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    }  # fmt: skip
    test, name, value = operators[leaf.op], leaf.column, leaf.value
    return lambda row: None if (found := row[name]) is None else test(found, value)


def _facts_sql(schema: Schema) -> str:
    """The facts as DuckDB reads them: NaN is unknown, as in ours."""
    number = {name for name in FACTS if schema.column(name).kind == "number" and not schema.column(name).whole}
    return ", ".join(f"CASE WHEN isnan({name}) THEN NULL ELSE {name} END AS {name}" if name in number else name
                     for name in FACTS)  # fmt: skip


def select(rules: Sequence[BoundRule]) -> str:
    """The SELECT list of all rules' predicates."""
    return ", ".join(f"({to_sql(rule.enter)}) AS r{number}" for number, rule in enumerate(rules))


def _timed(work: Work, evaluate: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """CPU seconds (median), the memory peak of the first evaluation, and the answers."""
    seconds, answers, peak = [], None, 0.0
    for _ in range(work.repeats):
        answers = None  # the former answers are not part of this one's memory
        began = time.process_time()
        answers = evaluate()
        seconds.append(time.process_time() - began)
        peak = peak or peak_mb()
    return {"cpu_s": median(seconds), "peak_mb": peak}, answers


def digest(answers: pl.DataFrame) -> str:
    """Hash of every cell, rule by rule: 1 true, 0 false, 2 unknown."""
    import polars as pl

    found = hashlib.sha256()
    for column in answers.iter_columns():
        found.update(column.cast(pl.UInt8).fill_null(2).to_numpy().data)
    return found.hexdigest()


def main() -> None:
    """Do the work that standard input asks for, and print what it took."""
    work = Work(**json.loads(sys.stdin.readline()))
    if not Path(work.file).is_file():
        raise Bug("bench-tags", what="the patients' file is not there")
    schema = schema_of(load_catalogue("cardiometabolic"))
    found = WAYS[work.way](work, made_rules(schema, work.rules, work.seed), schema)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
