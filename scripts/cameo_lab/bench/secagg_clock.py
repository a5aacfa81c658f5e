"""CPU seconds of named stages, and their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stages:
    """CPU seconds of the whole process, all threads, user and system, of each stage; a stage may run many times."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the CPU seconds of the block to a stage."""
        began = time.process_time()
        yield
        self.seconds.setdefault(stage, []).append(time.process_time() - began)

    def medians(self) -> dict[str, float]:
        """Stage -> median over its runs."""
        return {stage: statistics.median(runs) for stage, runs in self.seconds.items()}


def median_cpu(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of `repeats` calls, after one that is not counted."""
    work()
    stages = Stages()
    for _ in range(repeats):
        with stages.time("work"):
            work()
    return stages.medians()["work"]


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """For print: microseconds are more than a shared machine can tell."""
    return {stage: round(value, 6) for stage, value in seconds.items()}
