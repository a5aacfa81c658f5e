"""The charts of a run: budgets, learning, norms, survivors, timings. Each comes with the table behind it.

The table is for people who read numbers or use a screen reader; the drawing carries a name and a description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cameo_lab.report.record import ReportRecord
from cameo_lab.report.svg import Frame, element, picture, shorten
from cameo_lab.report.wording import (
    STAGES,
    epsilon_text,
    how_many,
    number_text,
    seconds_text,
    status_text,
)
from cameo_protocol.web.words import KINDS_OF_ROUND

WIDTH = 440.0
INSET = 4.0
BAR_ROW = 46.0


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing and its numbers. note: what a reader must know to read it, shown under the title."""

    title: str
    svg: Markup
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One labelled bar, in shares of the full width: a track, the part that is filled, perhaps a mark."""

    label: str
    value: str
    track: float
    fill: float
    mark: float | None = None


def bars(rows: Sequence[Bar]) -> list[Markup]:
    """Labelled bars one below the other; the label stands above its bar, so that long names fit on a phone."""
    full = WIDTH - 2 * INSET
    parts = []
    for index, bar in enumerate(rows):
        top = index * BAR_ROW
        parts.append(element("text", shorten(bar.label, 42), x=INSET, y=top + 16, class_="name"))
        parts.append(element("text", bar.value, x=WIDTH - INSET, y=top + 16, class_="value end"))
        for share, style in ((bar.track, "track"), (bar.fill, "fill")):
            width = max(2.0, full * min(1.0, share))
            parts.append(element("rect", x=INSET, y=top + 24, width=width, height=10, rx=5, class_=style))
        if bar.mark is not None:
            x = INSET + full * min(1.0, bar.mark)
            parts.append(element("line", x1=x, x2=x, y1=top + 20, y2=top + 38, class_="mark"))
    return parts


def accounts(record: ReportRecord) -> Chart | None:
    """ε spent by each hospital against what was planned and its officer's cap; None without any account."""
    known = [(hospital, hospital.account) for hospital in record.hospitals if hospital.account is not None]
    if not known:
        return None
    most = max(max(account.cap, account.spent, account.planned) for _, account in known)
    rows = [
        Bar(
            label=hospital.name,
            value=f"{epsilon_text(account.spent)} of {epsilon_text(account.cap)}",
            track=account.cap / most,
            fill=account.spent / most,
            mark=account.planned / most,
        )
        for hospital, account in known
    ]
    said = "; ".join(f"{bar.label}: {bar.value}" for bar in rows)
    return Chart(
        title="Privacy budget of each hospital",
        note="Filled: ε spent so far. Upright line: the most this plan could bring it to."
        " Whole track: the limit set by that hospital's privacy officer.",
        svg=picture("accounts", "Privacy budget of each hospital", said, (WIDTH, BAR_ROW * len(rows)), bars(rows)),
        headers=("Hospital", "ε spent", "ε planned", "ε limit", "In this run"),
        rows=tuple(
            (
                hospital.name,
                epsilon_text(account.spent),
                epsilon_text(account.planned),
                epsilon_text(account.cap),
                status_text(hospital),
            )
            for hospital, account in known
        ),
    )


def padded(values: Sequence[float], step: float) -> tuple[float, float]:
    """The range of the values, widened to whole steps.

    >>> padded([0.71, 0.83], 0.05)
    (0.7, 0.85)
    """
    low = math.floor(min(values) / step - 0.2)
    high = max(math.ceil(max(values) / step + 0.2), low + 1)
    return round(low * step, 10), round(high * step, 10)


def rounds_range(record: ReportRecord) -> tuple[float, float]:
    """The first and the last round."""
    numbers = [row.number for row in record.rounds]
    return float(min(numbers)), float(max(numbers))


def learning(record: ReportRecord) -> Chart | None:
    """Held-out AUC in clear by round; None where nobody could compute it."""
    points = [(float(row.number), row.auc_clear) for row in record.rounds if row.auc_clear is not None]
    if not points:
        return None
    pooled = record.quality.auc_pooled if record.quality else None
    values = [auc for _, auc in points] + ([pooled] if pooled is not None else [])
    low, high = padded(values, 0.05)
    frame = Frame(x_range=rounds_range(record), y_range=(max(0.0, low), min(1.0, high)))
    body = frame.y_axis("AUC, held out") + frame.x_axis("round")
    if pooled is not None:
        body += frame.level(pooled, "all records in one place", "reference")
    (first, start), (last, end) = points[0], points[-1]
    said = f"From {start:.3f} in round {first:.0f} to {end:.3f} in round {last:.0f}."
    return Chart(
        title="How the risk model learnt",
        note="Not private: only the demo can see this, because it reads every hospital's folder."
        " It is never available to a real coordinator.",
        svg=picture(
            "learning",
            "Held-out AUC by round, in clear",
            said,
            (frame.width, frame.height),
            body + frame.curve(points),
        ),
        headers=("Round", "AUC, in clear"),
        rows=tuple((f"{number:.0f}", f"{auc:.4f}") for number, auc in points),
    )


