"""The hospital's own report of a run: one HTML file for this hospital's people, which never leaves by itself.

Beside what every hospital knows, the model card, it holds what only this one knows: its ledger and its tag counts.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cameo_client.page.curve import draw
from cameo_client.page.views import Views
from cameo_client.page.words import FILTERS
from cameo_protocol.web.headers import STATIC
from cameo_protocol.web.words import TOWARD

TEMPLATES: Final = Path(__file__).parent / "templates"
STYLE: Final = (STATIC / "cameo.css").read_text(encoding="utf-8") + (TEMPLATES / "report.css").read_text("utf-8")
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_IN_FILE: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
CSP: Final = f"{_IN_FILE}; frame-ancestors 'none'; sandbox"


def hospital_report(views: Views, run: str) -> str:
    """The report of a published run as one HTML document: no script, no request, a content security policy of its own.

    Tag counts below 11 do not appear and the others are rounded to 5. They are those of the last evaluation, whatever
    run its models are of. Synthetic data and made-up consents are named as such. An unknown run is an `OperatorError`
    "model-missing"; a changed card a `Reject`.
    """
    card, budget = views.card(run), views.budget()
    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    pages.filters.update(FILTERS)
    return pages.get_template("report.html").render(
        card=card,
        segments=views.segments(run),
        node=views.node(),
        budget=budget,
        row=next((row for row in views.runs() if row.run == run), None),
        curve=draw(budget) if budget else None,
        tags=views.tags(),
        conditions=views.conditions(),
        labels=views.labels(),
        synthetic=views.synthetic(),
        fictional=views.consents()["fictional"],
        toward=TOWARD,
        made=views.now().strftime("%Y-%m-%d %H:%M"),
        style=Markup(STYLE),  # noqa: S704 - our own files
        policy=_IN_FILE,
    )
