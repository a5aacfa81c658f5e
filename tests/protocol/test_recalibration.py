"""Recalibration from a histogram: finds the truth when it can, keeps the identity when it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cameo_protocol.errors import Bug
from cameo_protocol.evaluation import calibration_error
from cameo_protocol.recalibration import IDENTITY, fit_recalibration
from cameo_protocol.score_bins import bin_of

BINS = 20


def patients(size, rng, slope, intercept):
    logits = rng.normal(-1, 1, size)
    labels = (rng.random(size) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(int)
    return logits, labels


def histogram(logits, labels, rng, noise):
    scores = 1 / (1 + np.exp(-logits))
    lane = bin_of(scores, BINS) + BINS * labels
    return np.bincount(lane, minlength=2 * BINS) + np.rint(rng.normal(0, noise, 2 * BINS))


@pytest.mark.parametrize(("slope", "intercept"), [(1.6, 0.3), (0.7, -0.5), (1.0, 0.0)])
@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_a_large_histogram_gives_the_truth(slope, intercept, noise):
    rng = np.random.default_rng(0)
    fitted = fit_recalibration(histogram(*patients(40_000, rng, slope, intercept), rng, noise), noise)
    assert fitted.slope == pytest.approx(slope, abs=0.1)
    assert fitted.intercept == pytest.approx(intercept, abs=0.1)


def test_it_repairs_calibration_on_new_patients():
    rng = np.random.default_rng(1)
    before, after = [], []
    for _ in range(10):
        fitted = fit_recalibration(histogram(*patients(5_000, rng, 1.6, 0.4), rng, 6.0), 6.0)
        logits, labels = patients(20_000, rng, 1.6, 0.4)
        before.append(calibration_error(1 / (1 + np.exp(-logits)), labels))
        after.append(calibration_error(1 / (1 + np.exp(-(fitted.slope * logits + fitted.intercept))), labels))
    assert min(before) > 0.05
    assert np.mean(after) < np.mean(before) / 2.5


@pytest.mark.parametrize(("slope", "intercept"), [(1.3, 0.2), (0.8, -0.3)])
def test_its_intervals_hold_the_truth(slope, intercept):
    rng = np.random.default_rng(3)
    held = [0, 0]
    for _ in range(100):
        fitted = fit_recalibration(histogram(*patients(6_000, rng, slope, intercept), rng, 6.0), 6.0)
        held[0] += abs(fitted.slope - slope) <= 1.96 * fitted.slope_sd
        held[1] += abs(fitted.intercept - intercept) <= 1.96 * fitted.intercept_sd
    assert min(held) >= 88, held


def test_where_uncertainty_would_do_harm_nothing_is_applied():
    """Some 700 training patients under the noise of epsilon 1."""
    rng = np.random.default_rng(4)
    fits = [fit_recalibration(histogram(*patients(736, rng, 0.85, 0.0), rng, 12.0), 12.0) for _ in range(40)]
    assert sum(fitted == IDENTITY for fitted in fits) >= 36
    assert (IDENTITY.slope_sd, IDENTITY.intercept_sd) == (0.0, 0.0)


@pytest.mark.parametrize("size", [0, 100])
def test_under_noise_that_drowns_the_counts_it_keeps_the_identity(size):
    rng = np.random.default_rng(2)
    fits = [fit_recalibration(histogram(*patients(size, rng, 1.6, 0.3), rng, 60.0), 60.0) for _ in range(50)]
    assert sum(fitted == IDENTITY for fitted in fits) >= 49


def test_no_patients_or_few_keep_the_identity():
    assert fit_recalibration(np.zeros(2 * BINS), 0.0) == IDENTITY
    few = np.zeros(2 * BINS)
    few[[3, 25]] = 2
    assert fit_recalibration(few, 0.0) == IDENTITY


def test_separated_classes_say_nothing_about_the_slope():
    counts = np.zeros(2 * BINS)
    counts[:10], counts[BINS + 10 :] = 500, 500
    assert fit_recalibration(counts, 0.0) == IDENTITY


@pytest.mark.parametrize(("shape", "noise"), [((0,), 1.0), ((7,), 1.0), ((2, 4), 1.0), ((8,), -1.0), ((8,), math.nan)])
def test_misuse_is_a_bug(shape, noise):
    with pytest.raises(Bug, match="recalibration-histogram"):
        fit_recalibration(np.zeros(shape), noise)
