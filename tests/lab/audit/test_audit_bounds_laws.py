"""Laws of the lower bounds: they hold as often as they say, and grow with the evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from cameo_lab.audit.bounds import CONFIDENCE, Guesses
from cameo_protocol.privacy.accountant import gaussian_epsilon

DELTA = 1e-5
counts = st.integers(1, 500)


def half(trials: int, wrong: int) -> Guesses:
    return Guesses(outs=trials, false_in=wrong, ins=trials, false_out=wrong)


@given(trials=counts, data=st.data())
def test_upper_limits_cover_and_bounds_fall_with_errors(trials: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, trials - 1))
    fewer, more = half(trials, wrong), half(trials, wrong + 1)
    upper = fewer.upper()[0]
    assert wrong / trials <= upper <= 1
    assert binom.cdf(wrong, trials, upper) == pytest.approx((1 - CONFIDENCE) / 2, rel=1e-6) or upper == 1
    assert 0 <= more.mu() <= fewer.mu()


@given(mu=st.floats(0.05, 6))
def test_exact_rates_never_give_more_than_the_truth(mu: float) -> None:
    rate = float(norm.cdf(-mu / 2))
    for trials in (50, 1_000, 100_000):
        assert half(trials, math.ceil(rate * trials)).mu() <= mu


def test_the_bound_is_exceeded_no_more_often_than_it_says() -> None:
    """10,000 audits of a mechanism that is exactly at its claim: at CONFIDENCE 99.9 %, about 10 may exceed it."""
    random, trials, mu = np.random.default_rng(5), 300, 1.0
    rate = float(norm.cdf(-mu / 2))
    wrong = random.binomial(trials, rate, (10_000, 2))
    seen: dict[tuple[int, int], float] = {}
    for a, b in {(int(a), int(b)) for a, b in wrong}:
        seen[a, b] = Guesses(outs=trials, false_in=a, ins=trials, false_out=b).mu()
    assert sum(seen[int(a), int(b)] > mu for a, b in wrong) <= 25


def test_a_blind_attacker_proves_nothing() -> None:
    assert half(1_000, 500).mu() == 0
    assert Guesses(outs=0, false_in=0, ins=0, false_out=0).mu() == 0


def test_no_error_at_all_is_bounded_by_the_number_of_trials() -> None:
    few, many = half(50, 0), half(5_000, 0)
    assert 0 < few.mu() < many.mu() < math.inf
    assert gaussian_epsilon(many.mu(), DELTA) > gaussian_epsilon(few.mu(), DELTA) > 3
