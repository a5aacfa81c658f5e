"""Writing the made-up hospitals to disk, a chunk at a time, so that a million patients fit in a few hundred MB."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from cameo_client.data.catalogue import load_catalogue, load_source
from cameo_client.data.source import FhirSource, OmopSource
from cameo_lab.generate.consents import draw_consents
from cameo_lab.generate.fhir import FhirSink
from cameo_lab.generate.omop import OmopEvents
from cameo_lab.generate.population import draw_patients
from cameo_lab.generate.records import SNAPSHOT, as_table, observe
from cameo_lab.generate.sinks import CsvSink, DuckSink, ParquetSink, Sink
from cameo_lab.generate.sites import site_effect, site_sizes
from cameo_protocol.errors import Bug, OperatorError

CHUNK = 20_000
SOURCE = "cameo_lab.generate"
MARK = "SYNTHETIC.txt"
CONSENTS = "consents.csv"
Format = Literal["table", "duckdb", "parquet", "csv", "fhir"]
PLACES: dict[Format, str] = {
    "table": "facts.csv", "duckdb": "cdm.duckdb", "parquet": "parquet", "csv": "csv", "fhir": "fhir",
}  # fmt: skip
_NOTE = """SYNTHETIC DATA. No real person is behind any row of this folder.

Written by `cameo data generate` with seed {seed}. consents.csv: made-up decisions, marked as fictional. The patients,
in the formats that were asked for, with the mapping in conf/sources that reads them:
  cdm.duckdb, parquet, csv   OMOP CDM 5.4 tables   cardiometabolic-omop
  fhir                       FHIR R4 bulk export   cardiometabolic-fhir
  facts.csv                  one row a patient     cardiometabolic
How the numbers arise is described in scripts/cameo_lab/generate/population.py.
"""


def parse_formats(words: Sequence[str]) -> tuple[Format, ...]:
    """The formats of these names, each once; an unknown one is an `OperatorError`."""
    known = {str(form): form for form in PLACES}
    if unknown := [word for word in words if word not in known]:
        raise OperatorError(
            "generate-format",
            what=f"no format is called {unknown[0][:40]!r}",
            do=f"use one of: {', '.join(known)}",
        )
    return tuple(dict.fromkeys(known[word] for word in words))


def source_of(form: Format) -> tuple[str, str]:
    """(kind for --source, mapping for --mapping) of what is written in a format."""
    return {"table": ("table", "cardiometabolic"), "fhir": ("fhir", "cardiometabolic-fhir")}.get(
        form, ("omop", "cardiometabolic-omop")
    )


@dataclass(frozen=True)
class GeneratedSite:
    """One made-up hospital: its name, its folder, its number of patients."""

    name: str
    folder: Path
    patients: int

    def place(self, form: Format) -> Path:
        """The file or folder of its patients in a format."""
        return self.folder / PLACES[form]

    @property
    def facts(self) -> Path:
        """Its flat table."""
        return self.place("table")

    @property
    def consents(self) -> Path:
        """Its made-up consent decisions."""
        return self.folder / CONSENTS


@dataclass(frozen=True)
class Generated:
    """What was written. source: the mapping in conf/sources that reads the first format."""

    root: Path
    sites: tuple[GeneratedSite, ...]
    snapshot: date
    formats: tuple[Format, ...]

    @property
    def source(self) -> str:
        """The mapping of the first format."""
        return source_of(self.formats[0])[1]


def generate(
    out: Path,
    sites: int,
    patients: int,
    seed: int,
    *,
    formats: tuple[Format, ...] = ("table",),
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Write `sites` hospitals of `patients` patients on average (sizes differ) under `out`/hospital-K.

    formats: see `PLACES`; each holds the same patients. progress: told how many patients of how many are written.
    The same arguments give the same rows, and but for DuckDB's own file the same bytes. Memory depends on neither
    number. `out` may hold an earlier result, which is replaced; a folder with anything else in it is refused.
    """
    _check_numbers(sites, patients, seed)
    try:
        _open_folder(out, seed)
        made = tuple(
            GeneratedSite(f"hospital-{index + 1}", out / f"hospital-{index + 1}", size)
            for index, size in enumerate(site_sizes(sites, patients))
        )
        done = 0
        for index, site in enumerate(made):
            for size in _write_site(site, index, seed, formats):
                done += size
                if progress is not None:
                    progress(done, sites * patients)
        result = Generated(out, made, SNAPSHOT, formats)
        (out / "manifest.json").write_text(_manifest(result, seed), encoding="utf-8")
    except OSError as error:
        raise OperatorError(
            "generate-unwritable",
            what=f"{out.name} cannot be written: {error.strerror}",
            do="name a folder that this user may write, on a disk with space",
        ) from None
    return result


