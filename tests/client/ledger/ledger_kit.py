"""A clock that tests move, and shorthand for releases and ledgers."""

from __future__ import annotations

import os
from pathlib import Path

from cameo_client.ledger import Caps, Ledger
from cameo_protocol.privacy.releases import Release, TaskReleases

FULL = os.environ.get("CAMEO_FULL") == "1"
DATASET, DELTA = "heart", 1e-5
CAPS = Caps(dataset=8.0, year=3.0)
PLAN = "p" * 64
DAY = 86_400


class Clock:
    """Seconds since 1970 that only a test moves."""

    def __init__(self, at: float = 1.7e9) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def releases(count: int, *, sigma: float = 40.0, task: str = "risk") -> TaskReleases:
    return ((task, Release(sigma=sigma, q=1.0, count=count)),)


def fresh(path: Path, clock: Clock | None = None, *, delta: float = DELTA) -> Ledger:
    salt = bytes(range(32))
    return Ledger.create(path, dataset=DATASET, delta=delta, clock=clock or Clock(), random=lambda n: salt[:n])


def again(path: Path, clock: Clock | None = None) -> Ledger:
    return Ledger.open(path, dataset=DATASET, delta=DELTA, clock=clock or Clock())
