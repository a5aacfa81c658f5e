"""The noise: the right distribution, from no generator that can be predicted, and never absent."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from cameo_client.training import noise
from cameo_client.training.noise import MAX_SD, discrete_gaussian
from cameo_protocol.errors import Bug


@pytest.mark.parametrize("sd", [0.7, 3.0, 500.5])
def test_mean_and_variance(sd):
    draws = discrete_gaussian(sd, 20_000)
    assert draws.dtype == np.int64
    support = np.arange(-int(20 * sd) - 5, int(20 * sd) + 6)
    weight = np.exp(-(support**2) / (2 * sd**2))
    variance = float((support**2 * weight).sum() / weight.sum())
    assert abs(draws.mean()) < 5 * math.sqrt(variance / 20_000)
    assert draws.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / 20_000))


def p_value(sd, size):
    # Spread over its unit cell, a discrete Gaussian of large sd is a Gaussian to far below what KS can see.
    smooth = discrete_gaussian(sd, size) + np.random.default_rng().uniform(-0.5, 0.5, size)
    return float(kstest(smooth, norm(scale=sd).cdf).pvalue)


def test_the_distribution():
    # Sound noise fails the first draw once in 1,000 runs, both once in a million; wrong noise fails both.
    assert p_value(1000.0, 50_000) > 0.001 or p_value(1000.0, 50_000) > 0.001


def test_the_ks_test_sees_noise_that_is_five_percent_too_small():
    smooth = discrete_gaussian(950.0, 50_000) + np.random.default_rng().uniform(-0.5, 0.5, 50_000)
    assert kstest(smooth, norm(scale=1000.0).cdf).pvalue < 0.001


def test_seeding_the_usual_generators_changes_nothing():
    draws = []
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        random.seed(0)
        draws.append(discrete_gaussian(1e6, 20))
    assert not np.array_equal(*draws)
    before = np.random.get_state()[1].copy(), torch.get_rng_state().clone()
    discrete_gaussian(10.0, 100)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


def test_no_draw_repeats():
    assert len(np.unique(discrete_gaussian(1e9, 2_000))) > 1_990


@pytest.mark.parametrize("sd", [0.0, -1.0, math.nan, math.inf, 2 * MAX_SD])
def test_a_scale_without_meaning_is_refused(sd):
    with pytest.raises(Bug, match="noise-scale"):
        discrete_gaussian(sd, 3)


def test_sizes():
    assert discrete_gaussian(5.0, 0).shape == (0,)
    assert discrete_gaussian(5.0, 7).shape == (7,)
    with pytest.raises(Bug, match="noise-size"):
        discrete_gaussian(5.0, -1)


def test_the_sampler_is_built_once_for_a_scale():
    noise._sampler.cache_clear()
    for _ in range(5):
        discrete_gaussian(12.25, 2)
    assert noise._sampler.cache_info().misses == 1


def test_the_largest_scale_does_not_saturate():
    assert np.abs(discrete_gaussian(MAX_SD, 100)).max() < 20 * MAX_SD
