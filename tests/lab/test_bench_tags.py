"""`cameo bench tags` on small sizes; DuckDB as oracle of random rules on random patients, cell by cell."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from cameo_client.data.catalogue import load_catalogue
from cameo_client.tags.engine import derive, prepare
from cameo_client.tags.predicate import leaves, parse, to_sql
from cameo_client.tags.schema import Schema, schema_of
from cameo_lab.bench import tags as bench
from cameo_lab.bench.tags_made import FACTS, WITH_NAN, made_patients, made_rules
from cameo_lab.bench.tags_ways import closure, select
from cameo_lab.cli import app
from cameo_protocol.console import execute
from cameo_protocol.errors import Bug

PATIENTS, RULES = 100_000, 200
SEEDS = range(11, 21) if os.environ.get("CAMEO_FULL") else range(11, 12)


@pytest.fixture(scope="module")
def schema() -> Schema:
    return schema_of(load_catalogue("cardiometabolic"))


def test_every_way_is_measured_and_gives_the_same_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ("--patients", "3000", "--rules", "20", "--sample", "100", "--candidates", "2000")
    monkeypatch.setattr(sys, "argv", ["cameo", "bench", "tags", *sizes, "--json"])
    code = execute(app, "cameo")
    out, err = capsys.readouterr()
    assert code == 0, err
    found = json.loads(out)
    assert (found["schema_version"], found["patients"], found["rules"], found["agree"]) == (1, 3000, 20, True)
    for name in ("engine_cpu_s", "duckdb_cpu_s", "rowwise_cpu_s", "sqlite_cpu_s", "guard_cpu_s", "single_patient_ms"):
        assert found[name] > 0
    assert 40 < found["engine_peak_mb"] < 400
    assert found["candidates"] == 2000
    assert found["ratios"]["rowwise"] == pytest.approx(found["rowwise_cpu_s"] / found["engine_cpu_s"])
    assert "duckdb" in err


def test_a_wrong_answer_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench._way

    def lying(way: str, *rest: Any) -> dict[str, Any]:
        return real(way, *rest) | ({"sha256_sample": "another"} if way == "rowwise" else {})

    monkeypatch.setattr(bench, "_way", lying)
    with pytest.raises(Bug, match="different answers"):
        bench.bench_tags(200, 3, 50, 100, print)


@pytest.mark.parametrize("seed", SEEDS)
def test_duckdb_agrees_on_every_cell_of_random_rules_and_patients(schema: Schema, seed: int, tmp_path: Path) -> None:
    rules, facts = made_rules(schema, RULES, seed), made_patients(schema, PATIENTS, seed)
    ours = derive(prepare(facts, schema, FACTS), rules, {})
    facts.with_columns(pl.col(WITH_NAN).fill_nan(None)).write_parquet(tmp_path / "facts.parquet")
    with duckdb.connect() as db:
        db.execute("CREATE TABLE t AS SELECT * FROM read_parquet(?)", [str(tmp_path / "facts.parquet")])
        theirs = pl.DataFrame(db.sql(f"SELECT {select(rules)} FROM t"))
    assert ours.shape == theirs.shape == (PATIENTS, RULES)
    for rule, mine, their in zip(rules, ours.iter_columns(), theirs.iter_columns(), strict=True):
        assert mine.eq_missing(their).all(), rule.rule.when


def test_the_made_up_rules_are_of_every_kind(schema: Schema) -> None:
    rules = made_rules(schema, RULES, 7)
    assert {type(leaf).__name__ for rule in rules for leaf in leaves(rule.enter)} == {"Compare", "OneOf", "Missing"}
    assert len({rule.rule.purpose for rule in rules}) >= 4
    assert any(rule.unless for rule in rules)
    assert made_rules(schema, RULES, 7)[13].enter == rules[13].enter
    facts = made_patients(schema, 500, 7)
    assert facts[WITH_NAN].is_nan().any()
    assert all(facts[name].null_count() for name in FACTS)
    share = derive(prepare(facts, schema, FACTS), rules, {}).fill_null(False).sum().sum_horizontal().item()
    assert 0.02 < share / (500 * RULES) < 0.4


@pytest.mark.parametrize("text", ["a", "NOT a", "a AND b", "a OR NOT b", "a IS TRUE", "a IS NULL AND b IS NOT FALSE"])
def test_the_row_wise_way_has_three_answers(text: str) -> None:
    tree = parse(text)
    with duckdb.connect() as db:
        for a in (True, False, None):
            for b in (True, False, None):
                db.execute("CREATE OR REPLACE TABLE t AS SELECT ?::BOOLEAN AS a, ?::BOOLEAN AS b", [a, b])
                row = db.execute(f"SELECT {to_sql(tree)} FROM t").fetchone()
                assert row == (closure(tree)({"a": a, "b": b}),)
