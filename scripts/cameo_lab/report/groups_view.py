"""The risk model judged for each group, and its recalibration, in words: every figure with its interval or a reason."""

from __future__ import annotations

from dataclasses import dataclass

from cameo_lab.report.record import Estimate, GroupRow, Interval, Quality, Recalibration, ReportRecord
from cameo_lab.report.wording import number_text
from cameo_protocol.web.words import percent_text

HIDDEN, DROWNED = "small group", "too noisy"
ALL_HIDDEN, ALL_DROWNED = "fewer than 11 patients: no figures", "too noisy to say anything"


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown; interval: empty where there is none. known: whether there is a figure at all."""

    text: str
    interval: str
    known: bool


@dataclass(frozen=True)
class GroupLine:
    """One group: how many patients, then prevalence, gap, Brier score and AUC."""

    group: str
    size: str
    cells: tuple[Cell, ...]

    @property
    def why(self) -> str:
        """Why there is no figure at all; empty where there is one."""
        if any(cell.known for cell in self.cells):
            return ""
        return ALL_HIDDEN if self.cells[0].text == HIDDEN else ALL_DROWNED


@dataclass(frozen=True)
class GroupCard:
    """One fact's groups. cost: what the release that the figures come from took of the privacy loss."""

    fact: str
    cost: str
    lines: tuple[GroupLine, ...]


def group_cards(record: ReportRecord) -> tuple[GroupCard, ...]:
    """One card a fact."""
    groups = record.quality.groups if record.quality else ()
    return tuple(
        GroupCard(
            table.fact.replace("_", " "), cost_text(record, table.release), tuple(_line(row) for row in table.rows)
        )
        for table in groups
    )


def cost_text(record: ReportRecord, release: str) -> str:
    """What a release cost, in a few words; empty where that is not known."""
    for task in record.tasks:
        if task.name == release and task.share is not None:
            return f"{percent_text(task.share)} of the privacy loss, noise σ {number_text(task.sigma)}"
    return ""


def everybody(quality: Quality) -> GroupLine:
    """The figures of all held-out patients together, for comparison."""
    return GroupLine(
        "everybody held out", "", _cells(quality.prevalence, quality.gap, quality.brier, quality.auc_dp, DROWNED)
    )


def _line(row: GroupRow) -> GroupLine:
    why = HIDDEN if row.hidden else DROWNED
    return GroupLine(row.group.replace("_", " "), row.size, _cells(row.prevalence, row.gap, row.brier, row.auc, why))


def _cells(
    prevalence: Estimate | None, gap: Interval | None, brier: Estimate | None, auc: Estimate | None, why: str
) -> tuple[Cell, ...]:
    return (_share(prevalence, why), _points(gap, why), _decimal(brier, why), _decimal(auc, why))


def _share(one: Estimate | None, why: str) -> Cell:
    if one is None:
        return Cell(why, "", known=False)
    value, low, high = (f"{100 * bound:.1f}" for bound in (one.value, one.low, one.high))
    return Cell(f"{value} %", f"{low}–{high} %", known=True)


def _points(one: Interval | None, why: str) -> Cell:
    """A difference of shares in percentage points, always with its sign."""
    if one is None:
        return Cell(why, "", known=False)
    value, low, high = (signed(100 * bound) for bound in (one.value, one.low, one.high))
    return Cell(value, f"{low} to {high}", known=True)


def _decimal(one: Estimate | None, why: str) -> Cell:
    if one is None:
        return Cell(why, "", known=False)
    return Cell(f"{one.value:.2f}", f"{one.low:.2f}–{one.high:.2f}", known=True)


def signed(value: float) -> str:
    """
    >>> signed(3.2), signed(-0.4), signed(0.02), signed(-12.0)
    ('+3.2', '−0.4', '0.0', '−12.0')
    """
    text = f"{abs(value):.1f}"
    sign = "" if text == "0.0" else "+" if value > 0 else "\u2212"
    return sign + text


def recalibration_sentences(found: Recalibration) -> list[str]:
    """What was done to the probabilities, in plain words."""
    if not found.applied:
        reason = found.note.removeprefix("not applied: ") or "the noise leaves slope and intercept too uncertain"
        return [f"The probabilities are as training left them: {reason}."]
    slope, intercept = found.slope, found.intercept
    moved = "raised" if intercept.value > 0 else "lowered"
    return [
        f"After training, the model's log-odds were multiplied by {slope.value:.2f}"
        f" ({slope.low:.2f}–{slope.high:.2f}) and then {moved} by {abs(intercept.value):.2f}"
        f" ({signed2(intercept.low)} to {signed2(intercept.high)}), fitted from noised counts of training patients."
        " The ranking, and so the AUC, stays what it was. Every figure here is of the corrected model."
    ]


def signed2(value: float) -> str:
    """
    >>> signed2(0.123), signed2(-0.5)
    ('+0.12', '−0.50')
    """
    return f"{value:+.2f}".replace("-", "\u2212")
