"""Facts as arrays for the models, which know numpy and no polars."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.data.hospital import HospitalData
from cameo_protocol.errors import Bug
from cameo_protocol.facts import Catalogue
from cameo_protocol.groups import Groups

Columns = dict[str, npt.NDArray[Any]]


def model_columns(data: HospitalData, catalogue: Catalogue) -> Columns:
    """Every fact with `model: true` as an array of shape (N,), rows in the order of `data.facts`.

    Numbers and bools: float64 in the fact's unit, NaN = missing. Enums: int64 index into `fact.values`, -1 =
    missing. Nothing is scaled or imputed: that is done with the catalogue's public constants in the models room.
    """
    if data.catalogue != catalogue.id:
        raise Bug("columns-catalogue", what="these facts belong to another catalogue")
    columns: Columns = {}
    for fact in catalogue.facts:
        if not fact.model:
            continue
        series = data.facts[fact.name]
        if fact.type == "enum":
            columns[fact.name] = series.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        else:
            columns[fact.name] = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return columns


def outcome_column(data: HospitalData, label_id: str) -> npt.NDArray[np.float64]:
    """A label's outcomes, shape (N,): 1.0, 0.0, or NaN where unknown or left out."""
    return data.outcomes[label_id].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def group_column(data: HospitalData, catalogue: Catalogue, groups: Groups) -> npt.NDArray[np.int64]:
    """The group of each patient, shape (N,), rows in the order of `data.facts`; -1 = the fact is not known."""
    series = data.facts[groups.fact]
    if catalogue.fact(groups.fact).type == "enum":
        series = series.to_physical()
    return groups.of_numbers(series.cast(pl.Float64).fill_null(float("nan")).to_numpy())
