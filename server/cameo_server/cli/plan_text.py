"""A plan and its cost as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.statements import outlook, rounded_up, statements


def plan_text(plan: RunPlan) -> str:
    """What the plan does, what it costs against whom, and the cost against rounds."""
    return "\n".join([*_what(plan), "", *_cost(plan)])


def _what(plan: RunPlan) -> Iterator[str]:
    cohort, training, terms = plan.cohort, plan.training, plan.privacy
    whole = sum(task.share for task in plan.tasks)
    yield f"plan {plan.name}, {plan.plan_id()[:12]}"
    yield f"  data      {plan.data.catalogue}; {plan.data.holdout:.0%} of patients held out"
    yield (
        f"  cohort    {', '.join(site.name for site in cohort.sites)}; any {cohort.threshold} open a sum,"
        f" {cohort.colluders} colluding covered"
    )
    yield f"  training  {training.rounds} rounds, {training.spare} spare"
    yield f"  noise     {terms.mode}; {terms.population} patients in the federation, as declared"
    for task in plan.tasks:
        block = task.encoded
        yield (
            f"  task      {task.name}: {block.dim} numbers, noise multiplier {block.sigma:.3g},"
            f" {task.share / whole:.0%} of the budget"
        )


def _cost(plan: RunPlan) -> Iterator[str]:
    coord, model, bare, scope = statements(plan).sentences()
    yield from (f"  {sentence}" for sentence in (coord, model, bare))
    yield ""
    yield "  The same against rounds, each histogram included, for a run that ends there:"
    yield f"  {'rounds':>8} {'coordinator':>12} {'outsider':>12} {'bare':>12}"
    for row in outlook(plan):
        spare = row.rounds - plan.training.rounds
        note = f"  {spare} spare" if spare > 0 else ""
        figures = " ".join(f"{rounded_up(value):>12}" for value in (row.coord, row.model, row.bare))
        yield f"  {row.rounds:>8} {figures}{note}"
    yield ""
    yield f"  {scope}"
