"""Noise multipliers that spend exactly the target epsilon over everything a plan releases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cameo_protocol.errors import Bug
from cameo_protocol.privacy.accountant import MIN_SAMPLED_SIGMA
from cameo_protocol.privacy.accountant import epsilon as composed_epsilon
from cameo_protocol.privacy.releases import Release

# From below: full batch is exact to rounding; a sampled plan is calibrated on the discretised upper bound.
_EXACT, _SAMPLED = 1e-9, 1e-4


@dataclass(frozen=True, kw_only=True)
class Share:
    """A task's part of the budget. rounds: how often it is released, spare rounds included, >= 1.

    weight: > 0, relative to the other shares. q: Poisson sampling rate, 1 = full batch.
    """

    name: str
    rounds: int
    weight: float
    q: float = 1.0


def calibrate(epsilon: float, delta: float, shares: Sequence[Share]) -> dict[str, float]:
    """Task name -> sigma with sigma_k = lambda q_k sqrt(T_k / w_k), lambda so that the composed epsilon is the target.

    For full batch a task's part of mu^2 is then exactly its weight. A sampled task's part of mu is about
    q sqrt(T) / sigma (Dong, Roth & Su, 2022, corollary 5.4, for large sigma), so its weight is met roughly.

    epsilon: > 0. delta: 0 < delta < 1. The composed epsilon lies at or below the target, by at most 1e-9 relative when
    all shares are full batch, 1e-4 with sampling. Source: design page "privacy", The claim.
    """
    _check(epsilon, shares)
    slope = {share.name: share.q * math.sqrt(share.rounds / share.weight) for share in shares}

    def spends(scale: float) -> float:
        sigmas = {name: scale * value for name, value in slope.items()}
        if any(share.q < 1 and sigmas[share.name] < MIN_SAMPLED_SIGMA for share in shares):
            return math.inf
        return composed_epsilon((Release(sigma=sigmas[s.name], q=s.q, count=s.rounds) for s in shares), delta)

    tolerance = _EXACT if all(share.q == 1 for share in shares) else _SAMPLED
    scale = _least_scale(spends, epsilon, tolerance, shares)
    return {name: scale * value for name, value in slope.items()}


def _least_scale(spends: Callable[[float], float], target: float, tolerance: float, shares: Sequence[Share]) -> float:
    """The lambda whose epsilon is at most the target and, if it can be, at least target * (1 - tolerance).

    Epsilon falls about like a power of lambda, so the search interpolates in logarithms and needs few evaluations;
    every third step halves the bracket, whatever the shape.
    """
    (low, over), (high, spent) = _bracket(spends, target, shares)
    step = 0
    while spent < target * (1 - tolerance):
        step += 1
        middle = (low + high) / 2
        if step % 3 and math.isfinite(over) and spent > 0:
            part = math.log(spent / (target * (1 - tolerance / 2))) / math.log(spent / over)
            middle = high * (low / high) ** part
        if not low < middle < high:
            middle = (low + high) / 2
        if not low < middle < high:
            break
        found = spends(middle)
        if found <= target:
            high, spent = middle, found
        else:
            low, over = middle, found
    return high


Point = tuple[float, float]  # lambda, its epsilon


def _bracket(spends: Callable[[float], float], target: float, shares: Sequence[Share]) -> tuple[Point, Point]:
    """A lambda that spends too much (or cannot be accounted) and one that spends too little, within a factor 2."""
    scale = math.sqrt(math.fsum(share.weight for share in shares)) / target
    spent = spends(scale)
    while spent <= target:
        below = spends(scale / 2)
        if below > target:
            return (scale / 2, below), (scale, spent)
        scale, spent = scale / 2, below
    while True:
        above = spends(scale * 2)
        if above <= target:
            return (scale, spent), (scale * 2, above)
        scale, spent = scale * 2, above


def _check(epsilon: float, shares: Sequence[Share]) -> None:
    names = {share.name for share in shares}
    if not shares or len(names) != len(shares) or not (math.isfinite(epsilon) and epsilon > 0):
        raise Bug("calibration-invalid", what="calibration needs epsilon > 0 and shares with different names")
    if any(not (share.rounds >= 1 and math.isfinite(share.weight) and share.weight > 0) for share in shares):
        raise Bug("calibration-invalid", what="every share needs at least one round and a weight > 0")
