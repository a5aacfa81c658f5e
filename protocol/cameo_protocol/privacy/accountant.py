"""Composed privacy loss of releases under "add or remove one patient".

Full batch only: the exact curve of the composed Gaussian mechanism. With Poisson sampling: privacy loss
distributions from dp_accounting, in their pessimistic discretisation. Epsilons are never added.
Sources: Balle & Wang, ICML 2018, theorem 8 (analytic Gaussian); Dong, Roth & Su, 2022, corollary 3.3
(Gaussians compose to a Gaussian with mu^2 = sum of count / sigma^2); Doroshenko et al., PoPETs 2022 (PLD).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from cameo_protocol.errors import Bug
from cameo_protocol.privacy.releases import Release

# Below these the loss distribution of a sampled release grows past a few million points; no plan of ours is near.
MIN_SAMPLED_SIGMA = 0.3
MIN_SAMPLED_Q = 1e-6
MAX_SAMPLED_COUNT = 10**6
MAX_EPSILON = 1e6
_DISCRETISATION = 1e-4

Key = tuple[tuple[float, float, int], ...]


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """The least epsilon with which the composition of all releases is (epsilon, delta)-DP, rounded up.

    releases: any order; equal ones are merged. delta: 0 < delta < 1. No release: 0. Full-batch releases are
    exact to 1e-9; sampled ones give an upper bound within 1e-3. Above `MAX_EPSILON` the answer is inf: that is no
    guarantee. Refuses (Bug) what it does not know.
    """
    _check_delta(delta)
    mu, sampled = _split(releases)
    if sampled:
        return float(_accountant(mu, sampled).get_epsilon(delta))
    return gaussian_epsilon(mu, delta)


def delta(releases: Iterable[Release], epsilon: float) -> float:
    """The least delta with which the composition of all releases is (epsilon, delta)-DP; the inverse of `epsilon`."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise Bug("accounting-unknown", what="epsilon must be a finite number >= 0")
    mu, sampled = _split(releases)
    if sampled:
        return float(_accountant(mu, sampled).get_delta(epsilon))
    return gaussian_delta(mu, epsilon)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """delta(epsilon) of a Gaussian whose sensitivity is mu standard deviations; in [0, 1], falling in epsilon.

    Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu): Balle & Wang 2018, theorem 8.
    """
    from scipy.special import log_ndtr

    if mu == 0:
        return 0.0
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    # e^first - e^second without cancellation or overflow; second <= first up to rounding.
    return math.exp(first) * -math.expm1(min(second - first, 0.0))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon >= 0 with gaussian_delta(mu, epsilon) <= delta, found from above."""
    _check_delta(delta)
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    # Phi(-x) <= exp(-x^2 / 2) bounds the first term of delta, so this epsilon is always enough.
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(-2 * math.log(delta))
    if high > MAX_EPSILON:
        return math.inf
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if gaussian_delta(mu, middle) <= delta else (middle, high)
    return high


def full_batch_mu(releases: Iterable[Release]) -> float:
    """sqrt(sum of count / sigma^2) over full-batch releases: what one Gaussian with the same guarantee has."""
    return math.sqrt(math.fsum(r.count / r.sigma / r.sigma for r in releases))


def _check_delta(value: float) -> None:
    if not 0 < value < 1:
        raise Bug("accounting-unknown", what="delta must be a number between 0 and 1")


def _split(releases: Iterable[Release]) -> tuple[float, Key]:
    """(mu of all full-batch releases together, sampled releases merged and sorted)."""
    full: list[Release] = []
    sampled: dict[tuple[float, float], int] = {}
    for release in releases:
        if not isinstance(release, Release):
            raise Bug("accounting-unknown", what="the accountant knows Gaussian releases of a patient only")
        if release.q == 1:
            full.append(release)
            continue
        _check_sampled(release)
        pair = (release.sigma, release.q)
        sampled[pair] = sampled.get(pair, 0) + release.count
    return full_batch_mu(full), tuple((sigma, q, n) for (sigma, q), n in sorted(sampled.items()))


def _check_sampled(release: Release) -> None:
    if release.sigma < MIN_SAMPLED_SIGMA or release.q < MIN_SAMPLED_Q or release.count > MAX_SAMPLED_COUNT:
        raise Bug(
            "accounting-unknown",
            what=f"sampled releases need sigma >= {MIN_SAMPLED_SIGMA}, q >= {MIN_SAMPLED_Q} and at most 10^6 rounds",
        )


@lru_cache(maxsize=256)
def _accountant(mu: float, sampled: Key) -> Any:
    """A PLD accountant that holds everything; all full-batch releases enter as one Gaussian."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=_DISCRETISATION)
    for sigma, q, count in sampled:
        accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), count)
    if mu > 0:
        accountant.compose(GaussianDpEvent(1 / mu))
    return accountant
