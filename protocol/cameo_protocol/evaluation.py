"""How good a risk model is: from a noisy score histogram, with intervals, and (in the lab) from clear scores.

A joint histogram has 2 * bins lanes: lanes 0..bins-1 count the patients with label 0 by score, in the bins of
`score_bins`, the rest those with label 1. Every figure here is post-processing of it. Intervals cover 95 % and include
both the noise, whose standard deviation is public, and the sampling of patients (delta method). A figure whose
standard deviation exceeds TOO_NOISY is None: too noisy to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug
from cameo_protocol.score_bins import bin_edges

Floats = NDArray[np.float64]
TOO_NOISY = 0.05
_Z95 = 1.959963984540054
# Fewer patients than this, noise included, are not reported on at all.
SMALLEST_SHOWN = 11
_SIZES = (SMALLEST_SHOWN, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 50_000)
# Each sampling variance counts one patient more than there are, as far off as a patient can be: a handful of
# patients who happen to agree is no certainty.
# A quotient is reported only where its denominator stands this many noise deviations above zero: below that
# the delta method says nothing.
_CLEAR_OF_NOISE = 4.0


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, low <= value <= high."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CurvePoint:
    """One bin of a calibration curve. low, high: the bin's scores; observed: share of label 1 among its patients."""

    low: float
    high: float
    observed: Estimate | None

    @property
    def predicted(self) -> float:
        """The score that stands for the bin: its middle."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Evaluation:
    """Figures of one risk model on one set of patients; None: too noisy to say.

    auc: of the binned scores, ties count half, so a little low where bins are few. brier: with the middle of the bin
    as score. prevalence: share of label 1. gap: prevalence minus mean score (calibration in the large), in [-1, 1].
    curve: one point a bin.
    """

    auc: Estimate | None
    brier: Estimate | None
    prevalence: Estimate | None
    gap: Estimate | None
    curve: tuple[CurvePoint, ...]


def evaluate(counts: NDArray[np.generic], noise_sd: float) -> Evaluation:
    """All figures of a joint histogram, (2 * bins,), counts and noise.

    noise_sd: standard deviation of the noise in each lane of the opened sum, >= 0 (0: a clear histogram).
    No patients, or one class only, give None where a figure has no meaning.
    """
    if counts.ndim != 1 or counts.size < 2 or counts.size % 2 or not (0 <= noise_sd < math.inf):
        raise Bug("evaluation-histogram", what="a histogram has 2 x bins lanes and a finite noise")
    table = counts.astype(np.float64).reshape(2, -1)
    bins = table.shape[1]
    edges = bin_edges(bins)
    middle = (edges[:-1] + edges[1:]) / 2
    label = np.array([[0.0], [1.0]]) + np.zeros((2, bins))
    return Evaluation(
        auc=_auc(table, noise_sd),
        brier=_mean((label - middle) ** 2, table, noise_sd, 0.0),
        prevalence=_mean(label, table, noise_sd, 0.0),
        gap=_mean(label - middle, table, noise_sd, -1.0),
        curve=tuple(
            CurvePoint(float(edges[at]), float(edges[at + 1]), _mean(label[:, at], table[:, at], noise_sd, 0.0))
            for at in range(bins)
        ),
    )


def _mean(values: Floats, counts: Floats, noise_sd: float, lowest: float) -> Estimate | None:
    """The mean of a value per cell over patients, and its interval: sum(value * count) / sum(count)."""
    total = float(counts.sum())
    if total <= _CLEAR_OF_NOISE * noise_sd * math.sqrt(counts.size):
        return None
    mean = float((values * counts).sum()) / total
    squares = (values - mean) ** 2
    sampling = (max(float((squares * counts).sum()), 0.0) + float(squares.max())) / total**2
    return _estimate(mean, sampling + noise_sd**2 * float(squares.sum()) / total**2, lowest)


def _auc(table: Floats, noise_sd: float) -> Estimate | None:
    """P(score of a label 1 > score of a label 0) + half of the ties. Sampling variance: DeLong et al. (1988)."""
    totals = table.sum(axis=1, keepdims=True)
    if totals.min() <= _CLEAR_OF_NOISE * noise_sd * math.sqrt(table.shape[1]):
        return None
    share = table / totals
    below = np.cumsum(share[0]) - share[0] / 2  # share of label 0 that a label 1 in this bin outranks
    above = 1.0 - (np.cumsum(share[1]) - share[1] / 2)  # share of label 1 that outranks a label 0 in this bin
    auc = float((share[1] * below).sum())
    squares = (np.clip(np.stack([above, below]), 0.0, 1.0) - auc) ** 2
    sampling = float(
        (np.maximum(share, 0.0) * squares / totals).sum() + (squares.max(axis=1) / totals[:, 0] ** 2).sum()
    )
    return _estimate(auc, sampling + noise_sd**2 * float((squares / totals**2).sum()), 0.0)


def _estimate(value: float, variance: float, lowest: float) -> Estimate | None:
    """The estimate within [lowest, 1], or None when its standard deviation is too large."""
    deviation = math.sqrt(variance)
    if deviation > TOO_NOISY:
        return None
    low, value, high = (
        min(max(bound, lowest), 1.0) for bound in (value - _Z95 * deviation, value, value + _Z95 * deviation)
    )
    return Estimate(value, low, high)


@dataclass(frozen=True)
class GroupEvaluation:
    """One group's figures. size: a band that holds its number of patients with 95 % confidence, never a count.

    hidden: the group is smaller than SMALLEST_SHOWN as far as the noise lets one see, so it has no figures.
    """

    size: str
    hidden: bool
    figures: Evaluation


def evaluate_groups(counts: NDArray[np.generic], groups: int, noise_sd: float) -> tuple[GroupEvaluation, ...]:
    """The figures of each group from a histogram (groups * 2 * bins,), group by group; noise_sd as in `evaluate`."""
    if groups < 1 or counts.ndim != 1 or counts.size % groups:
        raise Bug("evaluation-histogram", what="a histogram by group has the same lanes for each group")
    return tuple(_group(row, noise_sd) for row in counts.reshape(groups, -1))


def _group(counts: NDArray[np.generic], noise_sd: float) -> GroupEvaluation:
    total, spread = float(counts.sum()), noise_sd * math.sqrt(counts.size)
    hidden = total < SMALLEST_SHOWN
    figures = evaluate(np.zeros_like(counts) if hidden else counts, noise_sd)
    return GroupEvaluation(size_band(total, spread), hidden, figures)


def size_band(count: float, spread: float = 0.0) -> str:
    """A coarse band that holds a number of patients; spread: standard deviation of the noise in the count, >= 0.

    >>> size_band(3), size_band(320), size_band(320, 100), size_band(20, 8), size_band(70_000)
    ('fewer than 11', '250 to 500', '100 to 1,000', 'fewer than 50', 'more than 50,000')
    """
    least, most = count - _Z95 * spread, count + _Z95 * spread
    low = max((edge for edge in _SIZES if edge <= least), default=None)
    high = min((edge for edge in _SIZES if edge > most), default=None)
    if low is None and high is None:
        return "not known"
    if low is None:
        return f"fewer than {high:,}"
    return f"{low:,} to {high:,}" if high else f"more than {low:,}"


def auc(scores: Floats, labels: NDArray[np.generic]) -> float | None:
    """Clear AUC of (N,) scores against (N,) labels of 0 or 1, ties count half; None when a class is absent."""
    positive = labels.astype(bool)
    ones = int(positive.sum())
    zeros = len(scores) - ones
    if not ones or not zeros:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    return float((rank[inverse][positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def brier(scores: Floats, labels: NDArray[np.generic]) -> float | None:
    """Clear mean squared error of (N,) scores against (N,) labels of 0 or 1; None without patients."""
    return float(np.mean((scores - labels.astype(np.float64)) ** 2)) if len(scores) else None


def calibration_error(scores: Floats, labels: NDArray[np.generic], bins: int = 10) -> float | None:
    """Clear expected calibration error: mean over patients of |observed share - mean score| of their equal-width bin.

    scores: (N,) in [0, 1]; labels: (N,) of 0 or 1; None without patients. Source: Naeini et al. (2015).
    """
    if not len(scores):
        return None
    at = np.minimum((scores * bins).astype(np.int64), bins - 1)
    difference = np.bincount(at, weights=labels.astype(np.float64) - scores, minlength=bins)
    return float(np.abs(difference).sum() / len(scores))


def adjusted_rand(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """Agreement of two partitions of the same N items: 1 = equal, 0 = as by chance. Source: Hubert, Arabie (1985)."""
    if first.shape != second.shape or first.ndim != 1:
        raise Bug("partition-shape", what="two partitions need one label for each of the same items")
    a = np.unique(first, return_inverse=True)[1]
    b = np.unique(second, return_inverse=True)[1]
    table = np.zeros((a.max(initial=0) + 1, b.max(initial=0) + 1))
    np.add.at(table, (a, b), 1.0)
    both, rows, columns, pairs = (
        float((n * (n - 1) / 2).sum()) for n in (table, table.sum(1), table.sum(0), np.array([float(len(a))]))
    )
    expected = rows * columns / pairs if pairs else 0.0
    spread = (rows + columns) / 2 - expected
    return 1.0 if spread == 0 else (both - expected) / spread
