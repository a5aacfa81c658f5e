"""`cameo bench data` on small sizes, and the server that it and the demo start."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cameo_client.data.database import Database
from cameo_client.data.omop_engine import open_engine
from cameo_lab import local_postgres
from cameo_lab.cli import app
from cameo_lab.demo import postgres
from cameo_lab.demo.setting import DemoSite, Setting
from cameo_protocol.console import execute
from cameo_protocol.errors import OperatorError


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["cameo", *words])
    code = execute(app, "cameo")
    out, err = capsys.readouterr()
    return code, out, err


def test_bench_data_measures_both_in_one_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ("--rows", "20000", "--patients", "200", "--quality-rows", "1000")
    code, out, err = run(capsys, monkeypatch, "bench", "data", *sizes, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["rows"], found["patients"], found["quality_rows"]) == (20_000, 200, 1000)
    assert found["events"] > 200 * 30
    for name in ("postgres_rows_per_s", "sqlalchemy_rows_per_s", "facts_seconds", "quality_seconds"):
        assert found[name] > 0
    assert 20 < found["postgres_peak_mb"] < 400
    assert found["ratio"] == pytest.approx(found["postgres_rows_per_s"] / found["sqlalchemy_rows_per_s"])
    assert "ADBC" in err


def test_bench_data_says_what_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "psycopg":
            raise ImportError(name, name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    code, out, err = run(capsys, monkeypatch, "bench", "data", "--rows", "1000")
    assert (code, out, "bench-package-missing" in err, "pip install" in err) == (2, "", True, True)


def test_no_server_to_start_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_postgres, "available", lambda: False)
    with pytest.raises(OperatorError, match="postgres-missing"), local_postgres.local_postgres():
        pass


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as db:
        db.execute("CREATE TABLE person AS SELECT 7::BIGINT AS person_id, DATE '2000-01-01' AS birth_datetime")
    site = DemoSite(
        name="h", kind="omop", data=str(tmp_path / "cdm.duckdb"), mapping="cardiometabolic-omop",
        consents=tmp_path / "c", pseudonym_key=tmp_path / "k",
    )  # fmt: skip
    return Setting(title="t", sites=(site,), overrides=(), synthetic=True, note="")


def test_the_last_hospital_moves_into_postgresql_and_back_out(setting: Setting) -> None:
    said: list[str] = []
    with postgres.last_in_postgres(setting, "auto", said.append) as moved:
        address = moved.sites[-1].data
        assert address.startswith("postgresql://")
        with open_engine(Database(url=address)) as engine:
            assert engine.tables() == {"person"}
            assert engine.query("SELECT person_id FROM person", "x")["person_id"].to_list() == [7]
    with pytest.raises(OperatorError, match="data-connect"), open_engine(Database(url=address)):
        pass
    assert said == []


def test_without_a_server_all_stay_in_duckdb(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with postgres.last_in_postgres(setting, "none", said.append) as same:
        assert same == setting
    assert said == []
    monkeypatch.setattr(postgres, "available", lambda: False)
    with postgres.last_in_postgres(setting, "auto", said.append) as same:
        assert same == setting
    assert len(said) == 1


@pytest.mark.parametrize(("wish", "code"), [
    ("somewhere", "option-invalid"), ("postgresql://a:hunter2@b/c", "option-invalid"),
    ("postgresql://nobody@127.0.0.1:1/x", "demo-postgres"),
])  # fmt: skip
def test_a_bad_address_is_refused(wish: str, code: str, setting: Setting) -> None:
    with pytest.raises(OperatorError) as caught, postgres.last_in_postgres(setting, wish, print):
        pass
    assert caught.value.code == code
    assert "hunter2" not in f"{caught.value} {caught.value.do}"
