"""Where the OMOP tables of a made-up hospital go, a chunk at a time: Parquet parts, CSV files or a DuckDB file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

Tables = Mapping[str, pl.DataFrame]


class Sink(Protocol):
    """Takes the tables of one chunk after another."""

    def write(self, tables: Tables) -> None:
        """Append these rows."""
        ...

    def close(self) -> None:
        """All chunks have been written."""
        ...


class ParquetSink:
    """`folder`/TABLE/part-N.parquet, one part a chunk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._part = folder, 0

    def write(self, tables: Tables) -> None:
        """One part of each table."""
        for table, frame in tables.items():
            (self._folder / table).mkdir(parents=True, exist_ok=True)
            frame.write_parquet(self._folder / table / f"part-{self._part:05d}.parquet")
        self._part += 1

    def close(self) -> None:
        """Nothing is left to do."""


class CsvSink:
    """`folder`/TABLE.csv."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def write(self, tables: Tables) -> None:
        """Append to each file."""
        for table, frame in tables.items():
            with (self._folder / f"{table}.csv").open("ab") as file:
                frame.write_csv(file, include_header=file.tell() == 0)

    def close(self) -> None:
        """Nothing is left to do."""


class DuckSink:
    """One DuckDB file, loaded at the end from Parquet parts, because DuckDB keeps appended chunks in memory."""

    def __init__(self, file: Path) -> None:
        self._file, self._parts = file, file.with_suffix(".parts")
        self._tables: set[str] = set()
        self._sink = ParquetSink(self._parts)

    def write(self, tables: Tables) -> None:
        """Keep the chunk beside the file."""
        self._tables |= set(tables)
        self._sink.write(tables)

    def close(self) -> None:
        """Write the file and remove the parts."""
        import duckdb

        with duckdb.connect(str(self._file), config={"threads": 2, "memory_limit": "1GB"}) as db:
            for table in sorted(self._tables):
                db.read_parquet(f"{self._parts}/{table}/*.parquet").create(table)
        shutil.rmtree(self._parts)