def norms(record: ReportRecord) -> Chart | None:
    """The length of the noisy sum by round, which the coordinator does see."""
    points = [
        (float(row.number), row.norm)
        for row in record.rounds
        if row.norm is not None and row.kind == "train" and not row.void
    ]
    if not points:
        return None
    highest = max(1e-6, *(norm for _, norm in points))
    step = 10 ** math.floor(math.log10(highest)) / 2
    frame = Frame(x_range=rounds_range(record), y_range=(0.0, math.ceil(highest / step) * step))
    said = f"Between {number_text(min(norm for _, norm in points))} and {number_text(highest)}."
    return Chart(
        title="What the coordinator saw instead",
        note="The length of the sum of all updates, noise included. Between evaluations, this is all there is"
        " to watch.",
        svg=picture(
            "norms",
            "Norm of the noisy sum by round",
            said,
            (frame.width, frame.height),
            frame.y_axis("norm of the noisy sum") + frame.x_axis("round") + frame.curve(points),
        ),
        headers=("Round", "Norm of the noisy sum"),
        rows=tuple((f"{number:.0f}", number_text(norm)) for number, norm in points),
    )


def survivors(record: ReportRecord) -> Chart | None:
    """How many hospitals were in each sum; void rounds are crossed."""
    if not record.rounds:
        return None
    low, high = rounds_range(record)
    most = len(record.hospitals)
    frame = Frame(height=190, x_range=(low - 0.5, high + 0.5), y_range=(0, most))
    body = frame.y_axis("hospitals", min(most, 5))
    for row in record.rounds:
        left, right, top = frame.x(row.number - 0.5), frame.x(row.number + 0.5), frame.y(row.survivors)
        gap = min(1.0, (right - left) / 6)
        style = "column few" if row.survivors < most else "column"
        if row.void:
            middle, base = (left + right) / 2, frame.y(0) - 8
            body.append(element("text", "×", x=middle, y=base, class_="void middle"))
        else:
            height = frame.y(0) - top
            body.append(element("rect", x=left + gap, y=top, width=right - left - 2 * gap, height=height, class_=style))
    body += frame.x_axis("round")
    body += frame.level(record.threshold, f"fewest that can open a sum: {record.threshold}", "threshold")
    short = sum(row.survivors < most and not row.void for row in record.rounds)
    voids = sum(row.void for row in record.rounds)
    said = f"{how_many(len(record.rounds), 'round')}; {how_many(short, 'round')} without someone; {voids} void."
    return Chart(
        title="Who was in each round",
        note="A hospital may drop out at any moment: the sum over the others is still exact."
        " A round that too few could finish is void (×) and is never sent again.",
        svg=picture("survivors", "Hospitals in the sum, by round", said, (frame.width, frame.height), body),
        headers=("Round", "Kind", "Hospitals in the sum"),
        rows=tuple(
            (str(row.number), KINDS_OF_ROUND[row.kind], "void" if row.void else str(row.survivors))
            for row in record.rounds
        ),
    )


def stages(record: ReportRecord) -> Chart | None:
    """The median time of each stage of a round."""
    times = record.timing.stages
    if not times:
        return None
    most = max(stage.median for stage in times) or 1.0
    rows = [
        Bar(
            label=STAGES.get(stage.stage, stage.stage),
            value=seconds_text(stage.median),
            track=1,
            fill=stage.median / most,
        )
        for stage in times
    ]
    said = "; ".join(f"{bar.label}: {bar.value}" for bar in rows)
    return Chart(
        title="Where a round's time goes",
        note="The median of each stage over all rounds.",
        svg=picture("stages", "Median time by stage", said, (WIDTH, BAR_ROW * len(rows)), bars(rows)),
        headers=("Stage", "Median"),
        rows=tuple((bar.label, bar.value) for bar in rows),
    )
