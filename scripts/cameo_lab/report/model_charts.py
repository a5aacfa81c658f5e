"""The charts of the models: ranking, calibration, and one prototype of a segment."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from cameo_lab.report.charts import Chart, padded
from cameo_lab.report.record import CalibrationPoint, Estimate, Quality, Segment, Trait
from cameo_lab.report.svg import Frame, element, picture, shorten
from cameo_lab.report.wording import number_text
from cameo_protocol.web.words import measured

ESTIMATE_ROW = 46.0
TRAIT_ROW, TRAIT_WIDTH, VALUE_WIDTH = 40.0, 300.0, 104.0
TRAITS_DRAWN = 8


def _estimates(quality: Quality) -> list[tuple[str, Estimate]]:
    """Every AUC there is, by how it was measured; one without noise has no width."""
    found = [] if quality.auc_dp is None else [("From noised counts", quality.auc_dp)]
    for label, value in (
        ("In clear (lab only)", quality.auc_clear),
        ("All records in one place (lab only)", quality.auc_pooled),
    ):
        if value is not None:
            found.append((label, Estimate(value=value, low=value, high=value)))
    return found


def ranking(quality: Quality) -> Chart | None:
    """The AUC figures one below the other on one scale; None when there is none."""
    found = _estimates(quality)
    if not found:
        return None
    low, high = padded([bound for _, one in found for bound in (one.low, one.high)], 0.05)
    frame = Frame(
        height=len(found) * ESTIMATE_ROW + 44,
        left=14,
        x_range=(max(0.0, low), min(1.0, high)),
        y_range=(0, 1),
    )
    right = frame.width - frame.right
    body = []
    for index, (label, one) in enumerate(found):
        y = index * ESTIMATE_ROW + 32
        style = "" if one is quality.auc_dp else " quiet"
        wide = one.low < one.high
        shown = f"{one.value:.2f} ({one.low:.2f}–{one.high:.2f})" if wide else f"{one.value:.3f}"
        body += [
            element("text", label, x=frame.left, y=y - 14, class_="name"),
            element("text", shown, x=right, y=y - 14, class_="value end"),
            element("line", x1=frame.left, x2=right, y1=y, y2=y, class_="grid"),
            element("line", x1=frame.x(one.low), x2=frame.x(one.high), y1=y, y2=y, class_="whisker" + style),
            element("circle", cx=frame.x(one.value), cy=y, r=5, class_="dot" + style),
        ]
    said = "; ".join(f"{label}: {one.value:.3f}" for label, one in found)
    return Chart(
        title="How well it ranks patients",
        note="AUC: the chance that a patient with the outcome gets a higher score than one without."
        " 0.5 is a coin toss, 1 is perfect. Bar: 95 % interval.",
        svg=picture(
            "ranking", "AUC by how it was measured", said, (frame.width, frame.height), body + frame.x_axis("AUC")
        ),
        headers=("Measured", "AUC", "Low", "High"),
        rows=tuple((label, *(f"{v:.4f}" for v in (one.value, one.low, one.high))) for label, one in found),
    )


def _calibration_marks(frame: Frame, points: Sequence[CalibrationPoint]) -> list[Markup]:
    top = frame.x_range[1]
    parts = [
        element("line", x1=frame.x(0), y1=frame.y(0), x2=frame.x(top), y2=frame.y(top), class_="reference"),
        element("polyline", points=frame.points((p.predicted, p.observed) for p in points), class_="line thin"),
    ]
    for point in points:
        x = frame.x(point.predicted)
        if point.low is not None and point.high is not None:
            parts.append(element("line", x1=x, x2=x, y1=frame.y(point.low), y2=frame.y(point.high), class_="whisker"))
        parts.append(element("circle", cx=x, cy=frame.y(point.observed), r=4, class_="dot"))
    return parts


def calibration(quality: Quality) -> Chart | None:
    """Predicted against observed risk; None when the counts were too noisy for any band of scores."""
    points = quality.calibration
    if not points:
        return None
    reach = max(max(point.predicted, point.high or point.observed) for point in points)
    top = min(1.0, math.ceil(reach * 10.5) / 10)  # scores of rare outcomes fill the drawing too
    frame = Frame(height=300, x_range=(0, top), y_range=(0, top))
    body = frame.y_axis("had the outcome") + frame.x_axis("predicted risk")
    said = "; ".join(f"predicted {p.predicted:.2f}, observed {p.observed:.2f}" for p in points)
    return Chart(
        title="Whether its risks can be taken at their word",
        note="On the dashed line, a predicted 30 % means that 30 of 100 such patients had the outcome."
        " From noised counts.",
        svg=picture(
            "calibration",
            "Calibration",
            said,
            (frame.width, frame.height),
            body + _calibration_marks(frame, points),
        ),
        headers=("Predicted", "Observed", "Low", "High"),
        rows=tuple(
            tuple("–" if v is None else f"{v:.2f}" for v in (p.predicted, p.observed, p.low, p.high)) for p in points
        ),
    )


def trait_text(trait: Trait) -> str:
    """A trait's value with its unit, in the digits that its scale deserves; a share as per cent.

    >>> trait_text(Trait(name="Systolic blood pressure", value=141.6, unit="mmHg", low=80, high=220))
    '142 mmHg'
    >>> trait_text(Trait(name="Smokes now", value=0.993, unit="share", low=0, high=1))
    '99 %'
    """
    return measured(trait.value, trait.low, trait.high, trait.unit)


def _place(trait: Trait) -> float:
    """Where on its scale a trait lies, 0 to 1."""
    return min(1.0, max(0.0, (trait.value - trait.low) / (trait.high - trait.low)))


def distinctive(segments: Sequence[Segment], most: int = TRAITS_DRAWN) -> tuple[str, ...]:
    """The names of the traits in which the segments differ most on their scales, in the order of their appearance.

    A trait that only one segment has differs from nothing and comes last.
    """
    places: dict[str, list[float]] = {}
    for segment in segments:
        for trait in segment.traits:
            places.setdefault(trait.name, []).append(_place(trait))
    ranked = sorted(places, key=lambda name: min(places[name]) - max(places[name]))
    return tuple(name for name in places if name in ranked[:most])


def prototype(segment: Segment, index: int, shown: Sequence[str]) -> Chart:
    """The prototype of one segment: each shown number on its own scale, from public low to public high.

    The table behind it has every trait.
    """
    drawn = [trait for trait in segment.traits if trait.name in shown] or list(segment.traits[:TRAITS_DRAWN])
    body = []
    for row, trait in enumerate(drawn):
        top = row * TRAIT_ROW
        track = TRAIT_WIDTH - 8 - VALUE_WIDTH
        x = 4 + 5 + _place(trait) * (track - 10)
        body += [
            element("text", shorten(trait.name, 44), x=4, y=top + 14, class_="name"),
            element("text", trait_text(trait), x=TRAIT_WIDTH - 4, y=top + 29, class_="value end"),
            element("rect", x=4, y=top + 22, width=track, height=5, rx=2.5, class_="track"),
            element("circle", cx=x, cy=top + 24.5, r=5, class_="dot"),
        ]
    said = "; ".join(f"{trait.name}: {trait_text(trait)}" for trait in drawn)
    size = (TRAIT_WIDTH, TRAIT_ROW * len(drawn))
    return Chart(
        title=segment.name,
        svg=picture(f"segment-{index}", f"Prototype of {segment.name}", said, size, body),
        headers=("Fact", "Prototype", "Scale"),
        rows=tuple(
            (trait.name, trait_text(trait), f"{number_text(trait.low)} to {number_text(trait.high)}")
            for trait in segment.traits
        ),
    )
