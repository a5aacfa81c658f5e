"""Features: public constants only, missing values, order, and the row of one patient alone."""

from __future__ import annotations

import numpy as np
import pytest

from cameo_models.features import feature_matrix
from cameo_protocol.errors import Bug
from cameo_protocol.facts import Catalogue, Fact, feature_names

CATALOGUE = Catalogue(
    id="tiny",
    version=1,
    title="a tiny catalogue",
    facts=(
        Fact(name="age", meaning="age", type="float", group="static", plausible=(0, 120), scale=(20, 80), model=True,
             missing=False),
        Fact(name="note", meaning="not read by models", type="float", group="static", plausible=(0, 1)),
        Fact(name="hba1c", meaning="HbA1c", type="float", group="dynamic", plausible=(3, 20), scale=(4, 10),
             model=True),
        Fact(name="smoker", meaning="smokes", type="bool", group="behaviour", model=True),
        Fact(name="stage", meaning="stage", type="enum", group="dynamic", values=("one", "two"), model=True),
    ),
)  # fmt: skip
COLUMNS = {
    "age": np.array([20.0, 50.0, 200.0]),
    "hba1c": np.array([7.0, np.nan, 4.0]),
    "smoker": np.array([1.0, 0.0, np.nan]),
    "stage": np.array([1, -1, 0]),
}


def test_every_kind_of_fact_by_hand():
    assert feature_names(CATALOGUE) == (
        "age", "hba1c", "hba1c?", "smoker", "smoker?", "stage=one", "stage=two", "stage?",
    )  # fmt: skip
    expected = [
        [-1, 0, 0, 1, 0, 0, 1, 0],
        [0, 0, 1, -1, 0, 0, 0, 1],
        [1, -1, 0, 0, 1, 1, 0, 0],
    ]
    matrix = feature_matrix(CATALOGUE, COLUMNS)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


def test_one_extreme_record_leaves_all_others_bit_identical():
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.uniform(0, 120, 200),
        "hba1c": np.where(rng.random(200) < 0.2, np.nan, rng.uniform(3, 20, 200)),
        "smoker": rng.choice([0.0, 1.0, np.nan], 200),
        "stage": rng.integers(-1, 2, 200),
    }
    extreme = {"age": 1e300, "hba1c": -np.inf, "smoker": np.nan, "stage": -1}
    with_it = {name: np.append(column, extreme[name]) for name, column in columns.items()}
    before, after = feature_matrix(CATALOGUE, columns), feature_matrix(CATALOGUE, with_it)
    assert after[:-1].tobytes() == before.tobytes()
    np.testing.assert_array_equal(after[-1], [1, -1, 0, 0, 1, 0, 0, 1])


def test_no_patients():
    empty = {name: column[:0] for name, column in COLUMNS.items()}
    assert feature_matrix(CATALOGUE, empty).shape == (0, 8)


def test_columns_that_no_model_reads_are_ignored():
    more = COLUMNS | {"note": np.array([1.0, 2.0, 3.0]), "foreign": np.array([9.0])}
    np.testing.assert_array_equal(feature_matrix(CATALOGUE, more), feature_matrix(CATALOGUE, COLUMNS))


def test_a_value_missing_where_the_catalogue_has_no_indicator_becomes_the_middle():
    columns = COLUMNS | {"age": np.array([np.nan, 50.0, 50.0])}
    assert feature_matrix(CATALOGUE, columns)[0, 0] == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"age": np.array([1.0])}, "features-shape"),
        ({"age": np.array([[1.0], [2.0], [3.0]])}, "features-shape"),
        ({"stage": np.array([2, 0, 0])}, "features-enum"),
        ({"stage": np.array([-2, 0, 0])}, "features-enum"),
    ],
)
def test_columns_that_do_not_fit_are_a_bug(change, code):
    with pytest.raises(Bug, match=code):
        feature_matrix(CATALOGUE, COLUMNS | change)


def test_a_missing_column_is_a_bug():
    with pytest.raises(Bug, match="features-column"):
        feature_matrix(CATALOGUE, {"age": COLUMNS["age"]})
