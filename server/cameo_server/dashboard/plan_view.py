"""A plan as its run's page shows it: what is done with whom, and what that can tell about one patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cameo_protocol.errors import CameoError
from cameo_protocol.plan import HistogramTask, RiskTask, RunPlan, Task, parse_plan
from cameo_protocol.privacy.statements import rounded_up, statements
from cameo_protocol.web.words import TOWARD, delta_text
from cameo_server.definitions import label_in_words, read_catalogue
from cameo_server.run.findings import costs


@dataclass(frozen=True, kw_only=True)
class Part:
    """One task: what it is, how often it is released at most, its noise and its share of the privacy loss."""

    name: str
    what: str
    times: int
    sigma: float
    share: float


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """plan: itself. promises: (toward whom, ε at most). spent: after n training rounds is `RunView`'s."""

    plan: RunPlan
    plan_id: str
    catalogue: str
    synthetic: bool
    delta: str
    promises: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


@lru_cache(maxsize=64)
def plan_view(raw: bytes) -> PlanView:
    """Of the canonical bytes of a plan."""
    plan = parse_plan(raw)
    said = statements(plan)
    tasks = {task.name: task for task in plan.tasks}
    title, synthetic = _catalogue(plan.data.catalogue)
    return PlanView(
        plan=plan,
        plan_id=plan.plan_id(),
        catalogue=title,
        synthetic=synthetic,
        delta=delta_text(said.coord.delta),
        promises=tuple((words, rounded_up(getattr(said, key).epsilon)) for key, words in TOWARD.items()),
        parts=tuple(
            Part(
                name=one["release"],
                what=_what(tasks[one["release"]]),
                times=one["count"],
                sigma=one["sigma"],
                share=one["share"],
            )
            for one in costs(plan)
        ),
    )


def _what(task: Task) -> str:
    if isinstance(task, RiskTask):
        return f"risk model: {label_in_words(task.label)}"
    if isinstance(task, HistogramTask):
        return f"{task.kind} of {task.of}" + (f", by {task.by.fact.replace('_', ' ')}" if task.by else "")
    return f"segment model: {task.clusters} segments"


def _catalogue(name: str) -> tuple[str, bool]:
    try:
        found = read_catalogue(name)
    except CameoError:
        return name, False
    return found.title, found.synthetic
