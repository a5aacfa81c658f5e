"""Where the privacy budget went: by release of the plan, and over time in each hospital's ledger."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from markupsafe import Markup

from cameo_lab.report.charts import BAR_ROW, WIDTH, Bar, Chart, bars
from cameo_lab.report.record import ReportRecord, Spent, TaskRow
from cameo_lab.report.svg import Frame, element, picture, shorten
from cameo_lab.report.wording import KINDS, epsilon_text, number_text, purpose_text
from cameo_protocol.web.words import percent_text

SLOT = 17.0
LABEL_WIDTH = 40
COUNTED = ("recalibration", "evaluation")


def task_title(task: TaskRow) -> str:
    """What a task is for, with its name where that says more.

    >>> task_title(TaskRow(name="evaluation-sex", kind="evaluation", clip=None, rate=1, rounds=1, sigma=4))
    'evaluation by sex'
    """
    if task.kind == "evaluation" and task.name.startswith("evaluation-"):
        return f"evaluation by {task.name.removeprefix('evaluation-').replace('_', ' ')}"
    return KINDS[task.kind].split(" (")[0]


def costs(record: ReportRecord) -> Chart | None:
    """Each release's share of the plan's privacy loss; None where the shares are not known."""
    known = [(task, task.share) for task in record.tasks if task.share is not None]
    if not known:
        return None
    most = max(share for _, share in known) or 1.0
    rows = [Bar(label=task_title(task), value=percent_text(share), track=1, fill=share / most) for task, share in known]
    said = "; ".join(f"{bar.label}: {bar.value}" for bar in rows)
    return Chart(
        title="What the privacy budget bought",
        note="Each release's share of the plan's privacy loss. The shares add up to 100 %; ε itself does not add up,"
        " so no part has an ε of its own.",
        svg=picture("costs", "Share of the privacy loss", said, (WIDTH, BAR_ROW * len(rows)), bars(rows)),
        headers=("Release", "Bought", "Times", "Noise σ", "Share"),
        rows=tuple(
            (task.name, task_title(task), str(task.rounds), number_text(task.sigma), percent_text(share))
            for task, share in known
        ),
    )


def ledgers(record: ReportRecord) -> Chart | None:
    """ε in each hospital's ledger after each release; hospitals with the same course share a line."""
    courses: dict[tuple[Spent, ...], list[str]] = {}
    for hospital in record.hospitals:
        if hospital.account is not None and hospital.account.curve:
            courses.setdefault(hospital.account.curve, []).append(hospital.name)
    if not courses:
        return None
    longest = max(courses, key=len)
    top = max(point.epsilon for course in courses for point in course) or 1.0
    header = 32 + SLOT * len(courses)
    frame = Frame(height=230 + header, top=header + 12, x_range=(0, len(longest)), y_range=(0, top * 1.05))
    body = frame.y_axis("ε spent") + frame.x_axis("release")
    named = {course: _who(names, len(record.hospitals)) for course, names in courses.items()}
    for row, (course, name) in enumerate(named.items()):
        body += _course(frame, course, name, row)
    said = "; ".join(f"{name}: {epsilon_text(course[-1].epsilon)}" for course, name in named.items())
    return Chart(
        title="How each ledger filled",
        note="ε of everything released so far, after each release, at the δ of the ledger. The first rounds cost most:"
        " ε grows with about the square root of the number of releases. Dots: recalibration and evaluation, one"
        " release each. A charge is on disk before anything leaves.",
        svg=picture("ledgers", "Budget spent by release", said, (frame.width, frame.height), body),
        headers=("Release", "For", *named.values()),
        rows=_rows(longest, list(named)),
    )


def _course(frame: Frame, course: Sequence[Spent], name: str, row: int) -> list[Markup]:
    """One line with its dots, and its place in the legend."""
    style = f"series{row % 4}"
    points = [(0.0, 0.0), *((float(at), point.epsilon) for at, point in enumerate(course, start=1))]
    end_x, end_y = points[-1]
    y = 30 + SLOT * (row + 0.5)
    return [
        element("line", x1=frame.left, x2=frame.left + 22, y1=y - 4, y2=y - 4, class_=f"line {style}"),
        element("text", shorten(name, LABEL_WIDTH), x=frame.left + 30, y=y, class_="name"),
        element("text", epsilon_text(course[-1].epsilon), x=WIDTH - 14, y=y, class_="value end"),
        element("polyline", points=frame.points(points), class_=f"line {style}"),
        *(
            element("circle", cx=frame.x(at), cy=frame.y(point.epsilon), r=3.5, class_=f"dot {style}")
            for at, point in enumerate(course, start=1)
            if purpose_text(point.purpose) in COUNTED
        ),
        element("circle", cx=frame.x(end_x), cy=frame.y(end_y), r=4, class_=f"dot {style}"),
    ]


def _who(names: Sequence[str], hospitals: int) -> str:
    return "every hospital" if len(names) == hospitals > 1 else ", ".join(names)


def _rows(longest: Sequence[Spent], courses: Sequence[Sequence[Spent]]) -> tuple[tuple[str, ...], ...]:
    columns = zip_longest(*courses)
    return tuple(
        (
            str(number),
            purpose_text(point.purpose),
            *("–" if one is None else epsilon_text(one.epsilon) for one in column),
        )
        for number, (point, column) in enumerate(zip(longest, columns, strict=True), start=1)
    )
