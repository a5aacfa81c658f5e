"""`cameo-node page` and `report`: looking at this hospital in a browser, and one run of it in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(page)
    app.command()(report)


def page(
    role: Annotated[Literal["officer", "care", "auditor"], typer.Option(help="What may be seen and done.")] = "officer",
    person: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Who looks; it goes into the log. Default: this account; care needs it."
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print a link to this hospital's page.

    It opens the page once, on this machine, within ten minutes. Officers and auditors see figures; care also sees the
    review queue and decides there, where roles.yaml allows it.

    \b
    Example:
      cameo-node page
      cameo-node page --role care --as "A. Nurse"
    """
    from cameo_client.audit import account, note
    from cameo_client.home import open_home
    from cameo_client.page.server import page_link
    from cameo_protocol.errors import ExitCode, OperatorError
    from cameo_protocol.web.links import Visitor

    name = (person or ("" if role == "care" else account())).strip()
    if not 2 <= len(name) <= 60 or not name.isprintable():
        raise OperatorError(
            "reviewer-unnamed", what="the page needs a person's name", do="say who: --as NAME", exit=ExitCode.USAGE
        )
    place = open_home(home)
    url = page_link(place, Visitor(name, role))
    note(place, "page-link-made", who=name, about=role)
    emit({"url": url, "role": role}, as_json, lambda: url)


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", hidden=True)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to. Default: ./report-RUN.html.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write this hospital's own report of RUN.

    It holds the model card, what the run cost here, and tag counts with small ones hidden. It is for this hospital;
    nothing is sent.

    \b
    Example:
      cameo-node report 20260101-120000-ab12
    """
    import hashlib
    import time

    from cameo_client.home import PRIVATE, open_home, write_file
    from cameo_client.page.report import hospital_report
    from cameo_client.page.views import Views

    text = hospital_report(Views(open_home(home), time.time), run).encode()
    path = (out or Path(f"report-{run}.html")).absolute()
    write_file(path, text, PRIVATE)
    value = {"report": str(path), "sha256": hashlib.sha256(text).hexdigest()}
    emit(value, as_json, lambda: f"report: {path}\nSHA-256 {value['sha256']}")
