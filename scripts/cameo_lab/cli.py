"""`cameo`, the command line of coordinators and researchers: the coordinator's commands and the lab's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cameo_lab.audit.cli import audit, auditor
from cameo_lab.bench.cli import bench
from cameo_lab.generate.cli import data
from cameo_lab.report_cli import report
from cameo_protocol.console import emit, execute, new_app, say
from cameo_server import cli as coordinator

app = new_app(
    "Cameo: hospitals train together, and no record, update or count leaves any of them.\n\n"
    "\b\nThe main job on this machine:\n"
    "  cameo demo\n\n"
    "\b\nFor real, from nothing to a run:\n"
    "  cameo coordinator init --name heart-study --host coordinator.example.org\n"
    "  cameo coordinator start             (keep it running)\n"
    "  cameo site invite hospital-a        (once for every hospital; send it the answer)\n"
    "  cameo site approve hospital-a       (after comparing fingerprints by phone)\n"
    "  cameo run data=heart"
    "\n\n\b\nExit codes (docs/errors.md):\n"
    "  0 done   1 our fault   2 usage or configuration   3 data quality   4 refused by a policy\n"
    "  5 keys, certificates   6 data source   7 the other side, or a run that was stopped   130 interrupted"
)
app.command()(audit)
app.command()(report)
coordinator.register(app, auditor)
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")


@app.command()
def demo(
    source: Annotated[
        Literal["synthetic", "heart"], typer.Option("--data", help="Made-up patients, or the public heart data.")
    ] = "synthetic",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Folder of the heart data (docs/data.md says where from)."),
    ] = None,
    postgres: Annotated[
        str, typer.Option(help="Database of the last made-up hospital: auto (one of the demo's own), none, or its URL.")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="What the demo leaves. Default: ./cameo-demo.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Training rounds. Default: the experiment's.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Privacy budget. Default: the experiment's.")] = None,
    privacy: Annotated[Literal["distributed", "local"], typer.Option(help="Noise mode.")] = "distributed",
    risk_model: Annotated[Literal["logistic", "mlp"], typer.Option(help="Risk model.")] = "logistic",
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in a browser.")] = True,
) -> None:
    """The main job on this machine, from keys to the report.

    One coordinator and four hospitals as real processes, TLS and node authentication on: a risk and a segment
    model with differential privacy, every update masked, tags written in each hospital.

    \b
    Example:
      cameo demo
      cameo demo --data heart --data-dir heart-data --epsilon 1
    """
    import webbrowser

    from cameo_lab.demo.driver import run_demo
    from cameo_lab.demo.setting import DemoOptions

    options = DemoOptions(
        data=source,
        data_dir=data_dir,
        postgres=postgres,
        out=out,
        rounds=rounds,
        epsilon=epsilon,
        privacy=privacy,
        risk_model=risk_model,
        open_report=open_report,
    )
    result = run_demo(options, say)
    say(f"everything is in {result.out}")
    emit({"report": str(result.report)}, False, lambda: f"report: {result.report}")
    # Without a screen, Python would start a text browser in this terminal, if there is one.
    screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if open_report and screen:
        webbrowser.open(result.report.as_uri())


def main() -> None:
    """Entry point."""
    sys.exit(execute(app, "cameo"))
