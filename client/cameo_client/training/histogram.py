"""Counts of scores by class: what an evaluation or a recalibration round sums over the hospitals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug
from cameo_protocol.score_bins import bin_of


def score_histogram(scores: NDArray[np.float64], labels: NDArray[np.generic], bins: int) -> NDArray[np.int64]:
    """Joint histogram of label and score, (2 * bins,) int64: lanes 0..bins-1 count label 0, the rest label 1.

    scores: (N,) in [0, 1], in the public bins of `score_bins`. labels: (N,) of 0 or 1. N = 0 -> zeros.
    Guarantee: a patient adds 1 to at most one lane (L2 sensitivity 1). A score or label that is not finite or
    out of range is left out.
    """
    if bins < 1 or scores.shape != labels.shape or scores.ndim != 1:
        raise Bug("histogram-shape", what="scores and labels need one entry a patient, and at least one bin")
    values = labels.astype(np.float64)
    valid = (scores >= 0) & (scores <= 1) & ((values == 0) | (values == 1))
    lane = bin_of(scores[valid], bins) + bins * values[valid].astype(np.int64)
    return np.bincount(lane, minlength=2 * bins).astype(np.int64)
