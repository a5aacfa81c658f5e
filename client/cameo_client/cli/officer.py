"""`cameo-node policy`: what the privacy officer's policy says about a plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app

if TYPE_CHECKING:
    from cameo_client.home import NodeHome
    from cameo_protocol.errors import OperatorError
    from cameo_protocol.plan import RunPlan
    from cameo_protocol.policy import Policy

app = new_app("The officer's policy.yaml.")


@app.command()
def check(
    plan: Annotated[Path | None, typer.Argument(metavar="[PLAN]", hidden=True)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hold a plan against policy.yaml and what is left to spend.

    PLAN is a file from `cameo plan --out plan.json`; without it only policy.yaml itself is checked. Exit code 4 when
    the plan would be declined; every line of the policy that says so is named.

    \b
    Example:
      cameo-node policy check plan.json
    """
    from cameo_client.home import open_home
    from cameo_client.policy_file import load_policy
    from cameo_protocol.errors import ExitCode
    from cameo_protocol.policy import check as check_plan

    place = open_home(home)
    policy = load_policy(place.policy)
    if plan is None:
        emit({"valid": True, "path": str(policy.path)}, as_json, lambda: f"{policy.path} is a valid policy")
        return
    asked = _plan(plan)
    refusals = check_plan(policy.policy, asked, asked.cohort)
    over = _over_budget(place, asked, policy.policy)
    value = {
        "plan_id": asked.plan_id(),
        "accepted": not refusals and over is None,
        "budget": None if over is None else {"code": over.code, "what": over.what, "do": over.do},
        "refusals": [{**asdict(refusal), "line": policy.line(refusal.field)} for refusal in refusals],
    }
    good = f"plan {asked.name} ({asked.plan_id()[:12]}) is within {policy.path} and what the ledger has left"
    bad = [*policy.explain(refusals), *([] if over is None else [f"ledger: {over.what} ({over.code})", over.do])]
    emit(value, as_json, lambda: "\n".join(["declined:", *bad]) if bad else good)
    if bad:
        raise typer.Exit(int(ExitCode.POLICY))


def _plan(path: Path) -> RunPlan:
    from cameo_client.home import read_file
    from cameo_protocol.errors import OperatorError, Reject
    from cameo_protocol.plan import MAX_PLAN_BYTES, parse_plan

    raw = read_file(path, at_most=MAX_PLAN_BYTES)
    try:
        return parse_plan(raw.strip())
    except Reject as error:
        do = "name the file that the coordinator has from: cameo plan --out plan.json"
        raise OperatorError("plan-invalid", what=f"{path.name}: {error.what}", do=do) from None


def _over_budget(place: NodeHome, plan: RunPlan, policy: Policy) -> OperatorError | None:
    """Why the ledger would refuse the plan now; None when it has room, or nothing was ever spent."""
    import time

    from cameo_client.home import load_config
    from cameo_client.ledger import Caps, Ledger
    from cameo_client.node.service import LEDGER_DELTA
    from cameo_protocol.errors import OperatorError
    from cameo_protocol.privacy.releases import plan_releases

    if not place.ledger.exists():
        return None
    caps = Caps(dataset=policy.caps.epsilon_per_data_set, year=policy.caps.epsilon_per_year)
    dataset = load_config(place).data.name
    with Ledger.open(place.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time) as book:
        try:
            book.check_room(plan.name, plan.plan_id(), plan_releases(plan), caps)
        except OperatorError as error:
            if error.code != "budget-spent":
                raise
            return error
    return None
