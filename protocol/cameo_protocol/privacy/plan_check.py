"""The check that a plan's privacy claim holds; hospitals run it on every plan before they accept."""

from __future__ import annotations

from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.layout import ROUND_KINDS
from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.noise import slack
from cameo_protocol.privacy.releases import plan_releases
from cameo_protocol.privacy.statements import delta_for
from cameo_protocol.secagg.encoding import check_range

RELATIVE_TOLERANCE = 1e-6
SLACK_SHARE = 100


def check_plan(plan: RunPlan) -> None:
    """Recompute the plan's claim from its own numbers; `Reject` unless it holds.

    plan-delta: delta is larger than min(1e-5, N^-1.1). plan-epsilon: all releases, spare rounds included, compose
    to more than the claimed epsilon by over 1e-6 relative. plan-counts: a histogram whose encoding is not one step
    a patient. plan-slack: integer noise would add more than delta / 100. encoding-overflow: a sum could leave its
    lanes (`secagg.encoding.check_range`).
    """
    terms = plan.privacy
    ceiling = delta_for(terms.population)
    if terms.delta > ceiling * (1 + RELATIVE_TOLERANCE):
        raise Reject("plan-delta", what=f"delta {terms.delta:.3g}; {terms.population} patients allow {ceiling:.3g}")
    _check_counts(plan)
    spent = epsilon((release for _, release in plan_releases(plan)), terms.delta)
    if not spent <= terms.epsilon * (1 + RELATIVE_TOLERANCE):
        raise Reject("plan-epsilon", what=f"the plan's noise gives epsilon {spent:.6g}; it claims {terms.epsilon:.6g}")
    extra = slack(plan)
    if not extra <= terms.delta / SLACK_SHARE:
        raise Reject(
            "plan-slack", what=f"integer noise adds {extra:.3g} to delta {terms.delta:.3g}; at most 1 % may be"
        )
    _check_ranges(plan)


def _check_counts(plan: RunPlan) -> None:
    for kind in ROUND_KINDS:
        for block in plan.layout(kind).blocks:
            if block.counts and (block.scale != 1 or block.clip != 1):
                raise Reject("plan-counts", what=f"task {block.name} counts patients, so its scale and clip must be 1")


def _check_ranges(plan: RunPlan) -> None:
    cohort, local = plan.cohort, plan.privacy.mode == "local"
    for kind in ROUND_KINDS:
        try:
            check_range(plan.layout(kind), len(cohort.sites), cohort.threshold, cohort.colluders, local=local)
        except OperatorError as error:
            # On this side it is the coordinator who can change the numbers.
            raise Reject(error.code, what=error.what) from None
