"""`cameo bench tags` on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from cameo_protocol.console import AsJson, emit, say


def bench_tags(
    patients: Annotated[int, typer.Option(min=100, max=10_000_000, help="Made-up patients.")] = 1_000_000,
    rules: Annotated[int, typer.Option(min=1, max=500, help="Made-up rules.")] = 200,
    sample: Annotated[int, typer.Option(min=10, max=1_000_000, help="Patients of the row-wise ways.")] = 5000,
    candidates: Annotated[int, typer.Option(min=100, max=100_000_000, help="Proposals to guard.")] = 2_500_000,
    as_json: AsJson = False,
) -> None:
    """The rule engine beside DuckDB, SQLite and row-wise Python.

    CPU time, each in a process of its own, on the same rules and patients; every answer is compared. Also the guards,
    and one patient from facts to decisions. JSON `ratios`: above 1 ours is faster.

    \b
    Example:
      cameo bench tags --json
    """
    from cameo_lab.bench.tags import bench_tags as measure
    from cameo_lab.bench.tags import table

    found = measure(patients, rules, sample, candidates, say)
    emit(found.as_dict(), as_json, lambda: table(found))
