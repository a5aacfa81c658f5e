"""How the ledger filled, as a drawing for the report: places in user units, nothing of HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cameo_protocol.web.words import thousands

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 510, 12, 230
_NEAR: Final = 1.6  # a limit beyond this many times the curve's end would flatten the curve


@dataclass(frozen=True, kw_only=True)
class Curve:
    """points: of a polyline. levels: (y, text) of the grid; steps: (x, text) below it; limits: (y, text)."""

    points: str
    levels: tuple[tuple[float, str], ...]
    steps: tuple[tuple[float, str], ...]
    limits: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT


def draw(budget: Mapping[str, Any]) -> Curve | None:
    """Of a ledger's report (`Ledger.report`); None before its first release.

    >>> found = draw({"curve": [{"release": 1, "epsilon": 0.5}, {"release": 4, "epsilon": 1.0}], "caps": None})
    >>> found.points, found.steps[-1]
    ('44.0,230.0 160.5,121.0 510.0,12.0', (510.0, '4 releases'))
    """
    curve = budget["curve"]
    if not curve:
        return None
    last, end = curve[-1]["release"], max(point["epsilon"] for point in curve) or 1.0
    caps = budget["caps"] or {}
    named = (("data_set", "limit for ever"), ("year", "limit in 365 days"))
    limits = [(caps[key], text) for key, text in named if 0 < caps.get(key, 0) <= _NEAR * end]
    top = max([end, *(value for value, _ in limits)])
    step = _step(top)

    def x(release: float) -> float:
        return LEFT + round((RIGHT - LEFT) * float(release) / float(last), 1)

    def y(epsilon: float) -> float:
        return BOTTOM - round((BOTTOM - TOP) * float(epsilon) / float(top), 1)

    places = [(0.0, 0.0), *((point["release"], point["epsilon"]) for point in curve)]
    return Curve(
        points=" ".join(f"{x(release)},{y(epsilon)}" for release, epsilon in places),
        levels=tuple((y(step * i), f"{step * i:g}") for i in range(math.floor(top / step + 1e-9) + 1)),
        steps=((x(0) + 8, "0"), (x(last), f"{thousands(last)} {'release' if last == 1 else 'releases'}")),
        limits=tuple((y(value), f"{text}: {value:g}") for value, text in limits),
    )


def _step(top: float) -> float:
    """1, 2 or 5 times a power of ten, such that three to six of them reach `top`."""
    power = 10.0 ** math.floor(math.log10(top))
    return next(size * power for size in (0.2, 0.5, 1.0, 2.0) if top / (size * power) <= 6)
