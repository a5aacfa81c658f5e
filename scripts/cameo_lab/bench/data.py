"""`cameo bench data`: rows from PostgreSQL beside SQLAlchemy, facts from DuckDB, and the quality score."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from cameo_lab.local_postgres import local_postgres
from cameo_protocol.errors import Bug, OperatorError

Say = Callable[[str], None]
Result = TypeVar("Result")
REPEATS = 3
_TABLE = """
CREATE TABLE measurement AS SELECT
  g::bigint AS measurement_id, (g % 50000)::bigint AS person_id, 3004249::bigint AS measurement_concept_id,
  DATE '2020-01-01' + (g % 2000)::int AS measurement_date,
  ((g % 100000) * 7919 % 100000)::numeric / 100 AS value_as_number
FROM generate_series(1, {rows}) AS g
"""


@dataclass(frozen=True, kw_only=True)
class DataFigures:
    """Best of three each. *_rows_per_s: measurement rows from PostgreSQL to this process. *_peak_mb: resident memory.

    facts_seconds: a DuckDB file of `patients` patients and `events` rows to checked facts under pseudonyms, whole.
    quality_seconds: score of a facts table of `quality_rows` rows with every column of the catalogue.
    """

    rows: int
    postgres_rows_per_s: float
    sqlalchemy_rows_per_s: float
    postgres_peak_mb: float
    sqlalchemy_peak_mb: float
    patients: int
    events: int
    facts_seconds: float
    quality_rows: int
    quality_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For --json, with the ratio that can be compared between machines."""
        return asdict(self) | {"ratio": self.postgres_rows_per_s / self.sqlalchemy_rows_per_s}


def bench_data(rows: int, patients: int, quality_rows: int, say: Say) -> DataFigures:
    """Measure all of it on this machine. Starts a PostgreSQL server of its own and stops it."""
    with tempfile.TemporaryDirectory(prefix="cameo-bench-") as private:
        folder = Path(private)
        say(f"PostgreSQL: {rows:,} measurement rows")
        with _server(rows) as url:
            say("reading them with ADBC, then with SQLAlchemy")
            ours, theirs = _read("adbc", url), _read("sqlalchemy", url)
        say(f"DuckDB: {patients:,} patients")
        events, facts_seconds, quality_seconds = _facts(folder, patients, quality_rows, say)
    return DataFigures(
        rows=rows,
        postgres_rows_per_s=rows / ours["seconds"],
        sqlalchemy_rows_per_s=rows / theirs["seconds"],
        postgres_peak_mb=ours["peak_mb"],
        sqlalchemy_peak_mb=theirs["peak_mb"],
        patients=patients,
        events=events,
        facts_seconds=facts_seconds,
        quality_rows=quality_rows,
        quality_seconds=quality_seconds,
    )


@contextmanager
def _server(rows: int) -> Iterator[str]:
    """The address of a server with the rows."""
    try:
        import psycopg
        import sqlalchemy  # noqa: F401 - in the child; here to say early that it is not there
    except ImportError as error:
        raise OperatorError(
            "bench-package-missing",
            what=f"this measurement needs {error.name}, which is not installed",
            do="pip install 'psycopg[binary]' sqlalchemy",
        ) from None
    with local_postgres() as url:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(_TABLE.format(rows=rows))
            db.execute("VACUUM ANALYZE measurement")
        yield url


def _read(way: str, url: str) -> dict[str, float]:
    """Figures of `data_read` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "cameo_lab.bench.data_read", way, str(REPEATS)],
        input=url,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        raise Bug("bench-read", what=f"reading with {way} ended with {done.returncode}: {last[0]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _facts(folder: Path, patients: int, quality_rows: int, say: Say) -> tuple[int, float, float]:
    """Rows of the DuckDB file, seconds to its facts, and seconds of the quality score."""
    import duckdb
    import polars as pl

    from cameo_client.data import quality
    from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
    from cameo_client.data.hospital import load
    from cameo_lab.generate.generator import generate

    file = generate(folder / "made", 1, patients, 7, formats=("duckdb",)).sites[0].place("duckdb")
    with duckdb.connect(str(file), read_only=True) as db:
        tables = [row[0] for row in db.execute("SELECT table_name FROM information_schema.tables").fetchall()]
        events = sum(_count(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()) for table in tables)  # noqa: S608
    catalogue = load_catalogue("cardiometabolic")
    source, labels = load_source("cardiometabolic-omop", file), load_labels(catalogue)
    say(f"facts from {events:,} rows")
    seconds, data = _best(lambda: load(source, catalogue, labels, bytes(32)))
    facts = data.facts.drop("pseudonym")
    many = pl.concat([facts] * (quality_rows // facts.height + 1)).head(quality_rows)
    shifted = many.with_columns(sbp=pl.col("sbp") + pl.int_range(pl.len()) * 1e-9).rechunk()  # no two rows alike
    say(f"quality of {quality_rows:,} rows")
    scored, _ = _best(lambda: quality.assess(shifted, catalogue, age_days=1, max_age_days=30))
    return events, seconds, scored


def _count(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0


def _best(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of the fastest of REPEATS, and its result."""
    seconds = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        result = work()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, result
