"""A run's plan and model card as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cameo_protocol.plan import RunPlan
from cameo_server.cli.plan_text import plan_text
from cameo_server.cli.progress import correction, figures

_SINGLE = (("brier", "Brier score"), ("prevalence", "observed rate"), ("gap", "observed less predicted rate"))


def run_text(plan: RunPlan, card: Mapping[str, Any] | None) -> str:
    """The plan with its cost, then the card; card: as published, None before that."""
    return "\n".join([plan_text(plan), "", *(_card(card) if card else ["no model has been published"])])


def _card(card: Mapping[str, Any]) -> Iterator[str]:
    yield "model card"
    for name, digest in card["models"].items():
        yield f"  model     {name}, SHA-256 {digest:.12}"
    for task, found in card["evaluation"].items():
        yield f"  figures   {figures(task, found)}"
        for key, words in _SINGLE:
            if found.get(key):
                one = found[key]
                yield f"            {words} {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
    for task, found in card["recalibration"].items():
        yield f"  checked   {correction(task, found)}"
    yield "  All of it, with groups and costs: --json"
