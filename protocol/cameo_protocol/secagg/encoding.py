"""Numbers to masked lanes and back: clamp, scale, round stochastically once, add integer noise, two's complement.

Source: design page "secure-sum", Encoding. The rounding adds at most sqrt(d) to the L2 sensitivity, which
`Block.sensitivity` has in it. Sums are decoded signed: n hospitals may each send negative numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Bug, OperatorError
from cameo_protocol.layout import Block, Layout

Lanes = npt.NDArray[np.uint32]
LARGEST_SCALE = 1 << 16
TAIL = 8.0  # standard deviations of the summed noise that must still fit
_BITS = 53  # of a uniform number; as many as a float64 fraction has


def range_offered() -> float:
    """The largest magnitude that a signed 32-bit sum holds."""
    return float(2**31 - 1)


def range_needed(block: Block, *, n: int, t: int, c: int, local: bool = False) -> float:
    """n (sB + 1) + 8 σ Δ sqrt(n / (t - c)): the largest magnitude that a sum over n hospitals reaches.

    local: each hospital adds its full noise σΔ, so the divisor t - c is 1.
    """
    share = 1 if local else t - c
    noise = TAIL * block.sigma * block.sensitivity * math.sqrt(n / share)
    return n * (block.scale * block.bound + 1) + noise


def check_range(layout: Layout, n: int, t: int, c: int, *, local: bool = False) -> None:
    """Refuse a layout whose sum over n hospitals could leave the signed 32-bit range."""
    for block in layout.blocks:
        if range_needed(block, n=n, t=t, c=c, local=local) > range_offered():
            raise OperatorError(
                "encoding-overflow",
                what=f"block {block.name}: n={n}, scale {block.scale}, bound {block.bound:g}, sigma {block.sigma:g}"
                " could leave the signed 32-bit range",
                do="lower the block's scale, bound or sigma in the plan's configuration",
            )


def largest_scale(
    *, dim: int, clip: float, bound: float, sigma: float, n: int, t: int, c: int, local: bool = False
) -> int:
    """The largest power of two s <= 2^16 with which a sum over n hospitals stays in range.

    Parameters that not even s = 1 fits are an `OperatorError`.
    """
    scale = LARGEST_SCALE
    while scale >= 1:
        block = Block(name="block", dim=dim, clip=clip, bound=bound, scale=scale, sigma=sigma)
        if range_needed(block, n=n, t=t, c=c, local=local) <= range_offered():
            return scale
        scale //= 2
    raise OperatorError(
        "encoding-overflow",
        what=f"no scale fits n={n}, bound {bound:g} and sigma {sigma:g} into 32 bits",
        do="lower the block's bound or sigma in the plan's configuration",
    )


def encode(
    layout: Layout,
    blocks: Mapping[str, npt.NDArray[Any]],
    noise: Mapping[str, npt.NDArray[np.int64]],
    random: Callable[[int], bytes],
) -> Lanes:
    """One hospital's vector of a round, ready to be masked; shape (layout.dim,), uint32.

    blocks: name -> float64 (dim,) in model units, or integers (dim,) for counts. Not clipped here: each
    coordinate is clamped to the block's public bound. noise: name -> int64 (dim,), integer units, drawn by the
    caller; every block needs it. random: a CSPRNG; 8 bytes a float lane, for the rounding, are read from it.
    NaN, infinity, a missing or extra block and a wrong shape or type are a `Bug`.
    """
    names = {block.name for block in layout.blocks}
    if blocks.keys() != names or noise.keys() != names:
        raise Bug("encoding-blocks", what=f"a {layout.kind} vector needs values and noise for {sorted(names)}")
    lanes = np.empty(layout.dim, dtype=np.uint32)
    for block, span in zip(layout.blocks, layout.spans().values(), strict=True):
        drawn = noise[block.name]
        if drawn.shape != (block.dim,) or drawn.dtype != np.int64:
            raise Bug("encoding-noise", what=f"block {block.name}: noise must be int64 of shape ({block.dim},)")
        steps = _steps(block, blocks[block.name], random)  # sensitive until noised
        lanes[span] = (steps + drawn).astype(np.uint32)  # int64 -> uint32 is modulo 2^32
    return lanes


def decode(layout: Layout, total: Lanes) -> dict[str, npt.NDArray[np.float64]]:
    """A summed vector, shape (layout.dim,), back to block name -> float64 (dim,) in model units or counts; signed."""
    if total.shape != (layout.dim,) or total.dtype != np.uint32:
        raise Bug("encoding-shape", what=f"a {layout.kind} sum is uint32 of shape ({layout.dim},)")
    signed = total.view(np.int32).astype(np.float64)
    return {
        block.name: signed[span] / block.scale
        for block, span in zip(layout.blocks, layout.spans().values(), strict=True)
    }


def _steps(block: Block, values: npt.NDArray[Any], random: Callable[[int], bytes]) -> npt.NDArray[np.int64]:
    """Integer steps of one block: clamped to ±B, times s, and rounded up with probability equal to the fraction."""
    wanted = np.dtype(np.int64 if block.counts else np.float64)
    if values.shape != (block.dim,) or values.dtype != wanted:
        raise Bug("encoding-shape", what=f"block {block.name}: {wanted} of shape ({block.dim},) is needed")
    if block.counts:
        limit = math.floor(block.bound)
        counts: npt.NDArray[np.int64] = np.clip(values, -limit, limit)
        return counts
    if not np.isfinite(values).all():
        raise Bug("encoding-not-finite", what=f"block {block.name} has a value that is not a finite number")
    scaled = np.clip(values, -block.bound, block.bound) * block.scale
    floor = np.floor(scaled)
    drawn = np.frombuffer(random(8 * block.dim), dtype="<u8") >> np.uint64(64 - _BITS)
    up = drawn.astype(np.float64) < (scaled - floor) * 2.0**_BITS
    steps: npt.NDArray[np.int64] = floor.astype(np.int64) + up
    return steps
