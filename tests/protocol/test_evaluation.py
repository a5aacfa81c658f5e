"""Figures from histograms: equal to the clear ones without noise, honest intervals with it, None when too noisy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from cameo_protocol.errors import Bug
from cameo_protocol.evaluation import (
    SMALLEST_SHOWN,
    TOO_NOISY,
    adjusted_rand,
    auc,
    brier,
    calibration_error,
    evaluate,
    evaluate_groups,
    size_band,
)
from cameo_protocol.score_bins import bin_edges, bin_of


def patients(size, rng, prevalence=0.3, spread=2.0):
    labels = (rng.random(size) < prevalence).astype(int)
    logits = rng.normal(size=size) + spread * (labels - 0.5) + math.log(prevalence / (1 - prevalence))
    return 1 / (1 + np.exp(-logits)), labels


def histogram(scores, labels, bins):
    lane = bin_of(scores, bins) + bins * labels
    return np.bincount(lane, minlength=2 * bins)


def middles(scores, bins):
    edges = bin_edges(bins)
    return ((edges[:-1] + edges[1:]) / 2)[bin_of(scores, bins)]


def test_without_noise_the_figures_are_those_of_the_binned_scores():
    scores, labels = patients(2000, np.random.default_rng(0))
    figures = evaluate(histogram(scores, labels, 20), 0.0)
    binned = middles(scores, 20)
    assert figures.auc.value == pytest.approx(roc_auc_score(labels, binned), abs=1e-12)
    assert figures.auc.value == pytest.approx(auc(scores, labels), abs=0.01)
    assert figures.brier.value == pytest.approx(np.mean((binned - labels) ** 2), abs=1e-12)
    assert figures.prevalence.value == pytest.approx(labels.mean(), abs=1e-12)
    assert figures.gap.value == pytest.approx(labels.mean() - binned.mean(), abs=1e-12)


def test_the_curve_by_hand():
    zeros, ones = [900, 300, 0, 0], [100, 300, 0, 700]
    curve = evaluate(np.array(zeros + ones), 0.0).curve
    assert [round(point.high, 3) for point in curve] == [0.076, 0.5, 0.924, 1.0]
    assert curve[0].predicted == pytest.approx(0.0379, abs=1e-4)
    assert curve[0].observed.value == pytest.approx(0.1)
    assert curve[1].observed.value == pytest.approx(0.5)
    assert curve[2].observed is None
    assert curve[3].observed.value == 1.0
    assert curve[0].observed.low < 0.1 < curve[0].observed.high
    assert curve[3].observed.high == 1.0


@pytest.mark.parametrize(("size", "noise", "bins"), [(800, 0.0, 20), (2000, 6.0, 10), (8000, 6.0, 20)])
def test_intervals_cover_the_truth(size, noise, bins):
    rng = np.random.default_rng(1)
    many, their_labels = patients(400_000, rng)
    truth = {
        "auc": auc(middles(many, bins), their_labels),
        "brier": brier(middles(many, bins), their_labels),
        "prevalence": 0.3,
        "gap": 0.3 - middles(many, bins).mean(),
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(200):
        noisy = histogram(*patients(size, rng), bins) + np.rint(rng.normal(0, noise, 2 * bins))
        figures = evaluate(noisy, noise)
        for name, value in truth.items():
            estimate = getattr(figures, name)
            covered[name] += estimate.low <= value <= estimate.high
    assert all(count >= 180 for count in covered.values()), covered


@pytest.mark.parametrize(
    ("size", "noise", "prevalence"), [(200, 2.0, 0.3), (400, 5.0, 0.3), (1500, 10.0, 0.1), (3000, 10.0, 0.1)]
)
def test_intervals_of_a_group_are_shown_and_wrong_in_few_runs(size, noise, prevalence):
    """A figure near the limit of noise is shown by luck, so what is bounded is how often one is shown and misses."""
    rng = np.random.default_rng(11)
    many, their_labels = patients(300_000, rng, prevalence)
    mid = middles(many, 8)
    truth = {"auc": auc(mid, their_labels), "brier": brier(mid, their_labels), "prevalence": prevalence}
    truth["gap"] = prevalence - mid.mean()
    shown_and_wrong = dict.fromkeys(truth, 0)
    for _ in range(200):
        counts = np.concatenate([histogram(*patients(size, rng, prevalence), 8), np.zeros(16)])
        group, empty = evaluate_groups(counts + np.rint(rng.normal(0, noise, 32)), 2, noise)
        assert empty.figures.auc is None
        for name, value in truth.items():
            estimate = getattr(group.figures, name)
            shown_and_wrong[name] += estimate is not None and not estimate.low <= value <= estimate.high
    assert all(count <= 20 for count in shown_and_wrong.values()), shown_and_wrong


def test_a_group_of_fewer_than_eleven_is_hidden_whatever_the_noise():
    rng = np.random.default_rng(12)
    for noise in (0.0, 0.1, 5.0):
        for size in (0, 1, 10):
            counts = histogram(*patients(size, rng), 8) + np.rint(rng.normal(0, noise, 16))
            (group,) = evaluate_groups(counts, 1, noise)
            assert group.hidden == (counts.sum() < SMALLEST_SHOWN)
            assert group.figures.curve[0].observed is None or not group.hidden
            if noise < 1:
                assert (group.hidden, group.size) == (True, "fewer than 11")
    (group,) = evaluate_groups(np.full(16, 5), 1, 0.0)
    assert (group.hidden, group.size, group.figures.prevalence is not None) == (False, "50 to 100", False)


def test_a_size_band_holds_the_size_that_noise_hides():
    rng = np.random.default_rng(13)
    for size in (0, 8, 40, 300, 4000):
        held = 0
        for _ in range(300):
            band = size_band(size + rng.normal(0, 20), 20.0).replace(",", "")
            numbers = [int(word) for word in band.split() if word.isdigit()]
            low = 0 if band.startswith("fewer") or not numbers else numbers[0]
            high = numbers[-1] if numbers and not band.startswith("more") else 10**9
            held += low <= size <= high
        assert held >= 280, size


@pytest.mark.parametrize(("size", "groups"), [(16, 0), (16, 3), (18, 2)])
def test_groups_that_do_not_share_a_histogram_are_a_bug(size, groups):
    with pytest.raises(Bug, match="evaluation-histogram"):
        evaluate_groups(np.zeros(size), groups, 1.0)


def test_an_interval_without_its_noise_would_be_too_short():
    rng = np.random.default_rng(2)
    truth = auc(middles((many := patients(400_000, rng))[0], 10), many[1])
    covered = 0
    for _ in range(200):
        noisy = histogram(*patients(2000, rng), 10) + np.rint(rng.normal(0, 12.0, 20))
        estimate = evaluate(noisy, 0.0).auc
        covered += estimate.low <= truth <= estimate.high
    assert covered < 170


def test_a_small_test_set_under_strong_noise_says_nothing():
    rng = np.random.default_rng(3)
    for _ in range(50):
        noisy = histogram(*patients(184, rng, prevalence=0.55), 10) + np.rint(rng.normal(0, 16.7, 20))
        figures = evaluate(noisy, 16.7)
        assert figures.auc is None
        assert all(point.observed is None for point in figures.curve)


def test_noise_alone_says_nothing():
    rng = np.random.default_rng(4)
    said = [evaluate(rng.normal(0, 50, 40), 50.0) for _ in range(100)]
    assert all(figures.auc is None and figures.brier is None for figures in said)


@pytest.mark.parametrize("counts", [[0] * 8, [5, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 3]])
def test_nobody_or_one_class_has_no_auc(counts):
    assert evaluate(np.array(counts), 0.0).auc is None


def test_a_handful_of_patients_who_agree_is_no_certainty():
    figures = evaluate(np.array([4, 0, 0, 0, 0, 0, 0, 4]), 0.0)
    assert figures.auc is None
    assert evaluate(np.array([0, 0, 0, 0, 0, 0, 0, 6]), 0.0).prevalence is None


def test_the_width_of_a_reported_interval_is_bounded():
    rng = np.random.default_rng(5)
    for size in (50, 200, 1000):
        for noise in (0.0, 2.0, 8.0):
            figures = evaluate(histogram(*patients(size, rng), 10) + rng.normal(0, noise, 20), noise)
            for estimate in (figures.auc, figures.brier, figures.prevalence, figures.gap):
                assert estimate is None or estimate.high - estimate.low <= 2 * 1.96 * TOO_NOISY + 1e-9


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf])
def test_a_noise_without_meaning_is_a_bug(noise):
    with pytest.raises(Bug, match="evaluation-histogram"):
        evaluate(np.zeros(8), noise)


@pytest.mark.parametrize("shape", [(0,), (7,), (2, 4)])
def test_a_histogram_of_another_shape_is_a_bug(shape):
    with pytest.raises(Bug, match="evaluation-histogram"):
        evaluate(np.zeros(shape), 1.0)


def test_clear_figures_equal_those_of_sklearn():
    rng = np.random.default_rng(6)
    scores, labels = patients(500, rng)
    scores = np.round(scores, 2)  # ties
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert brier(scores, labels) == pytest.approx(np.mean((scores - labels) ** 2))
    one, two = rng.integers(0, 4, 300), rng.integers(5, 8, 300)
    assert adjusted_rand(one, two) == pytest.approx(adjusted_rand_score(one, two))
    assert adjusted_rand(one, one % 2) == pytest.approx(adjusted_rand_score(one, one % 2))


def test_clear_figures_at_the_edges():
    nobody = np.zeros(0)
    assert auc(nobody, nobody) is None
    assert auc(np.array([0.1, 0.9]), np.array([1, 1])) is None
    assert brier(nobody, nobody) is None
    assert calibration_error(nobody, nobody) is None
    assert adjusted_rand(nobody.astype(int), nobody.astype(int)) == 1.0
    assert adjusted_rand(np.array([3, 3, 3]), np.array([1, 1, 1])) == 1.0
    with pytest.raises(Bug, match="partition-shape"):
        adjusted_rand(np.array([1, 2]), np.array([1]))


def test_calibration_error_by_hand():
    scores = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.9])
    labels = np.array([1, 0, 0, 0, 1, 1])
    assert calibration_error(scores, labels, bins=2) == pytest.approx((abs(1 - 0.4) + abs(2 - 1.8)) / 6)
    assert calibration_error(np.array([1.0]), np.array([1])) == 0.0
