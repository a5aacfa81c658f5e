"""Two numbers that correct a risk model's probabilities, from a noisy score histogram of training patients.

Clipping shrinks slopes and shifts prevalence; logit' = slope * logit + intercept repairs both and keeps every ranking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug
from cameo_protocol.score_bins import REACH, bin_logits

Floats = NDArray[np.float64]
# Before data, the correction is believed to be the identity give or take this much, in slope and intercept.
PRIOR_SD = 0.5
# A slope or intercept known less well than this (one standard deviation, logit units) is not applied.
# Measured on 736 training patients at epsilon 3 (uncertainty .23): applying it made calibration worse, not better;
# on 7,000 to 10,000 (.07 to .19, epsilon 1 and 3) it took a third to three quarters of the error away.
TOO_UNCERTAIN = 0.2
SLOPE_RANGE, INTERCEPT_RANGE = (0.25, 4.0), (-3.0, 3.0)
_STEPS = 50
_MAX_STEP = 1.0
# A bin is read where its two neighbours together are this many noise deviations above zero. The bin's own count has
# no say: choosing bins by the noise that is then read would draw every slope towards 0.
_CLEAR_OF_NOISE = 4.0


@dataclass(frozen=True)
class Recalibration:
    """logit' = slope * logit + intercept, slope > 0.

    slope_sd, intercept_sd: how well each is known (noise and sampling); 0 for the identity, which claims nothing.
    """

    slope: float
    intercept: float
    slope_sd: float = 0.0
    intercept_sd: float = 0.0


IDENTITY = Recalibration(1.0, 0.0)
_START = np.array([1.0, 0.0])


def fit_recalibration(counts: NDArray[np.generic], noise_sd: float) -> Recalibration:
    """Slope and intercept from a joint histogram (2 * bins,) as in `evaluation`; noise_sd: of each lane, >= 0.

    The fit is drawn towards the identity (1, 0) by as much as noise and sampling make it uncertain; where it stays
    more uncertain than TOO_UNCERTAIN, the answer is the identity. Source: Platt (1999); the shrinkage is that of a
    normal prior and a normal error.
    """
    if counts.ndim != 1 or counts.size < 2 or counts.size % 2 or not (0 <= noise_sd < math.inf):
        raise Bug("recalibration-histogram", what="a histogram has 2 x bins lanes and a finite noise")
    zeros, ones = counts.astype(np.float64).reshape(2, -1)
    totals = zeros + ones
    below, above = (np.pad(totals, 1, mode="edge")[at : at + totals.size] for at in (0, 2))
    kept = (below + above) / 2 > _CLEAR_OF_NOISE * noise_sd
    if not kept.any():
        return IDENTITY
    logits = _centres(below, totals, above)
    inputs = np.stack([logits, np.ones(zeros.size)], axis=1)[kept]
    fitted, error = _fit(inputs, ones[kept], totals[kept], noise_sd)
    prior = np.eye(2) * PRIOR_SD**2
    gain = prior @ np.linalg.inv(prior + error)
    left = np.sqrt(np.maximum(np.diag((np.eye(2) - gain) @ prior), 0.0))
    if left.max() > TOO_UNCERTAIN:
        return IDENTITY
    slope, intercept = _START + gain @ (fitted - _START)
    return Recalibration(
        float(np.clip(slope, *SLOPE_RANGE)), float(np.clip(intercept, *INTERCEPT_RANGE)), float(left[0]), float(left[1])
    )


def _centres(below: Floats, totals: Floats, above: Floats) -> Floats:
    """The mean logit of each bin's patients, (bins,): its middle, moved towards the fuller neighbour.

    For a density that is linear across the bin the mean lies width * (above - below) / (24 * count) off the middle;
    taking the middle instead would draw the slope towards 0.
    """
    middles = bin_logits(totals.size)
    width = 2 * REACH / totals.size
    density = np.maximum((below + 2 * totals + above) / 4, 1.0)
    centres: Floats = middles + np.clip(width * (above - below) / (24 * density), -width / 6, width / 6)
    return centres


def _fit(inputs: Floats, ones: Floats, totals: Floats, noise_sd: float) -> tuple[Floats, Floats]:
    """Logistic regression on grouped counts by damped Newton steps: (coefficients (2,), their covariance (2, 2))."""
    weak = np.eye(2) / (10 * PRIOR_SD) ** 2  # keeps the fit finite when the classes separate
    at = _START
    for _ in range(_STEPS):
        shares = 1 / (1 + np.exp(-np.clip(inputs @ at, -30, 30)))
        slope = inputs.T @ (ones - totals * shares) - weak @ (at - _START)
        curvature = _weighted(inputs, totals * shares * (1 - shares)) + weak
        move = np.linalg.solve(curvature, slope)
        at = at + move * min(1.0, _MAX_STEP / max(float(np.linalg.norm(move)), 1e-12))
    # The noise in a bin enters the score as (1 - p) * noise of label 1 - p * noise of label 0.
    spread = curvature + _weighted(inputs, noise_sd**2 * ((1 - shares) ** 2 + shares**2))
    inverse = np.linalg.inv(curvature)
    return at, inverse @ spread @ inverse


def _weighted(inputs: Floats, weights: Floats) -> Floats:
    product: Floats = (inputs * weights[:, None]).T @ inputs
    return product
