"""The patients of the utility benchmark, read by the product's own door, and how they are split. No training here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue

HEART_SITES = ("cleveland", "hungarian", "switzerland", "va")
TEST_SHARE = 0.2
QUICK_PATIENTS = 300  # of one made-up hospital
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class Site:
    """One hospital. features: (N, F) float32, of public-constant scaling; labels: (N,) of 0.0 or 1.0."""

    name: str
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class UtilitySet:
    """One data set. name: its choice under conf/data, which holds the recipe that is measured."""

    name: str
    catalogue: Catalogue
    label: str
    sites: tuple[Site, ...]


def read_sets(folder: Path) -> tuple[UtilitySet, ...]:
    """The public sets below `folder`, which holds their folders or is one of them; none there is an `OperatorError`."""
    heart = _first(folder, ("", "uci_heart", "heart"), f"processed.{HEART_SITES[0]}.data")
    support2 = _first(folder, ("", "support2"), "support2.csv")
    sets = []
    if heart is not None:
        tables = [(site, heart / f"processed.{site}.data") for site in HEART_SITES]
        sets.append(_read("heart", "heart_disease", tables))
    if support2 is not None:
        sets.append(_by_disease(_read("support2", "hospdead", [("all", support2 / "support2.csv")])))
    if not sets:
        raise OperatorError(
            "bench-data-missing",
            what=f"{folder} holds neither the four processed.*.data files nor support2.csv",
            do="get them from the UCI repository (ids 45 and 880, see docs/benchmarks.md), then: --data-dir DIR",
            exit=ExitCode.DATA,
        )
    return tuple(sets)


def made_up_set(folder: Path) -> UtilitySet:
    """Four made-up hospitals, written to `folder` and read back: a run without public data."""
    from cameo_lab.generate.generator import generate

    made = generate(folder / "hospitals", 4, QUICK_PATIENTS, 7)
    return _read("cardiometabolic", "t2d_12m", [(site.name, site.facts) for site in made.sites], made.source)


def held_out(labels: npt.NDArray[np.float64], seed: Sequence[int]) -> Bools:
    """A fifth of one hospital's patients of each class, (N,) bool; a function of the seed only."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for value in (0.0, 1.0):
        places = rng.permutation(np.flatnonzero(labels == value))
        chosen[places[: round(TEST_SHARE * len(places))]] = True
    return chosen


def _first(folder: Path, below: Sequence[str], file: str) -> Path | None:
    return next((folder / name for name in below if (folder / name / file).is_file()), None)


def _read(name: str, label_id: str, tables: Sequence[tuple[str, Path]], source: str | None = None) -> UtilitySet:
    """Tables through the data door and the public scaling; patients whose outcome is not known are left out."""
    from cameo_client.data.catalogue import load_catalogue, load_label, load_source
    from cameo_client.data.columns import model_columns, outcome_column
    from cameo_client.data.hospital import load
    from cameo_models.features import feature_matrix

    catalogue = load_catalogue(name)
    label = load_label(label_id, catalogue)
    sites = []
    for site, path in tables:
        data = load(load_source(source or name, path), catalogue, [label], hashlib.sha256(b"cameo bench").digest())
        outcome = outcome_column(data, label_id)
        known = ~np.isnan(outcome)
        features = feature_matrix(catalogue, model_columns(data, catalogue))
        sites.append(Site(site, features[known], outcome[known]))
    return UtilitySet(name, catalogue, label_id, tuple(sites))


def _by_disease(whole: UtilitySet) -> UtilitySet:
    """SUPPORT2 names no hospital: one site a disease group, which is harder than chance sites."""
    from cameo_protocol.facts import feature_names

    names = feature_names(whole.catalogue)
    (everyone,) = whole.sites
    sites = []
    for group in next(fact.values for fact in whole.catalogue.facts if fact.name == "disease"):
        rows = everyone.features[:, names.index(f"disease={group}")] > 0
        sites.append(Site(group, everyone.features[rows], everyone.labels[rows]))
    return UtilitySet(whole.name, whole.catalogue, whole.label, tuple(sites))
