"""What a run releases, as the accountant and the ledger count it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cameo_protocol.errors import Bug
from cameo_protocol.layout import ROUND_KINDS, RoundKind
from cameo_protocol.plan import RunPlan

MAX_COUNT = 2**40


@dataclass(frozen=True, kw_only=True)
class Release:
    """The same noisy sum, released `count` times; one patient added or removed is what the noise hides.

    sigma: noise multiplier, > 0, relative to the L2 sensitivity of one patient.
    q: Poisson sampling rate, 0 < q <= 1; 1 = full batch. count: how many times, 1..2^40.
    Epsilon is computed by the accountant from all releases together, never stored or added.
    """

    sigma: float
    q: float
    count: int
    unit: Literal["patient"] = "patient"

    def __post_init__(self) -> None:
        numbers = all(isinstance(x, float | int) and not isinstance(x, bool) for x in (self.sigma, self.q))
        whole = isinstance(self.count, int) and not isinstance(self.count, bool)
        if not (numbers and whole and math.isfinite(self.sigma) and self.sigma > 0 and 0 < self.q <= 1):
            raise Bug("release-invalid", what="a release needs a finite sigma > 0, 0 < q <= 1 and a whole count")
        if not 1 <= self.count <= MAX_COUNT or self.unit != "patient":
            raise Bug("release-invalid", what="a release needs a count of 1 to 2^40 and the unit 'patient'")


TaskReleases = tuple[tuple[str, Release], ...]


def plan_releases(plan: RunPlan, *, training: int | None = None) -> TaskReleases:
    """(task name, release) for everything that a plan may release, in plan order of tasks.

    Training tasks count all rounds and all spare ones, or `training` (>= 1) of them; a histogram is released once.
    """
    rounds = plan.training.rounds + plan.training.spare if training is None else training
    counts = {"train": rounds, "evaluate": 1, "recalibrate": 1}
    by_task = {
        block.name: Release(sigma=block.sigma, q=1.0, count=counts[kind])
        for kind in ROUND_KINDS
        for block in plan.layout(kind).blocks
    }
    return tuple((task.name, by_task[task.name]) for task in plan.tasks)


def round_releases(plan: RunPlan, kind: RoundKind) -> TaskReleases:
    """(task name, release) for what one round of that kind releases: every block of its layout, once."""
    return tuple((block.name, Release(sigma=block.sigma, q=1.0, count=1)) for block in plan.layout(kind).blocks)
