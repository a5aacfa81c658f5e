"""Stored tags as a table of the hospital's own PostgreSQL, for its other systems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cameo_client.data.database import Database
from cameo_client.tags.export import frame_of
from cameo_client.tags.store import StoredTag
from cameo_protocol.errors import ExitCode, OperatorError

_NAME = re.compile(r"(?:[a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}")
_TYPES = {"rule_version": "BIGINT", "guard": "BIGINT", "model_version": "BIGINT", "model_round": "BIGINT",
          "run": "BIGINT"}  # fmt: skip

_LATER = ("model_run",)


def _add_later(cursor: Any, table: str) -> None:
    """Give a table that an earlier version made the columns it lacks. Only then are rights on its form needed."""
    for column in _LATER:
        cursor.execute(
            f"SELECT 1 FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = '{column}'"  # noqa: S608
            " AND NOT attisdropped"
        )
        if cursor.fetch_polars().is_empty():
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")


def check_table(table: str) -> None:
    """Only a plain name, with its schema if need be: it becomes part of a statement."""
    if not _NAME.fullmatch(table):
        raise OperatorError(
            "export-table", what="a table's name is a-z, 0-9 and _, such as cameo_tags or care.cameo_tags",
            do="choose another --table",
        )  # fmt: skip


def replace_table(database: Database, table: str, tags: Sequence[StoredTag]) -> None:
    """Fill the table with these rows and nothing else, in one transaction; it is made where there is none.

    `because` is one text. A server that cannot be reached or refuses: `OperatorError`, the table as it was.
    """
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import dbapi

    frame = frame_of(tags, lists=False)
    fields = ", ".join(f"{name} {_TYPES.get(name, 'TEXT')}" for name in frame.columns)
    schema, _, name = table.rpartition(".")
    where = {"db_schema_name": schema} if schema else {}
    try:
        with dbapi.connect(database.connection_string()) as db, db.cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} ({fields})")
            _add_later(cursor, table)
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608 - a checked name
            if frame.height:
                cursor.adbc_ingest(name, frame, mode="append", **where)
            db.commit()
    except (Error, OSError) as error:
        raise OperatorError(
            "export-database",
            what=f"PostgreSQL did not take the table {table} ({type(error).__name__}); it is as it was",
            do="check the address, the password and the rights of that user on the table, then run it again",
            exit=ExitCode.DATA,
        ) from None
