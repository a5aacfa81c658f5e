"""Counts of scores by class: what an evaluation or a recalibration round sums over the hospitals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug
from cameo_protocol.score_bins import bin_of


def score_histogram(
    scores: NDArray[np.float64],
    labels: NDArray[np.generic],
    bins: int,
    groups: NDArray[np.integer] | None = None,
    count: int = 1,
) -> NDArray[np.int64]:
    """Joint histogram of group, label and score, (count * 2 * bins,) int64.

    Group after group; within one, lanes 0..bins-1 count label 0 and the rest label 1. scores: (N,) in [0, 1], in the
    public bins of `score_bins`. labels: (N,) of 0 or 1. groups: (N,) in 0..count-1, None = all in group 0.
    One row a patient: the caller chooses the row that stands for a patient with several. N = 0 -> zeros.
    Guarantee: a row adds 1 to at most one lane (L2 sensitivity 1). A score or label that is not finite or out of
    range, or a group outside 0..count-1 (such as -1, not known), is left out.
    """
    if bins < 1 or count < 1 or scores.shape != labels.shape or scores.ndim != 1:
        raise Bug("histogram-shape", what="scores and labels need one entry a patient, and at least one bin")
    if groups is not None and groups.shape != scores.shape:
        raise Bug("histogram-shape", what="groups need one entry a patient")
    values = labels.astype(np.float64)
    group = np.zeros(scores.shape, dtype=np.int64) if groups is None else groups.astype(np.int64)
    valid = (scores >= 0) & (scores <= 1) & ((values == 0) | (values == 1)) & (group >= 0) & (group < count)
    lane = bin_of(scores[valid], bins) + bins * (values[valid].astype(np.int64) + 2 * group[valid])
    return np.bincount(lane, minlength=count * 2 * bins).astype(np.int64)
