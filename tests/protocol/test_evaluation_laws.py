"""Laws of evaluation: any histogram gives figures in range, and clear figures have their symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol.evaluation import adjusted_rand, auc, calibration_error, evaluate
from cameo_protocol.recalibration import INTERCEPT_RANGE, SLOPE_RANGE, fit_recalibration

LANES = st.integers(1, 12).flatmap(
    lambda bins: st.lists(st.integers(-(2**31), 2**31), min_size=2 * bins, max_size=2 * bins)
)
NOISE = st.floats(0.0, 1e6)
SCORED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 1)), max_size=40)


@given(LANES, NOISE)
def test_every_histogram_gives_figures_in_range(lanes, noise):
    figures = evaluate(np.array(lanes), noise)
    estimates = [(figures.auc, 0.0), (figures.brier, 0.0), (figures.prevalence, 0.0), (figures.gap, -1.0)]
    estimates += [(point.observed, 0.0) for point in figures.curve]
    for estimate, lowest in estimates:
        assert estimate is None or lowest <= estimate.low <= estimate.value <= estimate.high <= 1.0


@given(LANES, NOISE)
def test_every_histogram_gives_a_finite_correction(lanes, noise):
    fitted = fit_recalibration(np.array(lanes), noise)
    assert SLOPE_RANGE[0] <= fitted.slope <= SLOPE_RANGE[1]
    assert INTERCEPT_RANGE[0] <= fitted.intercept <= INTERCEPT_RANGE[1]


@given(SCORED)
def test_exchanging_the_classes_mirrors_the_auc(pairs):
    scores, labels = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], dtype=int)
    value = auc(scores, labels)
    assert (auc(scores, 1 - labels) is None) if value is None else auc(scores, 1 - labels) == pytest.approx(1 - value)
    error = calibration_error(scores, labels)
    assert (error is None) == (not pairs)
    assert error is None or 0.0 <= error <= 1.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.permutations(range(4)))
def test_agreement_is_symmetric_and_blind_to_names(pairs, names):
    one, two = np.array([p[0] for p in pairs], dtype=int), np.array([p[1] for p in pairs], dtype=int)
    value = adjusted_rand(one, two)
    assert value == pytest.approx(adjusted_rand(two, one))
    assert value == pytest.approx(adjusted_rand(np.array(names, dtype=int)[one], two))
    assert adjusted_rand(one, one) == pytest.approx(1.0)
    assert value <= 1.0 + 1e-12
