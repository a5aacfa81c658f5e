"""PostgreSQL as an OMOP engine: ADBC, a read-only transaction that sees one state of the database, and a time limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl

from cameo_client.data.database import Database
from cameo_client.data.findings import bad_file
from cameo_protocol.errors import OperatorError

STATEMENT_SECONDS = 600
CONNECT_SECONDS = 15
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false))"
_SESSION = (
    "SET default_transaction_read_only = on",
    f"SET statement_timeout = {STATEMENT_SECONDS * 1000}",
    "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
)


class Postgres:
    """One session of a `Database`. Errors of the server quote rows: they are replaced by ours and never chained."""

    def __init__(self, db: Any) -> None:  # an ADBC connection; the driver has no types
        self._db = db

    def tables(self) -> set[str]:
        """Names of the tables on the role's search path, lower case."""
        return {name.lower() for name in self.query(_TABLES, "the list of tables")["table_name"]}

    def query(self, sql: str, about: str) -> pl.DataFrame:
        """The rows of one SELECT. about: what an error says could not be read."""
        from adbc_driver_postgresql import dbapi

        try:
            with self._db.cursor() as cursor:
                cursor.execute(sql)
                return pl.DataFrame(cursor.fetch_arrow())
        except (dbapi.Error, pl.exceptions.PolarsError) as error:  # a fault after the first row comes through polars
            text = str(error)
        raise self._fault(text, about)

    def _fault(self, text: str, about: str) -> OperatorError:
        """Which fault it was; the server's own words are read here and go no further."""
        if "statement timeout" in text:
            return bad_file(
                "data-timeout",
                f"PostgreSQL: a query took longer than {STATEMENT_SECONDS} s and was stopped",
                "index person_id and the concept column of the event tables, or read at a quieter hour",
            )
        if not self._alive():
            return bad_file(
                "data-source-gone",
                "PostgreSQL: the connection was lost while reading; nothing was used or changed",
                "check the server and the network, then run the command again: it reads everything anew",
            )
        return bad_file(
            "data-unreadable",
            f"PostgreSQL: it refused to read {about} as OMOP CDM 5.4",
            "check the grants and the search_path of the role, and that the tables have their standard columns",
        )

    def _alive(self) -> bool:
        """Whether the server still answers on this connection (the transaction itself has failed)."""
        from adbc_driver_postgresql import dbapi

        try:
            with self._db.cursor() as cursor:
                cursor.execute("ROLLBACK")
                cursor.execute("SELECT 1")
                pl.DataFrame(cursor.fetch_arrow())
        except (dbapi.Error, pl.exceptions.PolarsError):
            return False
        return True


@contextmanager
def open_postgres(database: Database) -> Iterator[Postgres]:
    """A read-only session; closed at the end."""
    from adbc_driver_postgresql import dbapi

    target = database.connection_string()
    if "connect_timeout=" not in target:
        target += f"{'&' if '?' in target else '?'}connect_timeout={CONNECT_SECONDS}"
    db = None
    try:
        db = dbapi.connect(target, autocommit=True)
        with db.cursor() as cursor:
            for setting in _SESSION:
                cursor.execute(setting)
    except dbapi.Error:
        if db is not None:
            db.close()
        raise bad_file(
            "data-connect",
            "PostgreSQL: no connection could be made with this address, user and password",
            "check the address in node.toml, the password's file or variable, and that the server is running",
        ) from None
    try:
        yield Postgres(db)
    finally:
        db.close()
