"""Tag counts as they may be shown: cells below 11 hidden, the others rounded to 5, small reasons not named.

No totals are shown over cells or reasons, so that a hidden cell cannot be had by subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass

from cameo_lab.report.record import ReasonCount, ReportRecord, TagCount
from cameo_lab.report.wording import count_text, reason_text, shown_count

SHADES = 4


@dataclass(frozen=True)
class Cell:
    """A count in words, and how dark its cell is: 0 (hidden) to 4."""

    text: str
    shade: int


@dataclass(frozen=True)
class TagLine:
    """One tag: its purpose and the stored count of each hospital, in the order of the roster."""

    tag: str
    purpose: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Detail:
    """One tag in one hospital: stored, and the reasons of what was not stored."""

    tag: str
    stored: str
    blocked: tuple[tuple[str, str], ...]
    waiting: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HospitalTags:
    """Every tag of one hospital."""

    name: str
    lines: tuple[Detail, ...]


def _cell(count: int | None, most: int) -> Cell:
    if count is None:
        return Cell("–", 0)
    shown = shown_count(count)
    shade = 0 if shown is None else 1 + round((SHADES - 1) * shown / most)
    return Cell(count_text(count), shade)


def stored_lines(record: ReportRecord) -> tuple[TagLine, ...]:
    """One line a tag, in the order of its first count; "–" where a hospital decided nothing about it."""
    counts = {(one.tag, one.hospital): one.stored for one in record.tags}
    purposes = {one.tag: one.purpose for one in record.tags}
    most = max((shown_count(count) or 0 for count in counts.values()), default=0) or 1
    return tuple(
        TagLine(
            tag,
            purpose.replace("_", " "),
            tuple(_cell(counts.get((tag, hospital.name)), most) for hospital in record.hospitals),
        )
        for tag, purpose in purposes.items()
    )


def _reasons(counts: tuple[ReasonCount, ...]) -> tuple[tuple[str, str], ...]:
    """Reasons in words, the commonest first. Small ones are left out: naming one would say that somebody has it."""
    shown = [one for one in counts if shown_count(one.count) is not None]
    ordered = sorted(shown, key=lambda one: (-(shown_count(one.count) or 0), one.reason))
    return tuple((reason_text(one.reason), count_text(one.count)) for one in ordered)


def _detail(count: TagCount) -> Detail:
    return Detail(count.tag, count_text(count.stored), _reasons(count.blocked), _reasons(count.waiting))


def by_hospital(record: ReportRecord) -> tuple[HospitalTags, ...]:
    """Every hospital that has counts, in the order of the roster."""
    found = []
    for hospital in record.hospitals:
        lines = tuple(_detail(one) for one in record.tags if one.hospital == hospital.name)
        if lines:
            found.append(HospitalTags(hospital.name, lines))
    return tuple(found)
