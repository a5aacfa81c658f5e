"""`cameo plan` and `cameo run`: what a run would cost, and carrying it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_protocol.console import emit, say
from cameo_server.cli.options import AsJson, Home

if TYPE_CHECKING:
    from cameo_protocol.plan import RunPlan

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[OVERRIDES]...", hidden=True)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(plan)
    app.command()(run)


def plan(
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the plan, for `cameo-node policy check`.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do and cost.

    OVERRIDES change conf/experiment.yaml, as in `cameo run`. Nothing is sent to a hospital.

    \b
    Example:
      cameo plan data=heart privacy.epsilon=1 --out plan.json
    """
    from cameo_protocol.privacy.statements import statements
    from cameo_server.home import open_home, write_file
    from cameo_server.launch import make_plan

    made = make_plan(open_home(home), overrides or [])
    if out is not None:
        write_file(out.absolute(), made.canonical())
    value = {
        "plan_id": made.plan_id(),
        "plan": made.model_dump(mode="json"),
        "epsilon": statements(made).as_dict(),
        "path": str(out.absolute()) if out else None,
    }
    emit(value, as_json, lambda: _shown(made))


def run(
    overrides: Overrides = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for the end, showing each step.")] = True,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Start a run on the running coordinator and follow it.

    OVERRIDES change conf/experiment.yaml. The plan and its cost are shown first; hospitals then decide for
    themselves whether they take part.

    \b
    Example:
      cameo run data=heart privacy.epsilon=1 training.rounds=20
    """
    from cameo_server.home import open_home
    from cameo_server.launch import make_plan, start_run

    place = open_home(home)
    made = make_plan(place, overrides or [])
    say(_shown(made))
    name = start_run(place, made)
    value: dict[str, Any] = {"run": name, "plan_id": made.plan_id(), "folder": str(place.runs / name)}
    if not follow:
        emit(value, as_json, lambda: f"run {name} started; its events: {place.runs / name / 'events.jsonl'}")
        return
    last = _follow(place, name)
    value |= {"figures": last, "result": "published"}
    emit(value, as_json, lambda: f"run {name} published\nModels, card and events: {place.runs / name}")


def _follow(place: Any, name: str) -> dict[str, Any]:
    """Show each event; the figures of the evaluation, or an `OperatorError` when the run was stopped."""
    from cameo_protocol.errors import ExitCode, OperatorError
    from cameo_server.cli.progress import line
    from cameo_server.launch import follow

    figures: dict[str, Any] = {}
    stopped: OperatorError | None = None
    for event in follow(place, name):
        say(line(event))
        if event["event"] == "evaluated":
            figures = event["figures"]
        if event["event"] == "stopped":
            stopped = OperatorError(event["code"], what=event["what"], do=event["do"], exit=ExitCode.PEER)
    if stopped is not None:
        raise stopped
    return figures


def _shown(made: RunPlan) -> str:
    from cameo_protocol.privacy.statements import statements

    cohort, training = made.cohort, made.training
    rows = [
        f"plan {made.name}, {made.plan_id()[:12]}",
        f"  data      {made.data.catalogue}; {made.data.holdout:.0%} of patients held out",
        f"  cohort    {', '.join(site.name for site in cohort.sites)}; any {cohort.threshold} open a sum,"
        f" {cohort.colluders} colluding covered",
        f"  training  {training.rounds} rounds, {training.spare} spare",
    ]
    rows += [
        f"  task      {task.name}: {task.encoded.dim} numbers, noise multiplier {task.encoded.sigma:.3g}"
        for task in made.tasks
    ]
    return "\n".join([*rows, *(f"  {sentence}" for sentence in statements(made).sentences())])
