"""The public bins: their edges by hand, every score in one, fine where scores of rare outcomes lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol.errors import Bug
from cameo_protocol.score_bins import bin_edges, bin_logits, bin_of


def test_edges_by_hand():
    np.testing.assert_allclose(bin_edges(4), [0, 1 / (1 + np.exp(2.5)), 0.5, 1 / (1 + np.exp(-2.5)), 1])
    np.testing.assert_allclose(bin_logits(4), [-3.75, -1.25, 1.25, 3.75])
    np.testing.assert_array_equal(bin_edges(1), [0, 1])


def test_scores_at_the_edges():
    np.testing.assert_array_equal(bin_of(np.array([0.0, 1e-300, 0.4999, 0.5, 1.0]), 4), [0, 0, 1, 2, 3])
    assert bin_of(np.zeros(0), 5).shape == (0,)


def test_a_rare_outcome_keeps_its_ranking():
    logits = np.random.default_rng(0).normal(-3, 1, 2000)
    assert len(np.unique(bin_of(1 / (1 + np.exp(-logits)), 20))) >= 9


@given(st.lists(st.floats(0, 1), max_size=20), st.integers(1, 200))
def test_every_score_lies_between_the_edges_of_its_bin(scores, bins):
    values, edges = np.array(scores), bin_edges(bins)
    at = bin_of(values, bins)
    assert (np.diff(edges) > 0).all()
    assert ((at >= 0) & (at < bins)).all()
    assert (edges[at] <= values).all()
    assert ((values < edges[at + 1]) | (values == 1.0)).all()


def test_no_bins_are_a_bug():
    with pytest.raises(Bug, match="score-bins"):
        bin_edges(0)
