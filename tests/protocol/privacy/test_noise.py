"""The integer noise that hospitals add keeps the continuous Gaussian's promise, and by how much it could miss it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from privacy_plans import make_plan, release

from cameo_protocol.errors import Bug
from cameo_protocol.layout import Block
from cameo_protocol.privacy.accountant import delta, gaussian_delta
from cameo_protocol.privacy.noise import (
    BLOCK_ROUNDING_SD,
    COUNT_ROUNDING_SD,
    MIN_SD,
    bare_sigma,
    hospital_sd,
    lane_slack,
    opened_sd,
    slack,
)

Floats = npt.NDArray[np.float64]


def count_block(sigma: float) -> Block:
    return Block(name="evaluation", dim=40, clip=1.0, bound=900.0, scale=1, sigma=sigma, counts=True)


def trained_block(sigma: float) -> Block:
    return Block(name="risk", dim=21, clip=1.0, bound=4096.0, scale=1 << 14, sigma=sigma)


def discrete_gaussian(sd: float) -> Floats:
    """Probabilities of N_Z(0, sd^2) on a range with all but 1e-80 of the mass."""
    x = np.arange(-int(20 * sd) - 5, int(20 * sd) + 6)
    weight = np.exp(-(x**2) / (2 * sd * sd))
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def summed(sd: float, hospitals: int) -> Floats:
    one = discrete_gaussian(sd)
    total = one
    for _ in range(hospitals - 1):
        total = np.convolve(total, one)
    return total


def exact_delta(noise: Floats, eps: float, shift: int = 1) -> float:
    """The delta of adding this noise to an integer that one patient moves by `shift`."""
    here, there = np.pad(noise, (0, shift)), np.pad(noise, (shift, 0))
    return float(
        max(np.maximum(here - math.exp(eps) * there, 0).sum(), np.maximum(there - math.exp(eps) * here, 0).sum())
    )


def test_a_trained_block_gets_the_noise_of_the_design() -> None:
    block = trained_block(10.0)
    exact = 10.0 * (2**14 + math.sqrt(21))
    assert hospital_sd(block, "distributed", 3, 1) == pytest.approx(exact / math.sqrt(2), rel=1e-8)
    assert hospital_sd(block, "local", 3, 1) == pytest.approx(exact, rel=1e-8)
    assert opened_sd(block, 4, "distributed", 3, 1) == pytest.approx(exact * math.sqrt(2), rel=1e-8)
    assert hospital_sd(block, "distributed", 3, 1) ** 2 * 2 >= exact**2 + BLOCK_ROUNDING_SD**2 * (1 - 1e-6)


def test_a_histogram_gets_a_little_more_than_its_sigma() -> None:
    assert hospital_sd(count_block(11.8), "distributed", 3, 1) == pytest.approx(math.sqrt((11.8**2 + 2.25) / 2))
    assert hospital_sd(count_block(11.8), "distributed", 3, 1) / (11.8 / math.sqrt(2)) < 1.01
    assert hospital_sd(count_block(0.1), "distributed", 9, 1) == MIN_SD


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0, 6.0])
@pytest.mark.parametrize(("threshold", "colluders"), [(3, 1), (7, 3), (12, 2)])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5, 1.0, 2.0, 4.0])
def test_the_sum_of_integer_noise_keeps_the_gaussian_promise(
    sigma: float, threshold: int, colluders: int, eps: float
) -> None:
    hospitals = threshold - colluders
    sd = hospital_sd(count_block(sigma), "distributed", threshold, colluders)
    room = (1 + math.exp(eps)) * math.expm1(lane_slack(sd, hospitals, COUNT_ROUNDING_SD) * 2)
    found = exact_delta(summed(sd, hospitals), eps)
    assert found <= gaussian_delta(1 / sigma, eps) + room + 1e-15


def test_noise_of_exactly_sigma_would_break_the_promise() -> None:
    """The control: without the widening, discrete noise is up to 2.2 times worse than the Gaussian it claims to be."""
    naive = summed(0.8 / math.sqrt(4), 4)
    assert exact_delta(naive, 1.0) > 2.2 * gaussian_delta(1 / 0.8, 1.0)
    naive = summed(3.0 / math.sqrt(2), 2)
    assert exact_delta(naive, 1.0) > 1.04 * gaussian_delta(1 / 3.0, 1.0)


@pytest.mark.parametrize("sigma", [0.8, 2.0, 6.0])
@pytest.mark.parametrize(("threshold", "colluders"), [(3, 1), (7, 3)])
def test_one_hospitals_bare_noise_keeps_its_statement(sigma: float, threshold: int, colluders: int) -> None:
    block = count_block(sigma)
    alone = discrete_gaussian(hospital_sd(block, "distributed", threshold, colluders))
    claimed = bare_sigma(block, "distributed", threshold, colluders)
    assert claimed <= sigma / math.sqrt(threshold - colluders)
    for eps in (0.0, 0.5, 1.0, 3.0):
        assert exact_delta(alone, eps) <= gaussian_delta(1 / claimed, eps) + 1e-12


def test_two_composed_rounds_keep_the_composed_promise() -> None:
    """Two lanes moved together, as one patient in two rounds: the loss is a sum, so convolve the pair of lanes."""
    sd = hospital_sd(count_block(2.0), "distributed", 3, 1)
    noise = summed(sd, 2)
    pair, moved = np.outer(noise, noise), np.outer(np.roll(noise, 1), np.roll(noise, 1))
    for eps in (0.1, 0.5, 1.0, 2.0):
        found = float(np.maximum(pair - math.exp(eps) * moved, 0).sum())
        assert found <= delta([release(2.0, 2)], eps) + 1e-9


@pytest.mark.parametrize("sd", [0.6, 0.8, 1.0, 1.3])
@pytest.mark.parametrize("hospitals", [2, 3, 5])
def test_step_1_sums_of_discrete_gaussians(sd: float, hospitals: int) -> None:
    found, wanted = summed(sd, hospitals), discrete_gaussian(sd * math.sqrt(hospitals))
    middle, other, reach = len(found) // 2, len(wanted) // 2, int(5 * sd * math.sqrt(hospitals))
    ratio = np.log(found[middle - reach : middle + reach] / wanted[other - reach : other + reach])
    bound = lane_slack(sd, hospitals, math.inf)
    assert np.abs(ratio).max() <= bound
    if hospitals == 2:
        assert np.abs(ratio).max() > bound / 1000  # the bound is about this, not vacuous


@pytest.mark.parametrize("rounding", [0.5, 0.7, 1.0])
def test_step_2_a_discrete_gaussian_is_a_rounded_continuous_one(rounding: float) -> None:
    sd, x = 3.0, 2
    y = np.linspace(x - 40, x + 40, 400_001)
    density = np.exp(-((y - x) ** 2) / (2 * (sd**2 - rounding**2)))
    z = np.arange(-8, 13)
    near = np.round(y)[:, None] + np.arange(-9, 10)[None, :]
    norm = np.exp(-((near - y[:, None]) ** 2) / (2 * rounding**2)).sum(axis=1)
    found = np.array([(density / norm * np.exp(-((k - y) ** 2) / (2 * rounding**2))).sum() for k in z])
    wanted = np.exp(-((z - x) ** 2) / (2 * sd**2))
    ratio = np.log(found / wanted)
    assert ratio.max() - ratio.min() <= 2 * lane_slack(sd, 1, rounding)


def test_slack_is_far_below_delta_for_shipped_plans() -> None:
    for mode in ("distributed", "local"):
        for n, t, c in ((4, 3, 1), (20, 14, 7), (100, 67, 33)):
            plan = make_plan(n=n, t=t, c=c, mode=mode, epsilon=8.0)
            assert slack(plan) < plan.privacy.delta / 100


def test_slack_grows_with_lanes_rounds_and_epsilon_and_shows_what_is_too_coarse() -> None:
    small = make_plan(epsilon=3.0)
    assert 0 < slack(small) < slack(make_plan(epsilon=8.0))
    assert lane_slack(0.3, 4, COUNT_ROUNDING_SD) > 1  # far too coarse: reported, not hidden
    assert lane_slack(1.8, 1, COUNT_ROUNDING_SD) < lane_slack(1.8, 2, COUNT_ROUNDING_SD)


def test_noise_is_refused_where_the_claim_has_no_ground() -> None:
    for mode, t, c in (("distributed", 3, 2), ("distributed", 3, -1), ("central", 3, 1)):
        with pytest.raises(Bug, match="noise-invalid"):
            hospital_sd(count_block(1.0), mode, t, c)  # type: ignore[arg-type]
    with pytest.raises(Bug, match="noise-invalid"):
        opened_sd(count_block(1.0), 0, "distributed", 3, 1)
