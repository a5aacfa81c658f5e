"""Known answers of the accountant, and its agreement with libraries that know nothing of ours."""

from __future__ import annotations

import math
import random

import mpmath
import pytest
from privacy_plans import FULL, release

from cameo_protocol.errors import Bug
from cameo_protocol.privacy.accountant import delta, epsilon, gaussian_delta, gaussian_epsilon
from cameo_protocol.privacy.releases import MAX_COUNT, Release


def exact_delta(mu: float, eps: float) -> float:
    """Balle & Wang's theorem 8 with 60 digits."""
    with mpmath.workdps(60):
        m, e = mpmath.mpf(mu), mpmath.mpf(eps)
        return float(mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m))


def pld_epsilon(releases: list[Release], target: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    for r in releases:
        event = GaussianDpEvent(r.sigma)
        accountant.compose(event if r.q == 1 else PoissonSampledDpEvent(r.q, event), r.count)
    return float(accountant.get_epsilon(target))


@pytest.mark.parametrize("mu", [1e-4, 0.01, 0.3, 1.0, 4.0, 30.0, 200.0])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0, 1.3])
def test_the_gaussian_curve_is_right_to_nine_digits(mu: float, share: float) -> None:
    eps = share * (mu * mu / 2 + 5 * mu)
    expected = exact_delta(mu, eps)
    assert gaussian_delta(mu, eps) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("target", [1e-12, 1e-7, 1e-5, 7e-4])
@pytest.mark.parametrize("mu", [0.01, 0.2, 1.0, 5.0, 50.0])
def test_epsilon_is_the_least_that_holds(mu: float, target: float) -> None:
    found = gaussian_epsilon(mu, target)
    assert exact_delta(mu, found) <= target * (1 + 1e-9)
    if found > 0:
        assert exact_delta(mu, found * (1 - 1e-6)) > target


def test_known_answer_of_mu_1() -> None:
    # mu = 1 at delta 1e-5: epsilon 4.37718 (Dong, Roth & Su's duality, by mpmath's root finder).
    with mpmath.workdps(40):
        root = mpmath.findroot(
            lambda e: mpmath.ncdf(mpmath.mpf(1) / 2 - e) - mpmath.exp(e) * mpmath.ncdf(-mpmath.mpf(1) / 2 - e) - 1e-5,
            4,
        )
    assert epsilon([release(1.0, 1)], 1e-5) == pytest.approx(float(root), rel=1e-11)


@pytest.mark.parametrize(
    "releases",
    [
        [release(5.0, 80)],
        [release(50.0, 100), release(10.0, 1)],
        [release(42.9, 88), release(74.3, 88), release(11.2, 1)],
        [release(0.5, 3)],
        [release(200.0, 1)],
    ],
)
def test_the_closed_form_agrees_with_pld(releases: list[Release]) -> None:
    assert epsilon(releases, 1e-5) == pytest.approx(pld_epsilon(releases, 1e-5), rel=1e-3)


def test_the_closed_form_agrees_with_pld_on_random_plans() -> None:
    """Several tasks, each with its own noise and rounds, as plans have them: epsilon between about 0.1 and 20."""
    rng = random.Random(4)
    for _ in range(200 if FULL else 8):
        rounds = rng.randint(1, 600)
        scale = math.exp(rng.uniform(math.log(0.3), math.log(20)))
        releases = [
            release(scale * math.sqrt(count / rng.uniform(0.05, 0.6)), count) for count in (rounds, rounds, 1, 1)
        ]
        target = math.exp(rng.uniform(math.log(1e-9), math.log(1e-4)))
        assert epsilon(releases, target) == pytest.approx(pld_epsilon(releases, target), rel=1e-3, abs=1e-4)


def test_full_batch_releases_join_a_sampled_composition_as_one_gaussian() -> None:
    releases = [release(8.0, 20), release(1.2, 50, 0.1), release(12.0, 5), release(1.2, 30, 0.1)]
    assert epsilon(releases, 1e-5) == pytest.approx(pld_epsilon(releases, 1e-5), rel=1e-3)


def test_delta_is_the_inverse_also_with_sampling() -> None:
    for releases in ([release(4.0, 10)], [release(1.0, 40, 0.05), release(20.0, 4)]):
        assert delta(releases, epsilon(releases, 1e-6)) == pytest.approx(1e-6, rel=1e-6)


def test_epsilons_are_composed_and_not_added() -> None:
    once, twice = epsilon([release(5.0, 1)], 1e-5), epsilon([release(5.0, 2)], 1e-5)
    assert once < twice < 2 * once


def test_nothing_released_costs_nothing_and_no_noise_has_no_bound() -> None:
    assert epsilon([], 1e-5) == 0.0
    assert delta([], 0.0) == 0.0
    assert epsilon([release(1e9, 1)], 1e-5) == 0.0  # hidden by delta alone
    assert epsilon([release(1e-200, 1)], 1e-5) == math.inf
    assert epsilon([release(1e-4, 1)], 1e-5) == math.inf


@pytest.mark.parametrize(
    "fields",
    [
        {"sigma": 0.0},
        {"sigma": -1.0},
        {"sigma": math.nan},
        {"sigma": math.inf},
        {"sigma": "2"},
        {"sigma": True},
        {"q": 0.0},
        {"q": 1.01},
        {"q": math.nan},
        {"count": 0},
        {"count": 1.5},
        {"count": True},
        {"count": MAX_COUNT + 1},
        {"unit": "record"},
    ],
)
def test_a_release_that_means_nothing_is_not_made(fields: dict[str, object]) -> None:
    sound: dict[str, object] = {"sigma": 1.0, "q": 1.0, "count": 1}
    with pytest.raises(Bug, match="release-invalid"):
        Release(**(sound | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_means_nothing_is_refused(target: float) -> None:
    with pytest.raises(Bug, match="accounting-unknown"):
        epsilon([release(1.0, 1)], target)


def test_what_the_accountant_does_not_know_is_refused() -> None:
    for unknown in (release(0.1, 1, 0.5), release(1.0, 1, 1e-9), release(1.0, 10**7, 0.5)):
        with pytest.raises(Bug, match="accounting-unknown"):
            epsilon([unknown], 1e-5)
    with pytest.raises(Bug, match="accounting-unknown"):
        epsilon([("gaussian", 1.0)], 1e-5)  # type: ignore[list-item]
    with pytest.raises(Bug, match="accounting-unknown"):
        delta([release(1.0, 1)], -1.0)
