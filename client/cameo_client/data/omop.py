"""Reading an OMOP source with DuckDB: a database file, opened read-only, or a folder of Parquet or CSV files.

Everything heavy happens in SQL; here the derived columns are put side by side as the text table that the common door
types and checks. The connection can read this source and nothing else: other files and the network are shut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cameo_client.data.findings import bad_file
from cameo_client.data.omop_mapping import OmopMapping, OmopSource
from cameo_client.data.omop_sql import fact_sql, outcome_sql
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, Fact

if TYPE_CHECKING:
    import duckdb

_SAFE_PATH = re.compile(r"[^'\0\n*?\[\]{}]+")
_SETTINGS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}


def read_omop(source: OmopSource, catalogue: Catalogue) -> pl.DataFrame:
    """One row a person as text: `person_id`, the mapped facts and outcomes; null = not known.

    A person without rows: a count or "ever" fact that may not be missing is 0, everything else is null.
    """
    mapping = source.mapping
    mapping.check(catalogue)
    with _open(source) as (db, tables):
        _check_tables(source, tables)
        frame = _persons(db, mapping)
        if frame.height == 0:
            raise bad_file("data-empty", f"{source.path.name}: the table person is empty", "check the source")
        related = "concept_ancestor" in tables
        for name, rows in mapping.facts.items():
            fact = catalogue.fact(name)
            sql = fact_sql(fact, rows, mapping.snapshot, descendants=related)
            frame = _join(frame, _fetch(db, source, name, sql), name, zero=_zero(fact))
        for name, rows in mapping.outcomes.items():
            sql = outcome_sql(rows, mapping.snapshot, descendants=related)
            frame = _join(frame, _fetch(db, source, name, sql), name, zero=False)
    return frame.drop("key")


def _zero(fact: Fact) -> bool:
    return fact.derive.how in ("count", "ever") and not fact.missing


@contextmanager
def _open(source: OmopSource) -> Iterator[tuple[duckdb.DuckDBPyConnection, set[str]]]:
    """A connection and the names of its tables; every DuckDB error inside becomes an `OperatorError` without values."""
    try:
        import duckdb
    except ImportError:
        raise OperatorError(
            "duckdb-missing", what="an OMOP source is read with DuckDB, which is not installed", do="pip install duckdb"
        ) from None
    path = source.path.resolve()
    if not path.exists():
        raise bad_file("data-missing-file", f"{path.name}: no such file or folder", "check the path of the source")
    db = None
    try:
        files = _files(path) if path.is_dir() else None
        target = str(path) if files is None else ":memory:"
        db = duckdb.connect(target, read_only=files is None, config=dict(_SETTINGS))
        allowed = f"['{path}/']" if files is not None else "[]"
        for statement in (f"SET allowed_directories = {allowed}", "SET enable_external_access = false"):
            db.execute(statement)
        db.execute("SET lock_configuration = true")
        for table, reader in (files or {}).items():
            db.execute(f"CREATE VIEW {table} AS SELECT * FROM {reader}")  # noqa: S608 - names checked in _files
        yield db, {row[0] for row in db.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    except duckdb.Error as error:
        raise bad_file(
            "data-unreadable",
            f"{path.name}: DuckDB cannot read it as OMOP CDM 5.4 ({type(error).__name__})",
            "check that the tables have their standard columns",
        ) from None
    finally:
        if db is not None:
            db.close()


def _files(folder: Path) -> dict[str, str]:
    """Table name -> DuckDB's reader of TABLE.parquet, TABLE.csv, or the parts in a folder TABLE."""
    if not _SAFE_PATH.fullmatch(str(folder)):
        raise bad_file("data-path", f"{folder.name}: a quote or wildcard in the path", "name a plain path")
    found: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        name = entry.stem if entry.is_file() else entry.name
        if not re.fullmatch(r"[a-z_]{1,40}", name):
            continue
        if entry.suffix == ".parquet":
            found[name] = f"read_parquet('{entry}')"
        elif entry.suffix == ".csv":
            found[name] = f"read_csv('{entry}', header = true)"
        elif entry.is_dir() and any(entry.glob("*.parquet")):
            found[name] = f"read_parquet('{entry}/*.parquet')"
    return found


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


def _persons(db: duckdb.DuckDBPyConnection, mapping: OmopMapping) -> pl.DataFrame:
    """`key` (person_id of the tables) and `person_id` (the id from which pseudonyms are made, as text)."""
    rows = db.execute(f"SELECT person_id, CAST({mapping.person_id} AS VARCHAR) FROM person").fetchall()  # noqa: S608
    return pl.DataFrame(rows, schema={"key": pl.Int64, "person_id": pl.String}, orient="row").with_columns(
        pl.col("person_id").str.strip_chars().replace({"": None})
    )


def _fetch(db: duckdb.DuckDBPyConnection, source: OmopSource, name: str, sql: str) -> pl.DataFrame:
    """(key, value) as text; a person with two values is a fault of the source, for instance a person listed twice."""
    columns = db.execute(sql).fetchnumpy()
    keys, values = np.ma.getdata(columns["person_id"]), columns["value"]
    known = ~np.ma.getmaskarray(values)
    series = pl.Series("value", np.ma.getdata(values)[known].tolist() if values.dtype == object else values[known])
    found = pl.DataFrame({"key": pl.Series(keys[known]).cast(pl.Int64), name: series.cast(pl.String)})
    if found["key"].is_duplicated().any():
        raise bad_file(
            "data-duplicate-id", f"{source.path.name}: {name} has two values for one person", "check the table person"
        )
    return found


def _join(frame: pl.DataFrame, values: pl.DataFrame, name: str, *, zero: bool) -> pl.DataFrame:
    joined = frame.join(values, on="key", how="left", maintain_order="left")
    return joined.with_columns(pl.col(name).fill_null("0")) if zero else joined
