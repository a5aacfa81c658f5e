"""`cameo-node policy`: what the privacy officer's policy says about a plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app

app = new_app("The officer's policy.yaml.")


@app.command()
def check(
    plan: Annotated[Path | None, typer.Argument(metavar="[PLAN]", hidden=True)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hold a plan against policy.yaml.

    PLAN is a file from `cameo plan --out plan.json`; without it only policy.yaml itself is checked. Exit code 4 when
    the plan would be declined; every line of the policy that says so is named.

    \b
    Example:
      cameo-node policy check plan.json
    """
    from cameo_client.home import open_home, read_file
    from cameo_client.policy_file import load_policy
    from cameo_protocol.errors import ExitCode
    from cameo_protocol.plan import MAX_PLAN_BYTES, parse_plan
    from cameo_protocol.policy import check as check_plan

    policy = load_policy(open_home(home).policy)
    if plan is None:
        emit({"valid": True, "path": str(policy.path)}, as_json, lambda: f"{policy.path} is a valid policy")
        return
    asked = parse_plan(read_file(plan, at_most=MAX_PLAN_BYTES).strip())
    refusals = check_plan(policy.policy, asked, asked.cohort)
    value = {
        "plan_id": asked.plan_id(),
        "accepted": not refusals,
        "refusals": [{**asdict(refusal), "line": policy.line(refusal.field)} for refusal in refusals],
    }
    good = f"plan {asked.name} ({asked.plan_id()[:12]}) is within {policy.path}"
    emit(value, as_json, lambda: "\n".join(["declined:", *policy.explain(refusals)]) if refusals else good)
    if refusals:
        raise typer.Exit(int(ExitCode.POLICY))
