"""`cameo plan` and `cameo run`: what a run would cost, and carrying it out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_protocol.console import emit, say
from cameo_server.cli.options import AsJson, Home, Profile

if TYPE_CHECKING:
    from cameo_protocol.plan import RunPlan
    from cameo_server.api.client import OperatorClient
    from cameo_server.run.release_gate import Auditor

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[OVERRIDES]...", hidden=True)]


def register(app: typer.Typer, auditor: Auditor) -> None:
    """Add these commands. auditor: makes an audit of a plan where none fits."""
    app.command()(plan)
    app.command()(run_with(auditor))


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
    from cameo_protocol.privacy.statements import outlook, statements
    from cameo_server.home import open_home, write_file
    from cameo_server.launch import make_plan

    made = make_plan(open_home(home), overrides or [])
    if out is not None:
        write_file(out.absolute(), made.canonical())
    value = {
        "plan_id": made.plan_id(),
        "plan": made.model_dump(mode="json"),
        "epsilon": statements(made).as_dict(),
        "rounds": [row.as_dict() for row in outlook(made)],
        "path": str(out.absolute()) if out else None,
    }
    emit(value, as_json, lambda: _shown(made))


def run_with(auditor: Auditor) -> Callable[..., None]:
    """The command `run`."""

    def run(
        overrides: Overrides = None,
        follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for the end, showing steps.")] = True,
        resume: Annotated[
            str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that was left in the middle.")
        ] = None,
        home: Home = None,
        profile: Profile = None,
        as_json: AsJson = False,
    ) -> None:
        """Start a run on the running coordinator and follow it.

        OVERRIDES change conf/experiment.yaml. The plan and its cost are shown first, and its recipe is audited where
        that was not done before; with --profile it must have been, on the coordinator's machine. Hospitals then decide
        for themselves whether they take part. Ctrl-C ends the looking, not the run: see `cameo watch` and `cameo stop`.

        Exit code 0 when the run has published, 4 when its audit failed, 7 when too few hospitals are there or the run
        was stopped.

        \b
        Example:
          cameo run data=heart privacy.epsilon=1 training.rounds=20
          cameo run --resume 20260101-120000-ab12
        """
        if resume is not None:
            _resume(resume, overrides or [], home, profile, follow=follow, as_json=as_json)
            return
        _run(auditor, overrides or [], home, profile, follow=follow, as_json=as_json)

    return run


def _run(
    auditor: Auditor, overrides: list[str], home: Path | None, profile: Path | None, *, follow: bool, as_json: bool
) -> None:
    from cameo_server.api.client import connected
    from cameo_server.cli.following import watched
    from cameo_server.cli.presence import await_hospitals
    from cameo_server.home import open_home
    from cameo_server.launch import require_running

    made = _composed(home, profile, overrides)
    say(_shown(made))
    if profile is None:
        require_running(open_home(home))
    await_hospitals(home, profile, made)  # before the audit, which takes its time
    if profile is None:  # the audit of a coordinator elsewhere lies there, and is asked for there
        auditor(open_home(home), made)
    with connected(home, profile) as client:
        name = _started(client, made.canonical(), overrides, elsewhere=profile is not None)
    value: dict[str, Any] = {"run": name, "plan_id": made.plan_id()}
    if profile is None:
        value["folder"] = str(open_home(home).runs / name)
    if not follow:
        emit(value, as_json, lambda: f"run {name} started\nNext: cameo watch {name}")
        return
    value |= {"figures": watched(home, profile, name), "result": "published"}
    where = value.get("folder", f"cameo runs {name}")
    emit(value, as_json, lambda: f"run {name} published\nModels, card and events: {where}")


def _started(client: OperatorClient, plan: bytes, overrides: list[str], *, elsewhere: bool) -> str:
    """Start the run and tell its name. elsewhere: on a coordinator's machine that is not this one."""
    from cameo_protocol.errors import ExitCode, OperatorError
    from cameo_protocol.operator_api import operator_pb2 as pb

    try:
        return str(client.call("StartRun", pb.StartRunRequest(plan=plan)).run)
    except OperatorError as error:
        if not elsewhere or error.code != "audit-missing":
            raise
        raise OperatorError(
            "audit-missing",
            what="the coordinator has no audit of this plan's recipe, and one is made on its own machine only",
            do="when this has been run there, run the command again; on the coordinator's machine: "
            + shlex.join(["cameo", "audit", "--plan", *overrides]),
            exit=ExitCode.POLICY,
        ) from None


def _resume(
    run: str, overrides: list[str], home: Path | None, profile: Path | None, *, follow: bool, as_json: bool
) -> None:
    from cameo_protocol.errors import ExitCode, OperatorError
    from cameo_server.audit import note
    from cameo_server.cli.following import watched
    from cameo_server.home import open_home
    from cameo_server.launch import resume_run

    if overrides or profile is not None:
        raise OperatorError(
            "resume-options",
            what="--resume goes on with a run's own plan, on the coordinator's machine",
            do=f"with nothing else, on the coordinator's machine: cameo run --resume {run}",
            exit=ExitCode.USAGE,
        )
    place = open_home(home)
    started = resume_run(place, run)
    if started:
        note(place, "run-resumed", about=run)
    value: dict[str, Any] = {"run": run, "started": started}
    if not follow:
        emit(value, as_json, lambda: f"run {run} goes on" if started else f"run {run} is being driven already")
        return
    value |= {"figures": watched(home, profile, run), "result": "published"}
    emit(value, as_json, lambda: f"run {run} published")


def _composed(home: Path | None, profile: Path | None, overrides: list[str]) -> RunPlan:
    """The plan for the roster of this home, or of the coordinator that the profile calls."""
    from cameo_protocol.federation import read_federation
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected
    from cameo_server.home import open_home
    from cameo_server.launch import make_plan, make_plan_for

    if profile is None:
        return make_plan(open_home(home), overrides)
    with connected(home, profile) as client:
        issued = client.call("GetFederation", pb.GetFederationRequest()).federation
    return make_plan_for(read_federation(issued).cohort.sites, overrides)


def _shown(made: RunPlan) -> str:
    from cameo_server.cli.plan_text import plan_text

    return plan_text(made)
