"""`cameo audit`: attack a plan, or a run, before anybody else does; and the audit that `cameo run` makes by itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_protocol.console import emit, say
from cameo_protocol.errors import OperatorError
from cameo_server.cli.options import AsJson, Home

if TYPE_CHECKING:
    from cameo_protocol.plan import RunPlan
    from cameo_server.home import CoordinatorHome
    from cameo_server.run.release_gate import Audit

Words = Annotated[list[str] | None, typer.Argument(metavar="[RUN | OVERRIDES...]", hidden=True)]


def audit(
    words: Words = None,
    plan: Annotated[bool, typer.Option("--plan", help="Audit a plan composed from OVERRIDES.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Every attack at its full size: many minutes.")] = False,
    sites: Annotated[
        int | None, typer.Option("--sites", min=3, max=255, help="With --plan: so many hospitals, not the roster's.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Attack a plan or a run on made-up patients.

    What was found is kept for the release gate. No hospital's data is read. Ends with exit code 4 when a check fails;
    no run of that recipe is started or published then.

    \b
    Example:
      cameo audit --plan data=heart privacy.epsilon=1 --full
      cameo audit 20260412-101500-3fa2 --json
    """
    from cameo_lab.audit.conduct import audit_plan, audit_run
    from cameo_server.home import open_home
    from cameo_server.run import release_gate

    place, given = open_home(home), words or []
    if plan:
        made = audit_plan(_composed(place, given, sites), "full" if full else "quick", say)
    elif len(given) == 1 and sites is None:
        made = audit_run(place, given[0], "full" if full else "quick", say)
    else:
        raise OperatorError("usage", what="name one run, or use --plan", do="see: cameo audit --help")
    path = release_gate.keep(place, made)
    value = {**made.card(), "failed": list(made.failed), "path": str(path)}
    emit(value, as_json, lambda: table(made))
    if not made.passed:
        raise release_gate.failure(made)


def auditor(home: CoordinatorHome, plan: RunPlan) -> None:
    """What `cameo run` does first: a quick audit of the recipe, unless there is one."""
    from cameo_lab.audit.conduct import ensure

    ensure(home, plan, say)


def table(made: Audit) -> str:
    """Findings, controls and limits for people, and the lower bound against the claim."""
    rows = [f"{made.effort} audit of recipe {made.recipe[:12]}, {made.made}", ""]
    for found in made.findings:
        rows.append(f"{'passed' if found.passed and found.control_failed else 'FAILED'}  {found.name}")
        rows.append(f"        allowed  {found.limit}")
        rows.append(f"        seen     {_figures(found.figures)}")
        if found.control:
            held = "broke, as it must" if found.control_failed else "DID NOT BREAK, so the attack proves nothing"
            rows.append(f"        control  {_figures(found.control)} ({held})")
    rows += ["", f"lower bound on epsilon {made.lower_bound:.3g}; the plan claims {made.claim:.3g}"]
    return "\n".join([*rows, "passed" if made.passed else f"FAILED: {', '.join(made.failed)}"])


def _figures(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items()) or "nothing"


def _composed(home: CoordinatorHome, overrides: list[str], sites: int | None) -> RunPlan:
    from cameo_protocol.plan import Site
    from cameo_server.launch import make_plan, make_plan_for

    if sites is None:
        return make_plan(home, overrides)
    made_up = [
        Site(name=f"site-{i}", index=i, identity=hashlib.sha256(f"audit {i}".encode()).hexdigest())
        for i in range(1, sites + 1)
    ]
    return make_plan_for(made_up, overrides)
