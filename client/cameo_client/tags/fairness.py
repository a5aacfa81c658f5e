"""Guard 13: does a tag fall on groups of patients at very different rates? It alerts people and stops nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from cameo_client.tags.apply import Outcome
from cameo_client.tags.world import Mask

LEAST_GROUP = 11
STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Alert:
    """One tag that one group gets more rarely or more often. ratio: its rate over everybody's, one digit."""

    tag: str
    column: str
    group: str
    direction: str
    ratio: float

    def text(self) -> str:
        """The alert as a sentence."""
        return (
            f"{self.tag}: {self.column} {self.group} gets it {self.direction} ({self.ratio:.1f} times the overall rate)"
        )


def alerts(outcome: Outcome) -> tuple[Alert, ...]:
    """Compare the rate of stored tags in each group with the overall rate.

    An alert needs a ratio beyond the policy's, a difference of more than three standard errors, and at least 11
    patients in the group. No group is named when 1 to 10 patients in it have the tag, or 1 to 10 of all others: a
    sentence about so few is one about each of them.
    """
    policy = outcome.world.given.policy.fairness
    found: list[Alert] = []
    for column, group, members in groups(outcome):
        size, total = int(members.sum()), len(members)
        if size < LEAST_GROUP:
            continue
        for item in outcome.world.rules:
            stored = outcome.state(item.key, "stored")
            overall, rate = float(stored.mean()), float(stored[members].mean())
            if few(stored, members):
                continue
            error = math.sqrt(overall * (1 - overall) * (1 / size - 1 / total))
            if overall == 0 or abs(rate - overall) <= STANDARD_ERRORS * error:
                continue
            ratio = rate / overall
            if ratio < policy.ratio or ratio > 1 / policy.ratio:
                direction = "more rarely" if ratio < 1 else "more often"
                found.append(Alert(item.rule.tag.name, column, group, direction, round(ratio, 1)))
    return tuple(found)


def few(stored: Mask, members: Mask) -> bool:
    """Whether 1 to 10 patients have the tag in the group, or 1 to 10 outside it."""
    cells = (int((stored & members).sum()), int((stored & ~members).sum()))
    return any(0 < count < LEAST_GROUP for count in cells)


def groups(outcome: Outcome) -> Iterator[tuple[str, str, Mask]]:
    """(column, group, rows) of every group of the policy that the facts show."""
    frame, policy = outcome.world.frame, outcome.world.given.policy
    for column in policy.fairness.columns:
        if column in frame.columns:
            for value in sorted(frame[column].cast(pl.String).drop_nulls().unique().to_list()):
                yield column, value, _mask(frame[column].cast(pl.String) == value)
    if policy.age_column in frame.columns:
        age, edges = frame[policy.age_column], (0, *policy.fairness.age_bands, 200)
        for low, high in pairwise(edges):
            yield policy.age_column, f"{low}-{high - 1}", _mask((age >= low) & (age < high))


def _mask(series: pl.Series) -> Mask:
    return np.asarray(series.fill_null(False).to_numpy(), dtype=bool)
