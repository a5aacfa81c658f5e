"""Lays a record out as one HTML file: no script, no request, a content security policy of its own."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cameo_lab.report import charts, cost_charts, groups_view, model_charts, tags_view, wording
from cameo_lab.report.record import Quality, ReportRecord
from cameo_protocol.web import words

TEMPLATES = Path(__file__).with_name("templates")
FILTERS = {
    "epsilon": wording.epsilon_text,
    "delta": words.delta_text,
    "bytes": wording.bytes_text,
    "seconds": wording.seconds_text,
    "number": wording.number_text,
    "thousands": words.thousands,
    "odds": wording.odds_text,
    "observer": wording.observer,
    "status": wording.status_text,
    "words": wording.reason_text,
}


def _environment() -> Environment:
    """Everything is escaped; a name the template does not get is an error, not an empty string."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _style() -> tuple[Markup, str]:
    """(the style sheet, its hash as a content security policy source)."""
    text = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"sha256-{digest}"  # noqa: S704 - our own file


def _recalibration(quality: Quality | None) -> list[str]:
    found = quality.recalibration if quality else None
    return groups_view.recalibration_sentences(found) if found else []


def render(record: ReportRecord) -> str:
    """The report as one HTML document, some tens of kilobytes; the same record gives the same bytes.

    Guarantees: it loads nothing and runs nothing (no script, no external address, no style attribute); every text of
    the record is escaped; tag counts below 11 do not appear and others are rounded to 5.
    """
    style, style_source = _style()
    quality, groups = record.quality, record.segments.segments if record.segments else ()
    shown_traits = model_charts.distinctive(groups)
    return (
        _environment()
        .get_template("report.html")
        .render(
            record=record,
            style=style,
            style_source=style_source,
            headline=wording.headline(record),
            sentences=wording.what_happened(record),
            statements=[(one, wording.statement_text(one, record)) for one in record.statements],
            kinds=wording.KINDS,
            accounts=charts.accounts(record),
            costs=cost_charts.costs(record),
            ledgers=cost_charts.ledgers(record),
            group_cards=groups_view.group_cards(record),
            everybody_cost=groups_view.cost_text(record, "evaluation"),
            everybody=groups_view.everybody(quality) if quality else None,
            recalibration=_recalibration(quality),
            learning=charts.learning(record),
            norms=charts.norms(record),
            survivors=charts.survivors(record),
            stages=charts.stages(record),
            ranking=model_charts.ranking(quality) if quality else None,
            calibration=model_charts.calibration(quality) if quality else None,
            prototypes=[(one, model_charts.prototype(one, index, shown_traits)) for index, one in enumerate(groups)],
            tag_lines=tags_view.stored_lines(record),
            tag_details=tags_view.by_hospital(record),
        )
    )
