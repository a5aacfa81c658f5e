"""The end of a demo: figures, summary.json and the report."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cameo_client.home import NodeHome
from cameo_client.ledger import Caps, Ledger
from cameo_client.node.service import LEDGER_DELTA
from cameo_client.policy_file import load_policy
from cameo_client.tags.store import TagStore
from cameo_lab.demo.figures import ClearFigures, clear_figures, read_pool
from cameo_lab.demo.setting import Setting
from cameo_protocol.plan import RunPlan, SegmentTask, parse_plan
from cameo_protocol.privacy.statements import statements
from cameo_server.run.store import RunStore

SCHEMA_VERSION = 1
STATES = ("stored", "blocked", "waiting")
Events = Sequence[Mapping[str, Any]]


def conclude(
    out: Path, coordinator: Path, run: str, setting: Setting, seconds: Mapping[str, float], lost: Sequence[str]
) -> tuple[Path, dict[str, Any]]:
    """Compute the figures, write OUT/summary.json and OUT/report.html; returns the report's path and the summary."""
    from cameo_lab.report import render
    from cameo_lab.report.of_run import Told, report_record

    store = RunStore(coordinator / "runs" / run)
    plan = parse_plan(store.plan())
    events = list(store.events())
    homes = {site.name: out / "hospitals" / site.name for site in setting.sites}
    clear = clear_figures(read_pool(list(homes.values()), plan), plan, store.folder)
    accounts = {name: account(home) for name, home in homes.items()}
    tags = {name: tallies(home) for name, home in homes.items() if name not in lost}
    summary = _summary(plan, events, clear, accounts, tags, seconds)
    (out / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    card = json.loads((store.folder / "card.json").read_bytes())
    told = Told(
        title=setting.title,
        data=setting.note,
        synthetic=setting.synthetic,
        fictional_consents=True,
        seconds=summary["seconds"],
        traffic=summary["uploads"],
        prototypes=clear.segment_parameters,
        clear=clear,
        accounts=accounts,
        tags=tags,
    )
    record = report_record(plan, run, events, card, told)
    report = out / "report.html"
    report.write_text(render(record), encoding="utf-8")
    return report, summary


def account(home: Path) -> dict[str, Any]:
    """A hospital's own ledger in figures: spent, held (spent and reserved), caps; ε at the ledger's δ."""
    node = NodeHome(home)
    from cameo_client.home import load_config

    caps = load_policy(node.policy).policy.caps
    dataset = load_config(node).data.name
    with Ledger.open(node.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time) as ledger:
        return {
            "spent": ledger.spent(),
            "held": ledger.held(),
            "cap": min(caps.epsilon_per_data_set, caps.epsilon_per_year),
            "report": ledger.report(Caps(dataset=caps.epsilon_per_data_set, year=caps.epsilon_per_year)),
        }


def tallies(home: Path) -> list[dict[str, Any]]:
    """Tag counts of a hospital's last evaluation, exact: only for a demo that owns all folders."""
    with TagStore(NodeHome(home).tags) as store:
        last = store.last_run()
    counts: list[dict[str, Any]] = list(last["counts"]) if last else []
    return counts


def last_event(events: Events, name: str) -> Mapping[str, Any]:
    """The last event of that name; empty when there is none."""
    return next((event for event in reversed(events) if event["event"] == name), {})


def round_events(events: Events) -> list[Mapping[str, Any]]:
    """Opened and void rounds in order."""
    return [event for event in events if event["event"] in ("round", "void")]


def setup_seconds(events: Events) -> float:
    """From the first acceptance to the first epoch's keys."""
    admitted = [event["time"] for event in events if event["event"] == "admission"]
    epoch = next((event["time"] for event in events if event["event"] == "epoch"), None)
    return round(epoch - max(admitted), 3) if admitted and epoch else 0.0


def _summary(
    plan: RunPlan,
    events: Events,
    clear: ClearFigures,
    accounts: Mapping[str, Mapping[str, Any]],
    tags: Mapping[str, Sequence[Mapping[str, Any]]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    figures = last_event(events, "evaluated").get("figures", {}).get("risk", {})
    traffic = last_event(events, "published")["traffic"]
    opened = [event for event in events if event["event"] == "round"]
    segment = next(task for task in plan.tasks if isinstance(task, SegmentTask))
    said = statements(plan)
    return {
        "schema_version": SCHEMA_VERSION,
        "plan_id": plan.plan_id(),
        "hospitals": len(plan.cohort.sites),
        "lost": sorted({event["site"] for event in events if event["event"] == "lost"}),
        "rounds": sum(event["kind"] == "train" for event in opened),
        "void_rounds": sum(event["event"] == "void" for event in events),
        "risk": _risk(clear, figures),
        "recalibration": _recalibration(events),
        "segment": {"k": segment.clusters, "ari_reference": clear.ari},
        "epsilon": {
            "total": said.coord.epsilon,
            "delta": said.coord.delta,
            "model": said.model.epsilon,
            "bare": said.bare.epsilon,
            "spent": {name: account["spent"] for name, account in accounts.items()},
        },
        "uploads": {"clear": traffic["clear"], "masked": traffic["masked"], "bytes": traffic["bytes"]},
        "tags": {state: _total(tags, state) for state in STATES},
        "seconds": {
            "setup": round(seconds["setup"], 2),
            "round_median": round(statistics.median(event["total_seconds"] for event in opened), 3),
            "total": round(seconds["total"], 2),
        },
        "version": version("cameo-fl"),
    }


def _risk(clear: ClearFigures, figures: Mapping[str, Any]) -> dict[str, Any]:
    estimate = figures.get("auc")
    return {
        "auc": clear.auc,
        "auc_pooled_reference": clear.auc_pooled,
        "auc_dp": estimate["value"] if estimate else None,
        "auc_dp_interval": [estimate["low"], estimate["high"]] if estimate else None,
        "auc_dp_note": figures.get("note", ""),
        "calibration_error": clear.error,
        "calibration_error_uncorrected": clear.error_raw,
    }


def _recalibration(events: Events) -> dict[str, Any] | None:
    """What the run's recalibration of the risk model came to; None when its plan has none."""
    found: dict[str, Any] | None = last_event(events, "recalibrated").get("corrections", {}).get("risk")
    return found


def _total(tags: Mapping[str, Sequence[Mapping[str, Any]]], state: str) -> int:
    cells = (tally[state] for rows in tags.values() for tally in rows)
    return sum(cell if isinstance(cell, int) else sum(cell.values()) for cell in cells)
