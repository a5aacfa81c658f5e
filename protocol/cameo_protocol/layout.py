"""What lies where in the masked vector of a round.

One vector a round carries the blocks of all models of the plan, each with its own clip C, public bound B,
scale s and noise multiplier σ. The layout is public, part of the plan, and hashed into the epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cameo_protocol import canonical

RoundKind = Literal["train", "evaluate", "recalibrate"]
LARGEST_SCALE = 1 << 16
ROUND_KINDS: tuple[RoundKind, ...] = ("train", "evaluate", "recalibrate")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A run of lanes that belongs to one task.

    dim: lanes. clip: L2 bound C of one patient's contribution (model units; 1 for a count).
    bound: public bound B on each coordinate of one hospital's sum, same units.
    scale: s, integer steps a unit, at most `LARGEST_SCALE`. sigma: noise multiplier relative to `sensitivity`, > 0.
    counts: integer histogram lanes; one patient adds 1 to one lane, nothing is rounded.
    """

    name: str
    dim: int
    clip: float
    bound: float
    scale: int
    sigma: float
    counts: bool = False

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of one patient after scaling and rounding, integer units: sC + sqrt(d), or 1 for counts."""
        return 1.0 if self.counts else self.scale * self.clip + math.sqrt(self.dim)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The blocks of one kind of round, in order; their dims add up to the vector's."""

    kind: RoundKind
    blocks: tuple[Block, ...]

    @property
    def dim(self) -> int:
        """Lanes of the whole vector."""
        return sum(block.dim for block in self.blocks)

    def spans(self) -> dict[str, slice]:
        """Block name -> its slice of the vector."""
        spans: dict[str, slice] = {}
        start = 0
        for block in self.blocks:
            spans[block.name] = slice(start, start + block.dim)
            start += block.dim
        return spans

    def digest(self) -> bytes:
        """32 bytes that bind every number of the layout (floats by their exact hex form)."""
        rows = [[b.name, b.dim, b.clip.hex(), b.bound.hex(), b.scale, b.sigma.hex(), b.counts] for b in self.blocks]
        return canonical.digest("layout", [self.kind, rows])
