"""An audit that passed, for tests of what comes after one; a real one takes its time."""

from __future__ import annotations

from cameo_protocol.plan import RunPlan
from cameo_protocol.recipe import recipe_of
from cameo_server.home import CoordinatorHome
from cameo_server.run.release_gate import REQUIRED, Audit, CheckResult, keep, software


def passed_audit(plan: RunPlan) -> Audit:
    """What `cameo audit` would have found, without having looked."""
    checks = tuple(
        CheckResult(name=name, passed=True, figures={}, limit="", control={}, control_failed=True, seconds=0)
        for name in sorted(REQUIRED)
    )
    return Audit(
        recipe=recipe_of(plan),
        effort="quick",
        made="2026-01-01T00:00:00+00:00",
        software=software(),
        findings=checks,
        lower_bound=0.0,
        claim=plan.privacy.epsilon,
    )


def keep_passed_audit(home: CoordinatorHome, plan: RunPlan) -> RunPlan:
    """Opens the release gate of a home for a plan; returns the plan."""
    keep(home, passed_audit(plan))
    return plan
