"""Where an OMOP source's SQL runs: DuckDB (a database file or a folder of table files) or PostgreSQL.

Both engines only read, and only this source: DuckDB may open no other file and no network, PostgreSQL sessions are
read-only with a time limit. Errors of an engine quote rows, so they are replaced by our own and never chained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from cameo_client.data.findings import bad_file
from cameo_protocol.errors import OperatorError

if TYPE_CHECKING:
    import duckdb

POSTGRES_SUFFIX = ".postgres"
STATEMENT_SECONDS = 600
_PATH = re.compile(r"[^'\0\n*?\[\]{}]+")
_TABLE = re.compile(r"[a-z_]{1,40}")


class Engine(Protocol):
    """Runs SQL that both engines read alike."""

    def tables(self) -> set[str]:
        """Names of the source's tables, lower case."""
        ...

    def query(self, sql: str) -> pl.DataFrame:
        """The rows of one SELECT."""
        ...


@contextmanager
def open_engine(path: Path) -> Iterator[Engine]:
    """The engine for a source's path; closed at the end.

    path: a folder with TABLE.parquet, TABLE.csv or TABLE/*.parquet; a DuckDB file; or a file whose name ends in
    .postgres, readable by its owner only, whose one line is a libpq connection string.
    """
    if not path.exists():
        raise bad_file("data-missing-file", f"{path.name}: no such file or folder", "check the path of the source")
    with _postgres(path) if path.suffix == POSTGRES_SUFFIX else _duckdb(path.resolve()) as engine:
        yield engine


class _DuckDB:
    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db

    def tables(self) -> set[str]:
        return {row[0] for row in self._db.execute("SELECT table_name FROM information_schema.tables").fetchall()}

    def query(self, sql: str) -> pl.DataFrame:
        return pl.DataFrame([_series(name, values) for name, values in self._db.execute(sql).fetchnumpy().items()])


def _series(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> pl.Series:
    """A column of `fetchnumpy`: masked entries are null (a NaN among numbers stays a NaN, which the door refuses)."""
    data = np.ma.getdata(values)
    series = pl.Series(name, data.tolist(), dtype=pl.String) if data.dtype == object else pl.Series(name, data)
    return series.set(pl.Series(np.ma.getmaskarray(values)), None)


@contextmanager
def _duckdb(path: Path) -> Iterator[Engine]:
    try:
        import duckdb
    except ImportError:
        raise _no_driver("duckdb") from None
    db = None
    try:
        files = _files(path) if path.is_dir() else None
        settings: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        target = str(path) if files is None else ":memory:"
        db = duckdb.connect(target, read_only=files is None, config=settings)
        db.execute(f"SET allowed_directories = {'[]' if files is None else [f'{path}/']}")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        for table, reader in (files or {}).items():
            db.execute(f"CREATE VIEW {table} AS SELECT * FROM {reader}")  # noqa: S608 - names checked in _files
        yield _DuckDB(db)
    except duckdb.Error as error:
        raise _unreadable(path, f"DuckDB cannot read it as OMOP CDM 5.4 ({type(error).__name__})") from None
    finally:
        if db is not None:
            db.close()


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
            found[name] = f"read_csv('{entry}', header = true)"
        elif entry.is_dir() and any(entry.glob("*.parquet")):
            found[name] = f"read_parquet('{entry}/*.parquet')"
    return found


class _Postgres:
    def __init__(self, db: Any) -> None:  # an ADBC connection; the driver is optional
        self._db = db

    def tables(self) -> set[str]:
        listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false))"
        return {name.lower() for name in self.query(listed)["table_name"]}

    def query(self, sql: str) -> pl.DataFrame:
        with self._db.cursor() as cursor:
            cursor.execute(sql)
            return pl.DataFrame(cursor.fetch_arrow())


@contextmanager
def _postgres(path: Path) -> Iterator[Engine]:
    try:
        from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise _no_driver("adbc-driver-postgresql") from None
    db = None
    try:
        db = dbapi.connect(_connection_string(path), autocommit=True)
        with db.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")
            cursor.execute(f"SET statement_timeout = {STATEMENT_SECONDS * 1000}")
        yield _Postgres(db)
    except dbapi.Error as error:
        raise _unreadable(path, f"PostgreSQL refused ({type(error).__name__})") from None
    finally:
        if db is not None:
            db.close()


def _connection_string(path: Path) -> str:
    """The one line of the file; it may hold a password, so only its owner may read it and no error quotes it."""
    if path.stat().st_mode & 0o077:
        raise bad_file(
            "data-secret-open", f"{path.name}: others may read this file, and it may hold a password", "chmod 600 it"
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        raise _unreadable(path, "it is no text") from None
    if len([line for line in lines if line.strip()]) != 1:
        raise _unreadable(path, "it holds no single connection string")
    return "".join(lines).strip()


def _unreadable(path: Path, problem: str) -> OperatorError:
    return bad_file(
        "data-unreadable",
        f"{path.name}: {problem}",
        "check the connection, the rights of its user, and that the tables have their standard columns",
    )


def _no_driver(package: str) -> OperatorError:
    return bad_file(
        "driver-missing", f"this OMOP source needs {package}, which is not installed", f"pip install {package}"
    )
