"""`cameo report`: a published run as one HTML file, of what a coordinator has."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_protocol.console import emit
from cameo_server.cli.options import AsJson, Home

if TYPE_CHECKING:
    from cameo_server.run.store import RunStore

EVENT = "report"


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", hidden=True)], home: Home = None, as_json: AsJson = False
) -> None:
    """Write the report of a published RUN.

    It is one HTML file, in the run's folder and on the dashboard. It holds what a coordinator has: plan, who took part,
    epsilon, the declared evaluations with their intervals, segments, audit, stage times. No hospital's budget, count or
    tag is in it. Its SHA-256 goes into the run's events.

    \b
    Example:
      cameo report 20260101-120000-ab12
    """
    from cameo_server.home import open_home
    from cameo_server.run.summary import REPORT, open_store

    store = open_store(open_home(home), run)
    text = run_report(store).encode()
    digest = hashlib.sha256(text).hexdigest()
    store.save_bytes(REPORT, text)
    if digest not in [event["sha256"] for event in store.events() if event["event"] == EVENT]:
        store.event(EVENT, file=REPORT, sha256=digest)
    path = store.folder / REPORT
    emit({"report": str(path), "sha256": digest}, as_json, lambda: f"report: {path}\nSHA-256 {digest}")


def run_report(store: RunStore) -> str:
    """The report as HTML, the same bytes whenever it is made. A run that is not published is an `OperatorError`."""
    from cameo_lab.report.of_run import Told, report_record
    from cameo_lab.report.render import render
    from cameo_protocol.errors import OperatorError
    from cameo_protocol.plan import parse_plan
    from cameo_server.definitions import read_catalogue
    from cameo_server.run.summary import read_card

    events, plan = list(store.events()), parse_plan(store.plan())
    published = next((event for event in events if event["event"] == "published"), None)
    card = read_card(store)
    if published is None or not card:
        raise OperatorError(
            "report-unpublished",
            what=f"run {store.folder.name} has published no model, and a report is about what was published",
            do=f"cameo watch {store.folder.name}",
        )
    synthetic = read_catalogue(plan.data.catalogue).synthetic
    told = Told(
        title=plan.name,
        data=f"Facts catalogue {plan.data.catalogue}, as each hospital has mapped its own data to it.",
        synthetic=synthetic,
        fictional_consents=False,
        seconds=_seconds(events, published),
        traffic=published["traffic"],
        prototypes=_prototypes(store, plan),
    )
    return render(report_record(plan, store.folder.name, events, json.loads(card), told))


def _seconds(events: Sequence[Mapping[str, Any]], published: Mapping[str, Any]) -> dict[str, float]:
    """From admission to the first keys, the median round, and from the first event to the publication."""
    admitted = [event["time"] for event in events if event["event"] == "admission"]
    keys = next((event["time"] for event in events if event["event"] == "epoch"), None)
    rounds = [event["total_seconds"] for event in events if event["event"] == "round"]
    return {
        "setup": max(0.0, keys - max(admitted)) if keys is not None and admitted else 0.0,
        "round_median": statistics.median(rounds) if rounds else 0.0,
        "total": max(0.0, published["time"] - events[0]["time"]),
    }


def _prototypes(store: RunStore, plan: Any) -> Any:
    """The published segment model's parameters; None where the plan has none."""
    from cameo_models.bundle import parse_bundle
    from cameo_protocol.plan import SegmentTask

    task = next((task for task in plan.tasks if isinstance(task, SegmentTask)), None)
    if task is None:
        return None
    return parse_bundle((store.folder / f"{task.name}.safetensors").read_bytes()).parameters