def _check_numbers(sites: int, patients: int, seed: int) -> None:
    if not (1 <= sites <= 255 and 20 <= patients <= 10_000_000 and 0 <= seed < 2**63):
        raise OperatorError(
            "generate-range",
            what="sites must be 1 to 255, patients 20 to 10,000,000, and seed not negative",
            do="correct the numbers: cameo data generate --sites 4 --patients 4000 --seed 7 DIR",
        )


def _open_folder(out: Path, seed: int) -> None:
    """Mark the folder as synthetic before any row is in it; of an earlier result only its own files are removed."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise OperatorError(
            "generate-not-empty",
            what=f"{out.name} holds files that the generator did not write",
            do="name a new or empty folder",
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(_NOTE.format(seed=seed), encoding="utf-8")
    for folder in out.glob("hospital-*"):
        own = [folder / CONSENTS, folder / PLACES["table"], folder / PLACES["duckdb"]]
        own += [*folder.glob("parquet/*/part-*.parquet"), *folder.glob("cdm.parts/*/part-*.parquet")]
        for made in (*own, *folder.glob("csv/*.csv"), *folder.glob("fhir/*.ndjson")):
            made.unlink(missing_ok=True)
        for made in (*folder.glob("*/*"), *folder.glob("*"), folder):
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def _write_site(site: GeneratedSite, index: int, seed: int, formats: tuple[Format, ...]) -> Iterator[int]:
    """Chunks have random streams of their own, so that no chunk depends on how many follow. Yields their sizes."""
    effect = site_effect(np.random.default_rng([seed, index]))
    site.folder.mkdir(exist_ok=True)
    sinks = [_sink(site, form) for form in formats if form != "table"]
    events = _events() if sinks else None
    for start in range(0, site.patients, CHUNK):
        rng = np.random.default_rng([seed, index, start])
        size = min(CHUNK, site.patients - start)
        truth = draw_patients(rng, size, effect)
        rows = observe(rng, truth, effect, start + 1, f"SYN-{index + 1}-")
        if "table" in formats:
            _append(as_table(rows), site.facts)
        _append(draw_consents(rng, rows["person_id"]), site.consents)
        if events is not None:
            tables = events.tables(np.random.default_rng([seed, index, start, 1]), rows, start + 1)
            for sink in sinks:
                sink.write(tables)
        yield size
    for sink in sinks:
        sink.close()


def _sink(site: GeneratedSite, form: Format) -> Sink:
    place = site.place(form)
    if form == "duckdb":
        return DuckSink(place)
    if form == "parquet":
        return ParquetSink(place)
    if form == "csv":
        return CsvSink(place)
    source = load_source("cardiometabolic-fhir", place)
    if not isinstance(source, FhirSource):
        raise Bug("generate-mapping", what="conf/sources/cardiometabolic-fhir.yaml is no FHIR mapping")
    return FhirSink(place, source.export)


def _events() -> OmopEvents:
    source = load_source("cardiometabolic-omop", Path())
    if not isinstance(source, OmopSource):
        raise Bug("generate-mapping", what="conf/sources/cardiometabolic-omop.yaml is no OMOP mapping")
    return OmopEvents(source.mapping, load_catalogue(source.mapping.catalogue))


def _append(frame: pl.DataFrame, path: Path) -> None:
    with path.open("ab") as file:
        frame.write_csv(file, include_header=file.tell() == 0)


def _manifest(result: Generated, seed: int) -> str:
    return json.dumps(
        {
            "synthetic": True,
            "made_by": SOURCE,
            "seed": seed,
            "formats": {form: source_of(form)[1] for form in result.formats},
            "snapshot": result.snapshot.isoformat(),
            "sites": [{"name": site.name, "patients": site.patients} for site in result.sites],
        },
        indent=2,
    )
