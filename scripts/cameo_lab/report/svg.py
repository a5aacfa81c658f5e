"""A few SVG pieces: elements whose text and attributes are escaped, scales, ticks and frames.

Colours come from CSS classes, so that one drawing serves light, dark and paper; no style attributes are used,
which a strict content security policy would refuse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from cameo_protocol.web.words import thousands

Value = str | int | float | None


def _attribute(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def element(tag: str, *children: str, **attributes: Value) -> Markup:
    """One element; `class_` stands for class, `stroke_width` for stroke-width; None leaves an attribute out.

    >>> element("text", "a<b", x=1.5, class_="note")
    Markup('<text x="1.5" class="note">a&lt;b</text>')
    """
    parts = [
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(children)
    return Markup(f"<{tag}{''.join(parts)}>{inner}</{tag}>")  # noqa: S704 - every part is escaped above


def picture(key: str, title: str, description: str, size: tuple[float, float], body: Iterable[Markup]) -> Markup:
    """A whole drawing with a name and a description for screen readers. key: unique within the page."""
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *body,
        viewBox=f"0 0 {_attribute(size[0])} {_attribute(size[1])}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_="chart",
    )


def shorten(text: str, limit: int) -> str:
    """
    >>> shorten("St. Bartholomew's", 8)
    'St. Bar…'
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"


def axis_text(value: float) -> str:
    """
    >>> axis_text(0.25), axis_text(25000.0)
    ('0.25', '25\u202f000')
    """
    return f"{value:g}" if abs(value) < 1000 else thousands(round(value))


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values within [low, high], about `wanted` of them.

    >>> ticks(0, 80), ticks(0.5, 0.93)
    ([0, 20, 40, 60, 80], [0.5, 0.6, 0.7, 0.8, 0.9])
    """
    if high <= low:
        return [low]
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]
    return [int(value) if value == int(value) else value for value in values]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plotting area inside a drawing, and the data range that is mapped onto it. y grows upward."""

    width: float = 440
    height: float = 230
    left: float = 46
    right: float = 14
    top: float = 32
    bottom: float = 38
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """The horizontal place of a value; a range of no width is drawn in the middle."""
        low, high = self.x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """The vertical place of a value."""
        low, high = self.y_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def points(self, values: Iterable[tuple[float, float]]) -> str:
        """The `points` attribute of a polyline."""
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in values)

    def x_axis(self, label: str, wanted: int = 6) -> list[Markup]:
        """The base line with its ticks and its name."""
        base = self.height - self.bottom
        right = self.width - self.right
        parts = [element("line", x1=self.left, x2=right, y1=base, y2=base, class_="axis")]
        for value in ticks(*self.x_range, wanted):
            parts.append(element("text", axis_text(value), x=self.x(value), y=base + 16, class_="tick middle"))
        middle = (self.left + right) / 2
        return [*parts, element("text", label, x=middle, y=self.height - 5, class_="label middle")]

    def y_axis(self, label: str, wanted: int = 5) -> list[Markup]:
        """Horizontal grid lines with their ticks, and the name above them."""
        parts = [element("text", label, x=6, y=14, class_="label")]
        for value in ticks(*self.y_range, wanted):
            y = self.y(value)
            parts.append(element("line", x1=self.left, x2=self.width - self.right, y1=y, y2=y, class_="grid"))
            parts.append(element("text", axis_text(value), x=self.left - 7, y=y + 4, class_="tick end"))
        return parts

    def level(self, value: float, text: str, style: str) -> list[Markup]:
        """A dashed horizontal line across the frame; its key stands above the frame, at the right."""
        y, right = self.y(value), self.width - self.right
        return [
            element("line", x1=self.left, x2=right, y1=y, y2=y, class_=style),
            element("text", f"┄ {text}", x=right, y=14, class_=f"hint end {style}-key"),
        ]

    def curve(self, points: Sequence[tuple[float, float]]) -> list[Markup]:
        """A line through the points, with a dot on the last one."""
        x, y = points[-1]
        return [
            element("polyline", points=self.points(points), class_="line"),
            element("circle", cx=self.x(x), cy=self.y(y), r=4, class_="dot"),
        ]
