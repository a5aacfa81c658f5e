"""Where an OMOP source's SQL runs: DuckDB (a database file or a folder of table files) or PostgreSQL.

Both engines only read, and only this source: DuckDB may open no other file and no network, PostgreSQL sessions are
read-only with a time limit (`postgres.py`). Errors of an engine quote rows, so they are replaced by our own and never
chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from cameo_client.data.database import Database
from cameo_client.data.findings import MISSING_DO, bad_file, shown
from cameo_client.data.omop_mapping import COLUMN_TYPE
from cameo_client.data.scratch import private_folder
from cameo_client.data.table import check_bytes
from cameo_protocol.errors import OperatorError

if TYPE_CHECKING:
    import duckdb

_PATH = re.compile(r"[^'\0\n*?\[\]{}]+")
_TABLE = re.compile(r"[a-z_]{1,40}")


class Engine(Protocol):
    """Runs SQL that both engines read alike."""

    def tables(self) -> set[str]:
        """Names of the source's tables, lower case."""
        ...

    def query(self, sql: str, about: str) -> pl.DataFrame:
        """The rows of one SELECT. about: what an error says could not be read."""
        ...


@contextmanager
def open_engine(place: Path | Database, scratch: Path | None = None) -> Iterator[Engine]:
    """The engine for where a source lies; closed at the end.

    place: a folder with TABLE.parquet, TABLE.csv or TABLE/*.parquet; a DuckDB file; or a PostgreSQL database.
    scratch: where CSV files are loaded to and queries spill; see `private_folder`.
    """
    if isinstance(place, Database):
        from cameo_client.data.postgres import open_postgres

        with open_postgres(place) as engine:
            yield engine
        return
    if not place.exists():
        raise bad_file("data-missing-file", f"{place}: no such file or folder", MISSING_DO)
    with _duckdb(place.resolve(), scratch) as local:
        yield local


class _DuckDB:
    def __init__(self, db: duckdb.DuckDBPyConnection, path: Path) -> None:
        self._db, self._path = db, path

    def tables(self) -> set[str]:
        return set(self.query("SELECT table_name FROM information_schema.tables", "its list of tables")["table_name"])

    def query(self, sql: str, about: str) -> pl.DataFrame:
        import duckdb

        try:
            found = self._db.execute(sql).fetchnumpy()
        except duckdb.Error as error:
            raise _unreadable(self._path, about, error) from None
        return pl.DataFrame([_series(name, values) for name, values in found.items()])


def _series(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> pl.Series:
    """A column of `fetchnumpy`: masked entries are null (a NaN among numbers stays a NaN, which the door refuses)."""
    data = np.ma.getdata(values)
    series = pl.Series(name, data.tolist(), dtype=pl.String) if data.dtype == object else pl.Series(name, data)
    return series.set(pl.Series(np.ma.getmaskarray(values)), None)


@contextmanager
def _duckdb(path: Path, scratch: Path | None) -> Iterator[Engine]:
    import duckdb

    files = _files(path) if path.is_dir() else None
    with private_folder(scratch) as private:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "temp_directory": str(private / "spill"),
        }
        target = path if files is None else private / "cdm.duckdb"
        try:
            db = duckdb.connect(str(target), read_only=files is None, config=settings)
        except duckdb.Error as error:
            raise _unreadable(path, "it as a database", error) from None
        with db:
            _lock(db, path if files else None)
            for table, reader in (files or {}).items():
                _attach(db, path, table, reader)
            yield _DuckDB(db, path)


def _lock(db: duckdb.DuckDBPyConnection, folder: Path | None) -> None:
    """From here on the session opens no file outside this folder, no network, and cannot be told otherwise."""
    db.execute(f"SET allowed_directories = {'[]' if folder is None else [f'{folder}/']}")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def _attach(db: duckdb.DuckDBPyConnection, path: Path, table: str, reader: str) -> None:
    """Parquet is read where it lies; CSV is loaded once, because every fact would parse it anew."""
    import duckdb

    try:
        if reader.startswith("read_csv"):
            _load_csv(db, path, table, reader)
        else:
            db.execute(f"CREATE VIEW {table} AS SELECT * FROM {reader}")  # noqa: S608 - names checked in _files
    except duckdb.Error as error:
        raise _unreadable(path, f"the table {table}", error) from None


def _load_csv(db: duckdb.DuckDBPyConnection, path: Path, table: str, reader: str) -> None:
    """The columns that are ever read, each cell checked against its type."""
    _check_text(path, table)
    names = [row[0] for row in db.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]  # noqa: S608
    kept = {name: COLUMN_TYPE[name.lower()] for name in names if name.lower() in COLUMN_TYPE}
    if not kept:
        raise bad_file(
            "data-no-columns",
            f"{path.name}: {table}.csv cannot be read as columns of OMOP CDM 5.4",
            "check its header, its delimiter, its quotes, and that all lines have as many fields",
        )
    columns = ", ".join(kept)
    db.execute(f"CREATE TABLE raw AS SELECT {columns} FROM {reader}")  # noqa: S608 - names of a closed list
    for name, kind in kept.items():
        bad = f"SELECT COUNT(*) FROM raw WHERE {name} IS NOT NULL AND TRY_CAST({name} AS {kind}) IS NULL"  # noqa: S608
        found = db.execute(bad).fetchone()
        if found and found[0]:
            raise bad_file(
                "data-type",
                f"{path.name}: {table}.csv, column {name.lower()}: {shown(found[0])} rows hold no {kind}",
                "correct the export of this column",
            )
    typed = ", ".join(f"CAST({name} AS {kind}) AS {name.lower()}" for name, kind in kept.items())
    db.execute(f"CREATE TABLE {table} AS SELECT {typed} FROM raw")  # noqa: S608
    db.execute("DROP TABLE raw")


def _check_text(folder: Path, table: str) -> None:
    """Refuse bytes that are no text, and a delimiter other than the comma, before a lenient reader sees them."""
    file = folder / f"{table}.csv"
    check_bytes(file)
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    if "," not in first and any(mark in first for mark in ";\t|"):
        raise bad_file(
            "data-delimiter",
            f"{file.name}: the first line has one field, so its delimiter is no comma",
            "export it with commas",
        )


def _files(folder: Path) -> dict[str, str]:
    """Table name -> DuckDB's reader of its file or of its parts."""
    if not _PATH.fullmatch(str(folder)):
        raise bad_file("data-path", f"{folder.name}: a quote or wildcard in the path", "name a plain path")
    found: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        name = entry.stem if entry.is_file() else entry.name
        if not _TABLE.fullmatch(name):
            continue
        if entry.suffix == ".parquet":
            found[name] = f"read_parquet('{entry}')"
        elif entry.suffix == ".csv":
            found[name] = f"read_csv('{entry}', header = true, all_varchar = true)"
        elif entry.is_dir() and any(entry.glob("*.parquet")):
            found[name] = f"read_parquet('{entry}/*.parquet')"
    return found


def _unreadable(path: Path, about: str, error: Exception) -> OperatorError:
    return bad_file(
        "data-unreadable",
        f"{path.name}: DuckDB cannot read {about} as OMOP CDM 5.4 ({type(error).__name__})",
        "check that this user may read it and that its tables have their standard columns",
    )
