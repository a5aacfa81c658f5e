"""One extreme record more changes no feature of anybody else, to the bit: the scaling takes nothing from the rows."""

from __future__ import annotations

import numpy as np
import pytest

from cameo_models.features import feature_matrix
from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import parse_catalogue

CATALOGUES = sorted(path.stem for path in (conf_dir() / "facts").glob("*.yaml"))
PATIENTS, EXTREMES = 40, 1000
EDGES = np.array([np.inf, -np.inf, np.nan, 1.8e308, -1.8e308, 5e-324, 0.0, -0.0])


def draw(fact, rng, size, extreme):
    """Values of one fact; extreme: of any size, infinite or missing."""
    if fact.type == "enum":
        return rng.integers(-1, len(fact.values), size)
    if fact.type == "bool":
        return rng.choice([0.0, 1.0, np.nan], size)
    low, high = fact.plausible or (-1e3, 1e3)
    if not extreme:
        return np.where(rng.random(size) < 0.2, np.nan, rng.uniform(low, high, size))
    huge = rng.choice([-1.0, 1.0], size) * 10.0 ** rng.uniform(-300, 308, size)
    return np.where(rng.random(size) < 0.5, rng.choice(EDGES, size), huge)


@pytest.mark.parametrize("name", CATALOGUES)
def test_an_extreme_record_leaves_all_other_features_bit_identical(name):
    catalogue = parse_catalogue((conf_dir() / "facts" / f"{name}.yaml").read_bytes(), name=name)
    facts = [fact for fact in catalogue.facts if fact.model]
    rng = np.random.default_rng(11)
    columns = {fact.name: draw(fact, rng, PATIENTS, extreme=False) for fact in facts}
    alone = feature_matrix(catalogue, columns)
    added = {fact.name: draw(fact, rng, EXTREMES, extreme=True) for fact in facts}
    for number in range(EXTREMES):
        at = int(rng.integers(0, PATIENTS + 1))
        joined = {key: np.insert(column, at, added[key][number]) for key, column in columns.items()}
        matrix = feature_matrix(catalogue, joined)
        assert np.delete(matrix, at, axis=0).tobytes() == alone.tobytes()
        assert np.isfinite(matrix[at]).all()
        assert np.abs(matrix[at]).max() <= 1.0


def test_the_control_a_z_score_fails():
    column = np.linspace(0.0, 1.0, PATIENTS)
    more = np.append(column, 1e6)
    scaled, with_more = ((values - values.mean()) / values.std() for values in (column, more))
    assert scaled.tobytes() != with_more[:-1].tobytes()
