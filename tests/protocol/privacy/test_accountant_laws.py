"""Laws of accounting: more noise never costs more; more rounds, or a higher rate, never cost less."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privacy_plans import FULL, release

from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import Release

sigmas = st.floats(0.4, 200)
counts = st.integers(1, 2000)
full_batch = st.lists(st.builds(release, sigmas, counts), min_size=1, max_size=6)
sampled = st.builds(release, st.floats(0.9, 5), st.integers(1, 40), st.floats(0.01, 0.9))
few = settings(max_examples=60 if FULL else 4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
deltas = st.sampled_from([1e-8, 1e-6, 1e-5, 5e-4])


@given(full_batch, deltas, st.floats(1.0, 3.0))
def test_more_noise_costs_no_more(releases: list[Release], target: float, factor: float) -> None:
    noisier = [release(r.sigma * factor, r.count) for r in releases]
    assert epsilon(noisier, target) <= epsilon(releases, target) * (1 + 1e-9)


@given(full_batch, deltas, full_batch)
def test_more_releases_cost_no_less_and_no_more_than_the_sum(
    releases: list[Release], target: float, more: list[Release]
) -> None:
    both, first, second = (epsilon(x, target) for x in (releases + more, releases, more))
    assert both >= max(first, second) * (1 - 1e-9)
    # Basic composition: epsilons and deltas add up to a valid, weaker statement.
    assert epsilon(releases + more, 2 * target) <= (first + second) * (1 + 1e-9) + 1e-12


@given(full_batch, deltas, st.randoms())
def test_order_and_splitting_do_not_matter(releases: list[Release], target: float, rng: random.Random) -> None:
    shuffled = rng.sample(releases, len(releases))
    split = [release(r.sigma, part) for r in shuffled for part in (r.count // 2, r.count - r.count // 2) if part]
    assert epsilon(split, target) == pytest.approx(epsilon(releases, target), rel=1e-12)


@given(full_batch, st.sampled_from([(1e-8, 1e-6), (1e-6, 1e-5), (1e-5, 1e-3)]))
def test_a_larger_delta_gives_no_larger_epsilon(releases: list[Release], pair: tuple[float, float]) -> None:
    assert epsilon(releases, pair[1]) <= epsilon(releases, pair[0])


@few
@given(sampled, st.floats(1.0, 2.0))
def test_sampled_more_noise_costs_no_more(r: Release, factor: float) -> None:
    noisier = release(r.sigma * factor, r.count, r.q)
    assert epsilon([noisier], 1e-5) <= epsilon([r], 1e-5) + 1e-3


@few
@given(sampled, st.floats(0.2, 1.0), st.integers(0, 50))
def test_sampled_a_lower_rate_or_fewer_rounds_cost_no_more(r: Release, factor: float, more: int) -> None:
    rarer = release(r.sigma, r.count, r.q * factor)
    longer = release(r.sigma, r.count + more, r.q)
    assert epsilon([rarer], 1e-5) <= epsilon([r], 1e-5) + 1e-3
    assert epsilon([r], 1e-5) <= epsilon([longer], 1e-5) + 1e-3


@few
@given(sampled)
def test_sampling_helps(r: Release) -> None:
    assert epsilon([r], 1e-5) <= epsilon([release(r.sigma, r.count)], 1e-5) + 1e-3
