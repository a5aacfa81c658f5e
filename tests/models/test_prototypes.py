"""Prototypes in clinical units."""

from __future__ import annotations

import numpy as np
import pytest

from cameo_models.features import feature_matrix
from cameo_models.prototypes import describe_prototypes
from cameo_protocol.errors import Bug
from cameo_protocol.facts import Catalogue, Fact, feature_names
from cameo_protocol.plan import Encoded, SegmentTask

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
ENCODED = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
TASK = SegmentTask(clusters=2, temperature=1.0, rate=0.1, share=1.0, encoded=ENCODED)


def test_the_mean_of_a_group_is_described_by_its_known_values():
    columns = {
        "age": np.array([30.0, 50.0, 30.0, 50.0]),
        "hba1c": np.array([6.0, 8.0, np.nan, np.nan]),
        "smoker": np.array([1.0, 1.0, 0.0, np.nan]),
        "stage": np.array([1, 1, 0, -1]),
    }
    centre = feature_matrix(CATALOGUE, columns).mean(axis=0).astype(np.float64)
    all_missing = centre.copy()
    all_missing[[2, 4, 7]] = 0.95
    first, second = describe_prototypes(CATALOGUE, TASK, np.concatenate([centre, all_missing]))
    assert first == {
        "age": pytest.approx(40.0),
        "hba1c": pytest.approx(7.0, abs=1e-5),
        "smoker": pytest.approx(2 / 3, abs=1e-6),
        "stage": "two",
    }
    assert second == {"age": pytest.approx(40.0), "hba1c": None, "smoker": None, "stage": None}


def test_noise_cannot_leave_the_public_scale():
    params = np.concatenate([np.full(8, 50.0), np.full(8, -50.0)])
    params[[2, 4, 7]] = 0.0
    high, low = describe_prototypes(CATALOGUE, TASK, params)
    assert (high["age"], high["hba1c"], high["smoker"]) == (80.0, 10.0, 1.0)
    assert (low["age"], low["hba1c"], low["smoker"]) == (20.0, 4.0, 0.0)


def test_parameters_of_another_catalogue_are_a_bug():
    with pytest.raises(Bug, match="model-shape"):
        describe_prototypes(CATALOGUE, TASK, np.zeros(2 * len(feature_names(CATALOGUE)) + 1))
