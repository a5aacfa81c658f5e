"""The report of a run: one self-contained HTML file that a privacy officer understands in two minutes."""

from cameo_lab.report.record import (
    Account,
    CalibrationPoint,
    Estimate,
    Hospital,
    Quality,
    ReasonCount,
    ReportRecord,
    RoundRow,
    Segment,
    Segments,
    StageTime,
    Statement,
    TagCount,
    TaskRow,
    Timing,
    Trait,
    Uploads,
)
from cameo_lab.report.render import render

__all__ = [
    "Account",
    "CalibrationPoint",
    "Estimate",
    "Hospital",
    "Quality",
    "ReasonCount",
    "ReportRecord",
    "RoundRow",
    "Segment",
    "Segments",
    "StageTime",
    "Statement",
    "TagCount",
    "TaskRow",
    "Timing",
    "Trait",
    "Uploads",
    "render",
]
