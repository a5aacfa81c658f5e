"""`cameo runs`, `watch` and `stop`: what runs there are, looking at one, and ending one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cameo_protocol.console import emit, say
from cameo_server.cli.options import AsJson, Home, Profile

Run = Annotated[str, typer.Argument(metavar="RUN", hidden=True)]
# A coordinator that was killed is back within this time when a service manager restarts it.
PATIENCE_S, PAUSE_S = 60.0, 1.0
# How a coordinator that is being stopped, or is not there, answers.
_AWAY = ("coordinator-unreachable", "coordinator-stopping", "coordinator-not-started")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(runs)
    app.command()(watch)
    app.command()(stop)


def runs(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", hidden=True)] = None,
    home: Home = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """List the runs, newest first.

    With RUN, show its plan and model card.

    \b
    Example:
      cameo runs
      cameo runs 20260101-120000-ab12 --json
    """
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    with connected(home, profile) as client:
        if run is not None:
            found = client.call("GetRun", pb.GetRunRequest(run=run))
            card = json.loads(found.card) if found.card else None
            value = {**_row(found.summary), "plan": json.loads(found.plan), "card": card}
            emit(value, as_json, lambda: f"{_shown([found.summary])}\n\n{_whole(found.plan, card)}")
            return
        listed = list(client.call("ListRuns", pb.ListRunsRequest()).runs)
    emit({"runs": [_row(each) for each in listed]}, as_json, lambda: _shown(listed))


def watch(run: Run, home: Home = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """Show the steps of RUN from its first to its end.

    Ctrl-C ends the looking, not the run. With --json: one object a line, as they come. Exit code 0 when the run has
    published, 7 when it was stopped, or when the coordinator stopped and did not come back within a minute.

    \b
    Example:
      cameo watch 20260101-120000-ab12
    """
    if as_json:
        watched(home, profile, run, lambda event: typer.echo(json.dumps(event)))
        return
    watched(home, profile, run)
    emit({}, False, lambda: f"run {run} published")


def stop(run: Run, home: Home = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """End RUN before its next round. Hospitals free what they had reserved and have not spent.

    \b
    Example:
      cameo stop 20260101-120000-ab12
    """
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    with connected(home, profile) as client:
        asked = bool(client.call("StopRun", pb.StopRunRequest(run=run)).stopped)
    said = f"run {run} ends before its next round" if asked else f"run {run} had ended already"
    emit({"run": run, "stopped": asked}, as_json, lambda: said)


def events(home: Path | None, profile: Path | None, run: str) -> Iterator[dict[str, Any]]:
    """The events of a run to its end; a coordinator that is restarted meanwhile is waited for.

    A stream that ends before the run has is no end. `OperatorError` "coordinator-stopped" (exit 7) when no coordinator
    tells more for `PATIENCE_S`.
    """
    import time

    from cameo_protocol.errors import OperatorError
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    seen, last = 0, ""
    lost: float | None = None  # since when nothing is told
    while True:
        try:
            with connected(home, profile) as client:
                for place, item in enumerate(client.stream("WatchRun", pb.WatchRunRequest(run=run))):
                    lost = None
                    if place >= seen:
                        event = json.loads(item.event)
                        seen, last = place + 1, event["event"]
                        yield event
            if _over(last):
                return
        except OperatorError as error:
            if error.code not in _AWAY or (error.code == "coordinator-unreachable" and seen == 0 and lost is None):
                raise
        if lost is None:
            lost = time.monotonic()
            say(f"the coordinator has stopped; waiting {PATIENCE_S:.0f} s for it to come back")
        if time.monotonic() - lost > PATIENCE_S:
            raise _coordinator_stopped(run)
        time.sleep(PAUSE_S)


def watched(
    home: Path | None, profile: Path | None, run: str, show: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Show each event (default: say its line); the figures of the evaluation, or an `OperatorError` of a stopped run.

    That error has exit code 7, whatever stopped the run.
    """
    from cameo_protocol.errors import ExitCode, OperatorError
    from cameo_server.cli.progress import line

    figures: dict[str, Any] = {}
    stopped: OperatorError | None = None
    last = ""
    for event in events(home, profile, run):
        if show is None:
            say(line(event))
        else:
            show(event)
        last = event["event"]
        if last == "evaluated":
            figures = event["figures"]
        if last == "resumed":
            stopped = None
        if last == "stopped":
            stopped = OperatorError(event["code"], what=event["what"], do=event["do"], exit=ExitCode.PEER)
    if stopped is not None:
        raise stopped
    if not _over(last):
        raise _coordinator_stopped(run)
    return figures


def _over(last: str) -> bool:
    """Whether a run may end with this event: a stopped one may be without anybody to tell the hospitals."""
    from cameo_server.resuming import ENDED

    return last in ENDED or last == "stopped"


def _coordinator_stopped(run: str) -> Exception:
    from cameo_protocol.errors import ExitCode, OperatorError

    return OperatorError(
        "coordinator-stopped",
        what=f"the coordinator stopped before run {run} ended; the run goes on when it is started again",
        do=f"cameo coordinator start, then: cameo watch {run}",
        exit=ExitCode.PEER,
    )


def _row(run: Any) -> dict[str, Any]:
    return {
        "run": run.run,
        "name": run.name,
        "state": run.state,
        "started": run.started,
        "rounds_opened": run.rounds_opened,
        "rounds_planned": run.rounds_planned,
    }


def _whole(plan: bytes, card: dict[str, Any] | None) -> str:
    from cameo_protocol.plan import parse_plan
    from cameo_server.cli.run_text import run_text

    return run_text(parse_plan(plan), card)


def _shown(listed: list[Any]) -> str:
    if not listed:
        return "no run yet. Next: cameo run"
    return "\n".join(
        f"{run.run}  {run.name}  {run.state:<9}  {run.rounds_opened}/{run.rounds_planned} rounds  {run.started}"
        for run in listed
    )
