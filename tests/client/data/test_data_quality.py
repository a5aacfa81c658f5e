"""The quality gate: what costs points, what is a hard failure, and what the report hides."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

from cameo_client.data.quality import QualityReport, assess
from cameo_client.data.typed import polars_type
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue, Consistency, Fact

CATALOGUE = Catalogue(
    id="tiny",
    version=1,
    title="Tiny",
    facts=(
        Fact(name="sbp", meaning="Systolic", type="float", group="dynamic", plausible=(60, 260), required=True),
        Fact(name="dbp", meaning="Diastolic", type="float", group="dynamic", plausible=(30, 160), required=True),
        Fact(name="dx", meaning="Diabetes", type="bool", group="dynamic"),
        Fact(name="years", meaning="Years", type="float", group="dynamic", plausible=(0, 90)),
    ),
    consistency=(
        Consistency(id="order", kind="below", fact="dbp", other="sbp"),
        Consistency(id="years", kind="only_if", fact="years", other="dx"),
    ),
)


def frame(rows: list[tuple[object, ...]], good: int = 100) -> pl.DataFrame:
    fine = [(100.0 + i / 1000, 60.0 + i / 1000, True, 1.0) for i in range(good)]
    schema = {fact.name: polars_type(fact) for fact in CATALOGUE.facts}
    return pl.DataFrame([*rows, *fine], schema=schema, orient="row")


def score(rows: list[tuple[object, ...]], good: int = 100, age: int | None = None) -> QualityReport:
    return assess(frame(rows, good), CATALOGUE, age_days=age, max_age_days=90)


def test_clean_rows_score_100() -> None:
    report = score([])
    assert (report.score, report.rules, report.hard, report.ready) == (100.0, (), (), True)
    report.require()


@pytest.mark.parametrize(
    ("row", "rule", "points"),
    [
        ((None, 80.0, True, 2.0), "missing:sbp", 50.0),
        ((None, None, True, 2.0), "missing:sbp", 100.0),
        ((600.0, 80.0, True, 2.0), "impossible:sbp", 25.0),
        ((80.0, 120.0, True, 2.0), "inconsistent:order", 25.0),
        ((80.0, 80.0, True, 2.0), "inconsistent:order", 25.0),
        ((120.0, 80.0, False, 2.0), "inconsistent:years", 25.0),
        ((100.0, 60.0, True, 1.0), "duplicate-rows", 25.0),
        ((600.0, 700.0, False, 99.0), "impossible:sbp", 100.0),
    ],
)
def test_each_fault_costs_its_points(row: tuple[object, ...], rule: str, points: float) -> None:
    report = score([row])
    assert report.records[0] == 100.0 - points
    assert rule in {found.id for found in report.rules}
    assert next(found.rows for found in report.rules if found.id == rule) == "fewer than 11"


def test_unknown_is_not_a_contradiction() -> None:
    assert score([(120.0, 80.0, None, 2.0), (121.0, 80.0, False, None), (122.0, 80.0, False, 0.0)]).rules == ()


def test_below_90_the_gate_closes_and_names_the_worst_first() -> None:
    report = score([(None, 80.0 + i / 10, True, 2.0) for i in range(30)] + [(600.0, 81.5, True, 2.0)])
    assert report.score < 90
    assert not report.ready
    assert [rule.id for rule in report.rules][:2] == ["missing:sbp", "impossible:sbp"]
    assert report.rules[0].rows == "30"
    with pytest.raises(OperatorError) as caught:
        report.require()
    assert caught.value.exit_code is ExitCode.QUALITY
    assert "missing:sbp" in caught.value.what
    assert "--rows all" in caught.value.do


def test_the_gate_stands_at_90_exactly() -> None:
    report = score([])
    assert replace(report, score=90.0).ready
    assert not replace(report, score=89.9).ready


def test_hard_failures_close_the_gate_at_any_score() -> None:
    few = score([], good=10)
    assert few.score == 100.0
    assert few.hard == ("minimum-cohort",)
    assert not few.ready
    empty = frame([]).with_columns(dbp=pl.lit(None, dtype=pl.Float64))
    assert assess(empty, CATALOGUE, age_days=None, max_age_days=None).hard == ("empty:dbp",)
    with pytest.raises(OperatorError, match="minimum-cohort"):
        few.require()


def test_an_old_snapshot_costs_points() -> None:
    assert score([], age=90).score == 100.0
    assert score([], age=91).score == 80.0
    assert "stale-snapshot" in {rule.id for rule in score([], age=91).rules}


def test_the_report_hides_rows_and_serialises() -> None:
    report = score([(600.0, 80.0, True, 2.0)])
    assert "records" not in repr(report)
    text = json.dumps(report.as_dict())
    assert "600" not in text
    assert "records" not in text
    assert "fewer than 11" in text


def test_the_cost_of_few_rows_does_not_count_them() -> None:
    costs = {score([(600.0, 80.0 + i, True, 2.0) for i in range(n)], good=100 - n).rules[0].cost for n in range(1, 11)}
    assert costs == {2.5}
    assert score([(600.0, 80.0 + i, True, 2.0) for i in range(12)], good=88).rules[0].cost == 3.0
