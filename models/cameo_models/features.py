"""From facts to the numbers that a model reads, with the catalogue's public constants only.

No mean, no spread, no vocabulary is taken from the rows: a patient's features depend on that patient alone,
so one patient more or less changes no other patient's gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug
from cameo_protocol.facts import Catalogue, Fact, feature_names

Features = NDArray[np.float32]


def feature_matrix(catalogue: Catalogue, columns: Mapping[str, NDArray[np.generic]]) -> Features:
    """The model inputs of N patients, shape (N, F), float32, F = len(feature_names(catalogue)), in that order.

    columns: for every fact with `model: true` one array of shape (N,). Numbers and bools: floats in the fact's
    unit (a bool is 0 or 1), NaN = missing. Enums: integers, the index into `fact.values`, -1 = missing.
    A number is mapped from its public `scale` to [-1, 1] and clipped there (±inf too); a bool becomes -1 or 1;
    an enum one-hot. A missing value gives 0 everywhere and 1 in the indicator, when the fact has one.
    Guarantee: every output is in [-1, 1], and row i depends on row i of the columns only.
    A missing column, unequal lengths or an index outside the values is a `Bug`: the data door checks rows.
    """
    facts = [fact for fact in catalogue.facts if fact.model]
    absent = [fact.name for fact in facts if fact.name not in columns]
    if absent:
        raise Bug("features-column", what=f"no column for the model fact {absent[0]!r}")
    if len({columns[fact.name].shape for fact in facts}) > 1 or any(columns[f.name].ndim != 1 for f in facts):
        raise Bug("features-shape", what="the columns of the model facts are not arrays of one length")
    size = columns[facts[0].name].shape[0] if facts else 0
    blocks = [_block(fact, columns[fact.name]) for fact in facts]
    matrix = np.concatenate(blocks, axis=1) if blocks else np.zeros((size, 0))
    if matrix.shape[1] != len(feature_names(catalogue)):
        raise Bug("features-order", what="the features do not match the catalogue's feature names")
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _block(fact: Fact, column: NDArray[np.generic]) -> NDArray[np.float64]:
    """The features of one fact, shape (N, its features): its value or one-hot, then its indicator."""
    if fact.type == "enum":
        values, missing = _one_hot(fact, column)
    else:
        number = column.astype(np.float64)
        missing = np.isnan(number)
        low, high = (0.0, 1.0) if fact.scale is None else fact.scale
        scaled = (np.clip(number, low, high) - low) / (high - low) * 2.0 - 1.0
        values = np.where(missing, 0.0, scaled)[:, None]
    return np.concatenate([values, missing[:, None].astype(np.float64)], axis=1) if fact.missing else values


def _one_hot(fact: Fact, column: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    index = column.astype(np.int64)
    if index.size and (index.min() < -1 or index.max() >= len(fact.values)):
        raise Bug("features-enum", what=f"{fact.name}: an index outside its {len(fact.values)} values")
    missing = index < 0
    return (index[:, None] == np.arange(len(fact.values))).astype(np.float64), missing
