"""`cameo`, the command line of coordinators and researchers: the coordinator's commands and the lab's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cameo_protocol.console import emit, execute, new_app
from cameo_server import cli as coordinator
from cameo_server.cli.options import AsJson

app = new_app(
    "Cameo: hospitals train together, and no record, update or count leaves any of them.\n\n"
    "\b\nBy hand, from nothing to a run:\n"
    "  cameo coordinator init --name heart-study --host coordinator.example.org\n"
    "  cameo site add public.json          (once for every hospital)\n"
    "  cameo coordinator federation        (send federation.json to every hospital)\n"
    "  cameo coordinator start             (keep it running)\n"
    "  cameo run data=heart"
)
data = new_app("Made-up data for demonstrations and tests.")
coordinator.register(app)
app.add_typer(data, name="data")


@data.command()
def generate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", hidden=True)],
    sites: Annotated[int, typer.Option(help="Hospitals.")] = 4,
    patients: Annotated[int, typer.Option(help="Patients of one hospital, on average.")] = 4000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Write made-up hospitals into DIR.

    One table and one file of made-up consents a hospital, marked synthetic everywhere.

    \b
    Example:
      cameo data generate --sites 4 --patients 4000 --seed 7 synthetic
    """
    from cameo_lab.generate.generator import generate as write

    made = write(folder, sites, patients, seed)
    value = {
        "folder": str(made.root),
        "source": made.source,
        "snapshot": str(made.snapshot),
        "sites": [
            {"name": s.name, "facts": str(s.facts), "consents": str(s.consents), "patients": s.patients}
            for s in made.sites
        ],
    }
    rows = [f"{s.name}  {s.patients} made-up patients  {s.facts}" for s in made.sites]
    emit(value, as_json, lambda: "\n".join([*rows, f"Read them with: --source table --mapping {made.source}"]))


def main() -> None:
    """Entry point."""
    sys.exit(execute(app, "cameo"))
