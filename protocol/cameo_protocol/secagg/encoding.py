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
from cameo_protocol.layout import LARGEST_SCALE, Block, Layout
from cameo_protocol.secagg.kernel import Keystream

Lanes = npt.NDArray[np.uint32]
TAIL = 8.0  # standard deviations of the summed noise that must still fit
_BITS = 32  # of the fraction of a step that decides the rounding, and of the uniform number beside it
_CHUNK = 16_384  # lanes at a time: a few buffers of 128 kB stay in the second-level cache through all passes


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
    caller; every block needs it. random: a CSPRNG; 32 bytes a float block are read from it, the key of the AES-256-CTR
    keystream that rounds. NaN, infinity, a missing or extra block and a wrong shape or type are a `Bug`.
    """
    names = {block.name for block in layout.blocks}
    if blocks.keys() != names or noise.keys() != names:
        raise Bug("encoding-blocks", what=f"a {layout.kind} vector needs values and noise for {sorted(names)}")
    lanes = np.empty(layout.dim, dtype=np.uint32)
    for block, span in zip(layout.blocks, layout.spans().values(), strict=True):
        drawn = noise[block.name]
        if drawn.shape != (block.dim,) or drawn.dtype != np.int64:
            raise Bug("encoding-noise", what=f"block {block.name}: noise must be int64 of shape ({block.dim},)")
        if block.counts:
            lanes[span] = (_clamped_counts(block, blocks[block.name]) + drawn).astype(np.uint32)
        else:
            _encode_floats(block, blocks[block.name], drawn, random(32), lanes[span])
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


def _checked(block: Block, values: npt.NDArray[Any]) -> None:
    wanted = np.dtype(np.int64 if block.counts else np.float64)
    if values.shape != (block.dim,) or values.dtype != wanted:
        raise Bug("encoding-shape", what=f"block {block.name}: {wanted} of shape ({block.dim},) is needed")
    if block.scale * block.bound > range_offered():
        raise Bug("encoding-range", what=f"block {block.name} holds numbers beyond the signed 32-bit range")


def _clamped_counts(block: Block, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    _checked(block, values)
    limit = math.floor(block.bound)
    counts: npt.NDArray[np.int64] = np.clip(values, -limit, limit)  # sensitive until noised
    return counts


def _encode_floats(
    block: Block, values: npt.NDArray[Any], noise: npt.NDArray[np.int64], key: bytes, out: Lanes
) -> None:
    """Clamp to ±B, times s, round up with probability equal to the fraction, add the noise; modulo 2^32 into `out`.

    The number is held in steps of 2^-32 (truncated toward zero, so never past the integers around it); adding 32
    uniform bits and dropping the fraction gives the floor or the ceiling. The keystream's lane i rounds lane i.
    """
    _checked(block, values)
    stream = Keystream(key)
    size = min(_CHUNK, block.dim)
    zeros, finite = memoryview(bytes(4 * size)), np.empty(size, dtype=np.bool_)
    scaled, steps = np.empty(size), np.empty(size, dtype=np.int64)  # sensitive until noised
    raw = np.empty(4 * size, dtype=np.uint8)
    uniform = raw.view("<u4")
    for low in range(0, block.dim, size):
        part = values[low : low + size]
        n = part.size
        if not np.isfinite(part, out=finite[:n]).all():
            raise Bug("encoding-not-finite", what=f"block {block.name} has a value that is not a finite number")
        np.clip(part, -block.bound, block.bound, out=scaled[:n])
        np.multiply(scaled[:n], block.scale * 2.0**_BITS, out=scaled[:n])
        np.copyto(steps[:n], scaled[:n], casting="unsafe")
        stream.read_into(zeros, raw.data[: 4 * n])
        np.add(steps[:n], uniform[:n], out=steps[:n])
        np.right_shift(steps[:n], _BITS, out=steps[:n])
        np.add(steps[:n], noise[low : low + n], out=steps[:n])
        np.copyto(out[low : low + n], steps[:n], casting="unsafe")  # int64 -> uint32 is modulo 2^32
    for buffer in (scaled, steps, raw):
        buffer.fill(0)
