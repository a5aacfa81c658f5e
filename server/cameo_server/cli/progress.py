"""A run's events as lines for people. Nothing is shown that is not in events.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LINES = {
    "start": "run {run} of {name}, plan {plan_id:.12}",
    "admission": "{site}: {answer}",
    "lost": "{site} is lost at {stage}: {code}",
    "waiting": "too few hospitals are there; waiting for {sites}, {seconds:.0f} s at most",
    "resumed": "run {run} goes on where it was",
    "audit-log-cut": "the audit log of {site} has lost entries that it once told",
    "refused": "{site} takes no further part: {code}",
    "returned": "back again: {sites}",
    "epoch": "epoch {epoch}: keys for {rounds} rounds of {sites}",
    "round": "{kind} round {round}: sum of {survivors}; {total_seconds:.2f} s",
    "void": "{kind} round {round} is void: {reason}",
    "published": "published to {stored}",
    "finished": "told the end: {told}",
    "stopped": "stopped: {code}",
    "report": "report written, SHA-256 {sha256:.12}",
}


def line(event: Mapping[str, Any]) -> str:
    """One event of a run in one line; an event of a kind that is not known here is shown by its name."""
    if event["event"] == "evaluated":
        return "; ".join(figures(task, found) for task, found in event["figures"].items()) or "nothing to evaluate"
    if event["event"] == "recalibrated":
        return "; ".join(correction(task, found) for task, found in event["corrections"].items()) or "recalibration"
    if event["event"] == "finished" and not event["told"]:
        return "nobody had to be told the end"
    if event["event"] == "numbered":
        return "; ".join(numbering(task, found) for task, found in event["segments"].items())
    shown = {key: ", ".join(value) if isinstance(value, list) else value for key, value in event.items()}
    return _LINES.get(event["event"], "{event}").format_map(shown)


def figures(task: str, found: Mapping[str, Any]) -> str:
    """The AUC of a task with its interval, or why there is none."""
    auc = found.get("auc")
    if not auc:
        return f"{task}: no AUC ({found.get('note', '').partition(':')[0]})"  # the note goes on with the other figures
    return f"{task}: AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"


def correction(task: str, found: Mapping[str, Any]) -> str:
    """What the recalibration did to a risk model, or that it did nothing, and why."""
    if found["applied"]:
        return f"{task}: recalibrated"
    return f"{task}: recalibration not applied ({found['note'].partition(': ')[2]})"


def numbering(task: str, found: Mapping[str, Any]) -> str:
    """Which segments keep the numbers of an earlier run."""
    if not found["former"]:
        return f"{task}: segments are numbered for the first time"
    kept = ", ".join(str(one["number"]) for one in found["numbers"] if one["carried"])
    new = ", ".join(str(one["number"]) for one in found["numbers"] if not one["carried"])
    parts = [f"as in run {found['former']['run']}: {kept}"] if kept else []
    parts += [f"new meaning: {new}"] if new else []
    return f"{task}: segments {'; '.join(parts)}"
