"""What a dry run shows, what a model update alone changes, and when a model is fit at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cameo_client.tagging import audited, calibrated, calibrated_here
from cameo_client.tags.rehearsal import changed_by_model, disparity, overlaps, reach
from cameo_client.tags.render import _reach, text

MODEL = {"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 9}


def test_reach_names_what_never_and_always_fires(kit: Any) -> None:
    rules = [kit.rule(), kit.rule(id="dbp-high", when="dbp >= 90"), kit.rule(id="adult", when="age >= 18")]
    rows = [{"sbp": 150.0}, {"sbp": 120.0}, {"sbp": 120.0}, {"objected": True, "sbp": 150.0}]
    assert reach(kit.run(rules, rows)) == [
        {
            "tag": "bp-high",
            "proposed": 0.5,
            "coverage": 0.25,
            "unknown": 0.0,
            "fires": "sometimes",
            "without_model": [],
        },
        {"tag": "dbp-high", "proposed": 0.0, "coverage": 0.0, "unknown": 1.0, "fires": "never", "without_model": []},
        {"tag": "adult", "proposed": 1.0, "coverage": 0.75, "unknown": 0.0, "fires": "always", "without_model": []},
    ]
    assert reach(kit.run(rules, [])) == [
        {"tag": tag, "proposed": 0.0, "coverage": 0.0, "unknown": 0.0, "fires": "never", "without_model": []}
        for tag in ("bp-high", "dbp-high", "adult")
    ]


def test_a_rule_that_waits_for_its_model_says_so(kit: Any) -> None:
    rule = kit.rule(id="t2d-risk", when="risk_t2d_12m >= 0.3", model=MODEL)
    (waits,) = reach(kit.run([rule], [{}]))
    assert (waits["fires"], waits["without_model"]) == ("never", ["risk_t2d_12m"])
    assert _reach(waits)[0].endswith("it never fires: no model risk_t2d_12m is installed")
    (has,) = reach(kit.run([rule], [{"risk_t2d_12m": 0.1}], models=kit.models("risk_t2d_12m")))
    assert (has["fires"], has["without_model"]) == ("never", [])


def test_overlaps_count_those_who_get_both_among_those_who_get_either(kit: Any) -> None:
    rules = [kit.rule(), kit.rule(id="very", when="sbp >= 160"), kit.rule(id="low", when="sbp < 100")]
    rows = [{"sbp": value} for value in (150.0, 170.0, 180.0, 90.0)]
    assert overlaps(kit.run(rules, rows)) == [{"tags": ["bp-high", "very"], "together": 0.667}]


def test_disparity_shows_the_extremes_and_leaves_small_groups_out(kit: Any) -> None:
    rows = [{"sbp": 150.0, "sex": "f", "region": "urban"}] * 12 + [{"sbp": 120.0, "sex": "m", "region": "rural"}] * 4
    rows += [{"sbp": 150.0, "sex": "m", "region": "urban"}] * 12
    found = disparity(kit.run([kit.rule()], rows))
    assert found == [
        {"tag": "bp-high", "fact": "sex", "lowest": "m", "lowest_rate": 0.75, "highest": "f", "highest_rate": 1.0}
    ]


def test_changed_by_the_model_alone(kit: Any) -> None:
    """Same facts, rules and history; the other rule, which reads no model, has nothing to report."""
    rules = [kit.rule(id="risk", when="risk_t2d_12m >= 0.3", model=MODEL), kit.rule()]
    scores = ((0.4, 0.4, 0.1, 0.1, 0.4), (0.4, 0.1, 0.4, 0.1, None))
    old, new = (
        kit.run(rules, [{"risk_t2d_12m": score, "sbp": 150.0} for score in row], models=kit.models("risk_t2d_12m"))
        for row in scores
    )
    rows = changed_by_model(old, new)
    assert rows == [
        {"tag": "risk", "models": ["risk_t2d_12m"], "added": 1, "removed": 2, "unchanged": 1,
         "why_removed": {"unknown": 1, "not-proposed": 1}},
        {"tag": "bp-high", "models": [], "added": 0, "removed": 0, "unchanged": 5, "why_removed": {}},
    ]  # fmt: skip
    assert "by the model update alone" in text({"command": "diff-models", "tags": rows})


def test_a_model_that_is_not_fit_takes_its_tags_along_and_says_why(kit: Any) -> None:
    rule, row = kit.rule(id="risk", when="risk_t2d_12m >= 0.3", model=MODEL), {"risk_t2d_12m": 0.4}
    old = kit.run([rule], [row], models=kit.models("risk_t2d_12m"))
    new = kit.run([rule], [row], models=kit.models("risk_t2d_12m", audited=False))
    (changed,) = changed_by_model(old, new)
    assert (changed["removed"], changed["why_removed"]) == (1, {"model-not-audited": 1})


@pytest.mark.parametrize(
    ("card", "fit"),
    [
        ({"audit": {"passed": True}}, True),
        ({"audit": {"passed": False}}, False),
        ({"audit": {"passed": "yes"}}, False),
        ({"audit": None}, False),
        ({"audit": []}, False),
        ({}, False),
    ],
)
def test_audited_means_a_passed_audit_on_the_card(card: dict[str, Any], fit: bool) -> None:
    assert audited(card) is fit


@pytest.mark.parametrize(
    ("patients", "prevalence", "score", "fit"),
    [(400, 0.3, 0.35, True), (400, 0.3, 0.45, False), (400, 0.3, 0.15, False), (399, 0.5, 0.5, None), (0, 0, 0, None)],
)
def test_a_hospitals_own_patients_have_the_last_word(
    patients: int, prevalence: float, score: float, fit: bool | None
) -> None:
    """Half of the outcomes are not known; 200 must be."""
    known = patients // 2
    outcomes = np.full(patients, np.nan)
    outcomes[:known] = np.arange(known) < prevalence * known
    assert calibrated_here(np.full(patients, score), outcomes) is fit


@pytest.mark.parametrize(
    ("evaluation", "fit"),
    [
        ({"risk": {"gap": {"value": 0.05, "low": -0.1, "high": 0.2}}}, True),
        ({"risk": {"gap": {"value": -0.1}}}, True),
        ({"risk": {"gap": {"value": 0.11}}}, False),
        ({"risk": {"gap": {"value": float("nan")}}}, False),
        ({"risk": {"gap": None}}, False),
        ({"risk": {}}, False),
        ({"other": {"gap": {"value": 0.0}}}, False),
        (None, False),
    ],
)
def test_calibrated_means_that_it_was_looked_at_and_found_near(evaluation: Any, fit: bool) -> None:
    assert calibrated({"evaluation": evaluation}, "risk") is fit
