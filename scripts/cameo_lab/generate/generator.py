"""Writing the made-up hospitals to disk, a chunk at a time, so that a million patients fit in a few hundred MB."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from cameo_client.data.catalogue import load_catalogue, load_source
from cameo_client.data.source import OmopSource
from cameo_lab.generate.consents import draw_consents
from cameo_lab.generate.omop import OmopWriter
from cameo_lab.generate.population import draw_patients
from cameo_lab.generate.records import SNAPSHOT, as_table, observe
from cameo_lab.generate.sites import site_effect, site_sizes
from cameo_protocol.errors import Bug, OperatorError

CHUNK = 20_000
SOURCE = "cameo_lab.generate"
MARK = "SYNTHETIC.txt"
FACTS, CONSENTS, OMOP = "facts.csv", "consents.csv", "omop"
_NOTE = """SYNTHETIC DATA. No real person is behind any row of this folder.

Written by `cameo data generate` with seed {seed}. facts.csv: one row a patient, read with the mapping
conf/sources/cardiometabolic.yaml. consents.csv: made-up decisions, marked as fictional. omop, if there is one: the same
patients as OMOP CDM 5.4 tables, read with conf/sources/cardiometabolic-omop.yaml. How the numbers arise is
described in scripts/cameo_lab/generate/population.py.
"""


@dataclass(frozen=True)
class GeneratedSite:
    """One made-up hospital: its folder name, its two files, its number of patients, and where OMOP tables would lie."""

    name: str
    facts: Path
    consents: Path
    patients: int

    @property
    def omop(self) -> Path:
        """The folder of its OMOP tables, when they were asked for."""
        return self.facts.parent / OMOP


@dataclass(frozen=True)
class Generated:
    """What was written. source: the mapping in conf/sources that reads the tables."""

    root: Path
    sites: tuple[GeneratedSite, ...]
    snapshot: date
    source: str = "cardiometabolic"


def generate(out: Path, sites: int, patients: int, seed: int, *, omop: bool = False) -> Generated:
    """Write `sites` hospitals of `patients` patients on average (sizes differ) under `out`/hospital-K.

    omop: also write each hospital's patients as OMOP CDM 5.4 tables (Parquet), in the folder `omop` beside its table.

    The same arguments give the same bytes. Memory depends on neither number. `out` may hold an earlier result, which
    is replaced; a folder with anything else in it is refused.
    """
    _check_numbers(sites, patients, seed)
    try:
        _open_folder(out, seed)
        written = [_site(out, index, size) for index, size in enumerate(site_sizes(sites, patients))]
        for index, site in enumerate(written):
            _write_site(site, index, seed, omop=omop)
        result = Generated(out, tuple(written), SNAPSHOT)
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
        for name in (FACTS, CONSENTS):
            (folder / name).unlink(missing_ok=True)
        for part in folder.glob(f"{OMOP}/*/part-*.parquet"):
            part.unlink()
        for made in (*folder.glob(f"{OMOP}/*"), folder / OMOP, folder):
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def _site(out: Path, index: int, patients: int) -> GeneratedSite:
    folder = out / f"hospital-{index + 1}"
    return GeneratedSite(folder.name, folder / FACTS, folder / CONSENTS, patients)


def _write_site(site: GeneratedSite, index: int, seed: int, *, omop: bool) -> None:
    """Chunks have random streams of their own, so that no chunk depends on how many follow."""
    effect = site_effect(np.random.default_rng([seed, index]))
    site.facts.parent.mkdir(exist_ok=True)
    events = _omop_writer(site.omop) if omop else None
    with site.facts.open("wb") as facts, site.consents.open("wb") as consents:
        for start in range(0, site.patients, CHUNK):
            rng = np.random.default_rng([seed, index, start])
            truth = draw_patients(rng, min(CHUNK, site.patients - start), effect)
            rows = observe(rng, truth, effect, start + 1, f"SYN-{index + 1}-")
            _append(as_table(rows), facts)
            _append(draw_consents(rng, rows["person_id"]), consents)
            if events is not None:
                events.write(np.random.default_rng([seed, index, start, 1]), rows, start + 1)


def _omop_writer(folder: Path) -> OmopWriter:
    source = load_source("cardiometabolic-omop", folder)
    if not isinstance(source, OmopSource):
        raise Bug("generate-mapping", what="conf/sources/cardiometabolic-omop.yaml is no OMOP mapping")
    return OmopWriter(folder, source.mapping, load_catalogue(source.mapping.catalogue))


def _append(frame: pl.DataFrame, file: IO[bytes]) -> None:
    frame.write_csv(file, include_header=file.tell() == 0)


def _manifest(result: Generated, seed: int) -> str:
    return json.dumps(
        {
            "synthetic": True,
            "made_by": SOURCE,
            "seed": seed,
            "source": result.source,
            "snapshot": result.snapshot.isoformat(),
            "sites": [{"name": site.name, "patients": site.patients} for site in result.sites],
        },
        indent=2,
    )
