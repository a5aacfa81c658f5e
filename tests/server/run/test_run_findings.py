"""What opened histograms come to: figures by group, the correction that is evaluated and published, and their costs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cameo_client.training.histogram import score_histogram
from cameo_models.bundle import parse_bundle
from cameo_models.scoring import risk_scores
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import Reject
from cameo_protocol.evaluation import auc
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import RiskTask, RunPlan, Site, parse_plan
from cameo_protocol.recalibration import IDENTITY
from cameo_server.cli.run_text import run_text
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve
from cameo_server.run.findings import corrected, corrections, corrections_card, costs, findings
from cameo_server.run.publication import publication
from cameo_server.run.round import Opened

FEATURES = len(feature_names(read_catalogue("cardiometabolic")))
EVERYBODY = frozenset({1, 2, 3, 4})


def make_plan(*overrides: str) -> RunPlan:
    experiment = compose_experiment(conf_dir(), overrides)
    sites = [Site(name=f"h{i}", index=i, identity=f"{i:064x}") for i in range(1, 5)]
    return resolve(experiment, read_catalogue(experiment.data.catalogue), read_label(experiment.data.label), sites)


PLAN = make_plan()
RNG = np.random.default_rng(0)


def opened(kind: Any, lanes: Any) -> Opened:
    """A sum that was opened to these counts, with no noise in it."""
    assert len(lanes) == PLAN.layout(kind).dim
    return Opened(total=np.asarray(lanes, dtype=np.int64).astype(np.uint32), survivors=EVERYBODY, seconds={})


def patients(size: int, slope: float = 1.0) -> tuple[Any, Any]:
    logits = RNG.normal(-1, 1.2, size)
    return 1 / (1 + np.exp(-logits)), (RNG.random(size) < 1 / (1 + np.exp(-slope * logits))).astype(float)


def evaluation(size: int) -> tuple[Opened, float]:
    """Held-out patients, a third of them women, all between 45 and 65; their clear AUC."""
    scores, labels = patients(size)
    spans = PLAN.layout("evaluate").spans()
    lanes = np.zeros(PLAN.layout("evaluate").dim, dtype=np.int64)
    groups = {
        "evaluation": None,
        "evaluation-sex": np.arange(size) % 3 // 2,
        "evaluation-age": np.ones(size, dtype=int),
    }
    for task in PLAN.counted("evaluate"):
        count = len(task.by) if task.by else 1
        lanes[spans[task.name]] = score_histogram(scores, labels, task.bins, groups[task.name], count)
    found = auc(scores, labels)
    assert found is not None
    return opened("evaluate", lanes), found


def recalibration(size: int, slope: float) -> Opened:
    (task,) = PLAN.counted("recalibrate")
    return opened("recalibrate", score_histogram(*patients(size, slope), task.bins))


def parameters() -> bytes:
    return RNG.normal(0, 1, sum(task.encoded.dim for task in PLAN.trained())).astype("<f4").tobytes()


def test_the_shipped_plan_corrects_and_counts_by_sex_and_age() -> None:
    assert [task.name for task in PLAN.counted("recalibrate")] == ["recalibration"]
    assert [task.name for task in PLAN.counted("evaluate")] == ["evaluation", "evaluation-sex", "evaluation-age"]
    assert parse_plan(PLAN.canonical()) == PLAN
    heart = make_plan("data=heart")
    assert (heart.rounds_of("recalibrate"), heart.layout("recalibrate").blocks) == (0, ())


def test_figures_with_their_release_and_interval() -> None:
    total, clear = evaluation(20_000)
    figures = findings(PLAN, total)["risk"]
    assert figures["release"] == "evaluation"
    assert figures["note"] == ""
    assert figures["auc"]["low"] < figures["auc"]["value"] < figures["auc"]["high"]
    assert figures["auc"]["value"] == pytest.approx(clear, abs=0.02)
    by = {table["fact"]: table for table in figures["groups"]}
    assert {fact: table["release"] for fact, table in by.items()} == {"sex": "evaluation-sex", "age": "evaluation-age"}
    women, men = by["sex"]["rows"]
    assert (women["group"], men["group"]) == ("female", "male")
    assert (women["size"], men["size"]) == ("10,000 to 50,000", "5,000 to 10,000")
    assert women["auc"]["value"] == pytest.approx(clear, abs=0.05)
    young, middle, old = by["age"]["rows"]
    assert (young["hidden"], middle["hidden"], old["hidden"]) == (True, False, True)
    assert young["auc"] is young["brier"] is young["prevalence"] is young["gap"] is None
    assert "fewer than 11" in young["note"]
    json.dumps(figures, allow_nan=False)


def test_few_patients_have_no_figures_and_the_note_names_them() -> None:
    figures = findings(PLAN, evaluation(150)[0])["risk"]
    assert figures["auc"] is None
    assert figures["note"].startswith("too noisy to say: auc")


def test_a_void_evaluation_has_no_figures_and_says_so() -> None:
    figures = findings(PLAN, None)["risk"]
    assert figures["auc"] is None
    assert "void" in figures["note"]
    assert all("void" in row["note"] for table in figures["groups"] for row in table["rows"])


def test_a_correction_moves_the_logit_of_the_risk_model_alone() -> None:
    found = corrections(PLAN, recalibration(30_000, 1.5))
    fit = found["risk"].fit
    assert fit.slope == pytest.approx(1.5, abs=0.15)
    before = parameters()
    after = corrected(PLAN, FEATURES, before, found)
    one, two = (np.frombuffer(raw, dtype="<f4").astype(float) for raw in (before, after))
    span = PLAN.parameter_spans()["segment"]
    assert np.array_equal(one[span], two[span])
    risk = next(task for task in PLAN.trained() if isinstance(task, RiskTask))
    rows = RNG.uniform(-1, 1, (50, FEATURES)).astype(np.float32)
    raw, moved = (risk_scores(risk, FEATURES, p[PLAN.parameter_spans()["risk"]], rows) for p in (one, two))
    np.testing.assert_allclose(
        np.log(moved / (1 - moved)), fit.slope * np.log(raw / (1 - raw)) + fit.intercept, atol=1e-3
    )
    card = corrections_card(found)["risk"]
    assert card["applied"]
    assert card["patients"] == "training"
    assert card["slope"]["low"] < card["slope"]["value"] < card["slope"]["high"]


@pytest.mark.parametrize("total", [None, "few"])
def test_a_void_or_drowned_recalibration_leaves_the_model_as_it_was(total: str | None) -> None:
    found = corrections(PLAN, recalibration(60, 1.5) if total else None)
    raw = parameters()
    assert found["risk"].fit == IDENTITY
    assert corrected(PLAN, FEATURES, raw, found) == raw
    card = corrections_card(found)["risk"]
    assert not card["applied"]
    assert card["note"].startswith("not applied: ")
    assert card["slope"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_the_card_has_a_cost_for_every_release_and_a_place_for_the_audit() -> None:
    total, _ = evaluation(20_000)
    found = corrections(PLAN, recalibration(30_000, 1.5))
    raw = corrected(PLAN, FEATURES, parameters(), found)
    figures = findings(PLAN, total)
    message = publication(PLAN, "r1", FEATURES, raw, figures, {}, found, {"passed": True})
    card = json.loads(message.card)
    releases = {row["release"]: row for row in card["costs"]}
    assert list(releases) == [task.name for task in PLAN.tasks]
    assert sum(row["share"] for row in card["costs"]) == pytest.approx(1.0)
    assert releases["evaluation-sex"]["share"] == pytest.approx(0.05 / 1.2, rel=1e-6)
    named = {figures["risk"]["release"], *(table["release"] for table in figures["risk"]["groups"])}
    named |= {one["release"] for one in card["recalibration"].values()}
    assert named <= releases.keys()
    assert card["audit"] == {"passed": True}
    bundle = parse_bundle(message.models["risk"])
    fit = found["risk"].fit
    assert (bundle.facts.slope, bundle.facts.intercept) == (fit.slope, fit.intercept)
    span = PLAN.parameter_spans()["risk"]
    assert np.array_equal(bundle.parameters, np.frombuffer(raw, dtype="<f4")[span].astype(np.float64))
    assert not parse_bundle(message.models["segment"]).facts.recalibrated


def test_the_card_as_text_has_the_figures_and_says_what_recalibration_did() -> None:
    total, _ = evaluation(20_000)
    for slope, words in ((1.5, "risk: recalibrated"), (None, "risk: recalibration not applied (the round was void")):
        found = corrections(PLAN, recalibration(30_000, slope) if slope else None)
        figures = findings(PLAN, total)
        raw = corrected(PLAN, FEATURES, parameters(), found)
        card = json.loads(publication(PLAN, "r1", FEATURES, raw, figures, {}, found).card)
        text = run_text(PLAN, card)
        assert f"risk: AUC {figures['risk']['auc']['value']:.3f}" in text
        assert f"Brier score {figures['risk']['brier']['value']:.3f}" in text
        assert words in text
        assert f"plan {PLAN.name}" in text
    assert "no model has been published" in run_text(PLAN, None)


def test_shares_are_those_that_the_plan_declares() -> None:
    for cost, task in zip(costs(PLAN), PLAN.tasks, strict=True):
        total = sum(one.share for one in PLAN.tasks)
        assert cost["share"] == pytest.approx(task.share / total, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("recalibration", {"by": {"fact": "sex", "values": ["female", "male"]}}),
        ("evaluation-sex", {"by": {"fact": "sex", "values": ["female"]}}),
        ("evaluation-sex", {"by": None}),
        ("evaluation-sex", {"by": {"fact": "age", "cuts": [45.0]}}),
    ],
)
def test_a_plan_whose_counts_do_not_fit_is_refused(name: str, changes: dict[str, Any]) -> None:
    plan = json.loads(PLAN.canonical())
    task = next(one for one in plan["tasks"] if one["name"] == name)
    task |= changes
    with pytest.raises(Reject, match="plan-invalid"):
        parse_plan(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode())
