"""Integer noise from OpenDP's exact discrete Gaussian, which draws from the operating system's CSPRNG.

Neither numpy's nor torch's generators are used: noise that can be predicted protects nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug

# Far above any plan's noise and far below int64, in which OpenDP saturates.
MAX_SD = float(2**40)


def discrete_gaussian(sd: float, size: int) -> NDArray[np.int64]:
    """`size` independent draws from the discrete Gaussian N_Z(0, sd^2), shape (size,), int64.

    sd: the parameter sigma in integer steps, 0 < sd <= 2^40; anything else, zero too, is a `Bug`: a node never
    sends a sum without noise. size: >= 0. About 10 microseconds a draw.
    Source: Canonne, Kamath, Steinke (2020), Algorithm 3, as implemented in OpenDP's `make_gaussian`.
    """
    if not (math.isfinite(sd) and 0 < sd <= MAX_SD):
        raise Bug("noise-scale", what="the noise must have a positive, finite standard deviation")
    if size < 0:
        raise Bug("noise-size", what="a negative number of draws")
    return np.array(_sampler(sd)([0] * size), dtype=np.int64)


@lru_cache(maxsize=64)
def _sampler(sd: float) -> Callable[[list[int]], list[int]]:
    """OpenDP's measurement that adds the noise to a vector of integers; building it costs more than one draw."""
    import opendp.prelude as dp  # slow to import

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=dp.i64)), dp.l2_distance(T=dp.f64)
    measurement: Callable[[list[int]], list[int]] = dp.m.make_gaussian(*space, scale=sd)
    return measurement
