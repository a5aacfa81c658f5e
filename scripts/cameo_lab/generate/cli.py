"""`cameo data`: made-up hospitals from the command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cameo_protocol.console import AsJson, emit, new_app, say
from cameo_protocol.errors import OperatorError

data = new_app("Made-up data for demonstrations and tests.")
EVERY_SECONDS = 2.0


@data.command()
def generate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", hidden=True)],
    sites: Annotated[int, typer.Option(help="Hospitals.")] = 4,
    patients: Annotated[int, typer.Option(help="Patients of one hospital, on average.")] = 4000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same patients.")] = 7,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="duckdb (default), parquet, csv, fhir or table; repeat for several."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier one left in DIR.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write made-up hospitals into DIR.

    OMOP CDM 5.4 in a DuckDB file (or as Parquet or CSV), a FHIR R4 bulk export or a flat table for each hospital, and
    made-up consents; marked synthetic everywhere.

    \b
    Example:
      cameo data generate --sites 4 --patients 4000 --seed 7 synthetic
      cameo data generate --format fhir --format table synthetic
    """
    from cameo_lab.generate.generator import generate as write
    from cameo_lab.generate.generator import parse_formats, source_of

    chosen = parse_formats(formats or ["duckdb"])
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise OperatorError(
            "folder-not-empty",
            what=f"{folder} holds files already, and a node may be reading them",
            do="name another folder, or pass --overwrite",
        )
    made = write(folder, sites, patients, seed, formats=chosen, progress=_reporter())
    value = {
        "folder": str(made.root),
        "snapshot": str(made.snapshot),
        "formats": {form: dict(zip(("source", "mapping"), source_of(form), strict=True)) for form in chosen},
        "sites": [
            {
                "name": site.name,
                "data": {form: str(site.place(form)) for form in chosen},
                "consents": str(site.consents),
                "patients": site.patients,
            }
            for site in made.sites
        ],
    }
    rows = [f"{s.name}  {s.patients} made-up patients  {s.place(form)}" for s in made.sites for form in chosen]
    kind, mapping = source_of(chosen[0])
    emit(value, as_json, lambda: "\n".join([*rows, f"Read them with: --source {kind} --mapping {mapping}"]))


def _reporter() -> Callable[[int, int], None]:
    """Says how far it is, from the third second on and every two seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY_SECONDS:
            last = time.monotonic()
            say(f"{done:,} of {total:,} patients")

    return tell
