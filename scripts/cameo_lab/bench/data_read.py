"""One way of reading the measurement rows, in a process of its own, so that its peak memory is that read's alone.

python -m cameo_lab.bench.data_read adbc|sqlalchemy REPEATS, the database's address on standard input. Prints one JSON
object: rows, seconds (best of REPEATS) and peak_mb (resident, of the whole process).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from cameo_lab.bench.peak import peak_mb

SQL = (
    "SELECT person_id, measurement_concept_id, measurement_date, CAST(value_as_number AS FLOAT8) AS value_as_number "
    "FROM measurement"
)


def read_adbc(url: str) -> Callable[[], int]:
    """As a node reads: `open_postgres`, into polars."""
    from cameo_client.data.database import Database
    from cameo_client.data.postgres import open_postgres

    def read() -> int:
        with open_postgres(Database(url=url)) as engine:
            return engine.query(SQL, "measurement").height

    return read


def read_sqlalchemy(url: str) -> Callable[[], int]:
    """SQLAlchemy with psycopg, all rows fetched."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))

    def read() -> int:
        with engine.connect() as connection:
            return len(connection.execute(sqlalchemy.text(SQL)).fetchall())

    return read


def main(way: str, repeats: int) -> None:
    """Read, and print what it took."""
    url = sys.stdin.readline().strip()
    read = read_adbc(url) if way == "adbc" else read_sqlalchemy(url)
    seconds, rows = [], 0
    for _ in range(repeats):
        began = time.perf_counter()
        rows = read()
        seconds.append(time.perf_counter() - began)
    peak = peak_mb()
    sys.stdout.write(json.dumps({"rows": rows, "seconds": min(seconds), "peak_mb": peak}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
