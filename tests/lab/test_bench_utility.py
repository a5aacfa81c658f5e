"""`cameo bench utility`: honest splits, the product's own plan and noise, and figures that are what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cameo_lab.bench import utility, utility_private
from cameo_lab.bench.utility import Measure, Row, measure_set, table
from cameo_lab.bench.utility_classic import TUNED, alone_scores, classic_scores, pooled_scores
from cameo_lab.bench.utility_data import Site, UtilitySet, held_out, made_up_set, read_sets
from cameo_lab.bench.utility_private import our_scores, risk_plan, train
from cameo_lab.cli import app
from cameo_protocol.errors import OperatorError
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import plan_releases

PUBLIC = Path(__file__).parents[3] / "shared" / "data"
SHORT = ("training.rounds=6", "training.spare=1")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return made_up_set(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def split(made_up):
    return [held_out(site.labels, (0, index)) for index, site in enumerate(made_up.sites)]


def auc_of(data, held, scores):
    return utility._auc(data, held, scores)


def test_a_split_holds_out_a_fifth_of_each_class_and_depends_on_the_seed_only():
    labels = np.array([0.0] * 50 + [1.0] * 20)
    held = held_out(labels, (3, 1))
    assert held[:50].sum() == 10
    assert held[50:].sum() == 4
    np.testing.assert_array_equal(held, held_out(labels, (3, 1)))
    assert not np.array_equal(held, held_out(labels, (4, 1)))


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_the_plan_spends_all_of_epsilon_on_the_risk_model(made_up, mode):
    plan = risk_plan(made_up, mode, 1.0, None)
    assert [task.kind for task in plan.tasks] == ["risk"]
    spent = epsilon([release for _, release in plan_releases(plan)], plan.privacy.delta)
    assert spent == pytest.approx(1.0, rel=1e-6)
    assert plan.privacy.delta <= 1e-5
    assert plan.cohort.colluders == 1
    looser = risk_plan(made_up, mode, 1.0, 1e-3)
    assert looser.tasks[0].encoded.sigma < plan.tasks[0].encoded.sigma


def test_training_uses_every_hospital_and_only_those_not_held_out(made_up, split, monkeypatch):
    seen = []

    class Spy(utility_private.Contributor):
        def __init__(self, plan, patients, noise, random):
            seen.append(patients)
            assert noise is utility_private.discrete_gaussian
            super().__init__(plan, patients, noise, random)

    monkeypatch.setattr(utility_private, "Contributor", Spy)
    plan = risk_plan(made_up, "distributed", 1.0, None, SHORT)
    params = train(plan, made_up, split)
    assert params.shape == (plan.layout("train").dim,)
    assert len(seen) == 4
    for patients, held in zip(seen, split, strict=True):
        np.testing.assert_array_equal(patients.held_out, held)


def test_noise_is_fresh_in_every_run(made_up, split):
    plan = risk_plan(made_up, "distributed", 1.0, None, SHORT)
    assert not np.array_equal(train(plan, made_up, split), train(plan, made_up, split))


def test_with_little_noise_ours_comes_near_the_pooled_model(made_up):
    """Labels that a line tells apart, so that a wrong row, sign or weight anywhere would show."""
    line = np.random.default_rng(2).normal(size=made_up.sites[0].features.shape[1])
    middle = np.median(np.concatenate([site.features @ line for site in made_up.sites]))
    sites = [Site(s.name, s.features, (s.features @ line > middle).astype(float)) for s in made_up.sites]
    data = UtilitySet(made_up.name, made_up.catalogue, made_up.label, tuple(sites))
    held = [held_out(site.labels, (0, index)) for index, site in enumerate(sites)]
    plan = risk_plan(data, "distributed", 20.0, 1e-3)
    pooled = auc_of(data, held, pooled_scores(data, held))
    assert pooled > 0.98
    assert auc_of(data, held, our_scores(plan, data, held)) > pooled - 0.05


def test_the_others_score_every_held_out_patient(made_up, split):
    sizes = [int(held.sum()) for held in split]
    recipe = TUNED["cardiometabolic"]
    for scores in (
        pooled_scores(made_up, split),
        alone_scores(made_up, split),
        classic_scores(recipe, 1.0, 1e-3, made_up, split, 0),
    ):
        assert [len(each) for each in scores] == sizes
        assert all(((each >= 0) & (each <= 1)).all() for each in scores)


def test_a_hospital_of_one_class_alone_gives_everybody_the_same_score(made_up):
    one = Site("one", made_up.sites[0].features, np.ones(len(made_up.sites[0].labels)))
    data = UtilitySet("cardiometabolic", made_up.catalogue, made_up.label, (one,))
    held = [held_out(one.labels, (0, 0))]
    assert set(alone_scores(data, held)[0]) == {1.0}


def test_the_difference_is_paired_by_split(made_up, monkeypatch):
    aucs = iter([0.8, 0.9, 0.79, 0.87])
    monkeypatch.setattr(utility, "_auc", lambda *_: next(aucs))
    ways = [(utility.POOLED, None, 1, lambda *_: []), (utility.OURS, 1e-3, 1, lambda *_: [])]
    monkeypatch.setattr(utility, "_methods", lambda *_: iter(ways))
    pooled, ours = measure_set(made_up, Measure(splits=2), lambda _: None)
    assert (pooled.auc_mean, pooled.diff_mean, pooled.delta) == (0.85, 0.0, None)
    assert ours.diff_mean == pytest.approx(-0.02)
    assert ours.diff_sd == pytest.approx(0.01 * np.sqrt(2), abs=1e-5)


def test_the_goal_needs_both_the_distance_and_the_classic_way():
    def row(method, diff):
        return Row(
            set="heart", method=method, epsilon=1.0, delta=1e-3, auc_mean=0.9, auc_sd=0.0, diff_mean=diff, diff_sd=0.0
        )

    assert utility._goal("heart", [row(utility.OURS, -0.009), row(utility.CLASSIC, -0.02)], 1.0)["met"]
    assert not utility._goal("heart", [row(utility.OURS, -0.011), row(utility.CLASSIC, -0.02)], 1.0)["met"]
    assert not utility._goal("heart", [row(utility.OURS, -0.009), row(utility.CLASSIC, -0.008)], 1.0)["met"]
    assert utility._goal("cardiometabolic", [], 1.0) is None


def test_a_folder_without_the_data_says_what_to_get(tmp_path):
    with pytest.raises(OperatorError, match="bench-data-missing"):
        read_sets(tmp_path)


def test_quick_runs_from_nothing_and_prints_rows():
    result = CliRunner().invoke(app, ["bench", "utility", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    assert len(found["rows"]) == 8
    assert {"set", "method", "epsilon", "delta", "auc_mean", "auc_sd", "diff_mean"} <= found["rows"][0].keys()
    text = table(found)
    assert all(row["method"] in text for row in found["rows"])


@pytest.mark.skipif(not PUBLIC.is_dir(), reason=f"public data is not in {PUBLIC}")
def test_the_public_sets_are_read_whole():
    heart, support2 = read_sets(PUBLIC)
    assert [len(site.labels) for site in heart.sites] == [303, 294, 123, 200]
    assert len(support2.sites) == 8
    assert sum(len(site.labels) for site in support2.sites) == 9105
    assert read_sets(PUBLIC / "support2")[0].name == "support2"
