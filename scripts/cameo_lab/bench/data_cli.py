"""`cameo bench data` on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from cameo_protocol.console import AsJson, emit, say


def bench_data(
    rows: Annotated[int, typer.Option(min=1000, max=100_000_000, help="Measurement rows.")] = 1_000_000,
    patients: Annotated[int, typer.Option(min=20, max=1_000_000, help="Patients of the DuckDB file.")] = 50_000,
    quality_rows: Annotated[int, typer.Option(min=100, max=10_000_000, help="Rows to score.")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Rows a second from PostgreSQL beside SQLAlchemy.

    Starts a PostgreSQL server of its own. Also the facts of a DuckDB file, and the quality score.

    \b
    Example:
      cameo bench data --json
    """
    from cameo_lab.bench.data import bench_data as measure

    found = measure(rows, patients, quality_rows, say)
    emit(
        found.as_dict(),
        as_json,
        lambda: (
            f"PostgreSQL   {found.postgres_rows_per_s / 1e6:.2f} M rows/s, peak {found.postgres_peak_mb:.0f} MB\n"
            f"SQLAlchemy   {found.sqlalchemy_rows_per_s / 1e6:.2f} M rows/s, peak {found.sqlalchemy_peak_mb:.0f} MB\n"
            f"facts        {found.patients:,} patients, {found.events:,} rows: {found.facts_seconds:.2f} s\n"
            f"quality      {found.quality_rows:,} rows: {found.quality_seconds:.3f} s"
        ),
    )
