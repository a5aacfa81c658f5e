"""Laws of features: bounded, the order of patients is kept, and each row depends on itself only."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cameo_models.features import feature_matrix
from cameo_protocol.facts import Catalogue, Fact, feature_names

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)
BOOLS = st.sampled_from([0.0, 1.0, float("nan")])


@st.composite
def catalogues(draw):
    facts = []
    for index, kind in enumerate(
        draw(st.lists(st.sampled_from(["float", "int", "bool", "enum"]), min_size=1, max_size=6))
    ):
        low = draw(st.integers(-100, 100))
        scale = (low, low + draw(st.integers(1, 100))) if kind in ("float", "int") else None
        facts.append(
            Fact(
                name=f"fact{index}",
                meaning="a fact",
                type=kind,
                group="dynamic",
                plausible=(-1e6, 1e6) if scale else None,
                scale=scale,
                values=tuple(f"v{i}" for i in range(draw(st.integers(1, 4)))) if kind == "enum" else (),
                model=True,
                missing=draw(st.booleans()),
            )
        )
    return Catalogue(id="drawn", version=1, title="drawn", facts=tuple(facts))


@st.composite
def tables(draw):
    catalogue = draw(catalogues())
    size = draw(st.integers(0, 6))
    columns = {}
    for fact in catalogue.facts:
        values = {"bool": BOOLS, "enum": st.integers(-1, len(fact.values) - 1)}.get(fact.type, NUMBERS)
        columns[fact.name] = np.array(
            draw(st.lists(values, min_size=size, max_size=size)), dtype=np.int64 if fact.type == "enum" else np.float64
        )
    return catalogue, columns, size


@given(tables())
def test_features_are_bounded_and_named(table):
    catalogue, columns, size = table
    matrix = feature_matrix(catalogue, columns)
    assert matrix.shape == (size, len(feature_names(catalogue)))
    assert np.isfinite(matrix).all()
    assert np.abs(matrix).max(initial=0.0) <= 1.0


@given(tables())
def test_each_row_is_its_own(table):
    catalogue, columns, size = table
    matrix = feature_matrix(catalogue, columns)
    for row in range(size):
        alone = feature_matrix(catalogue, {name: column[row : row + 1] for name, column in columns.items()})
        assert alone.tobytes() == matrix[row].tobytes()
