"""Joint score histograms: lanes, edges, and one lane a patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_client.training.histogram import score_histogram
from cameo_protocol.errors import Bug


def test_lanes_by_hand():
    scores = np.array([0.0, 0.07, 0.08, 0.99, 1.0, 0.5])  # four bins meet at 0.076, 0.5 and 0.924
    labels = np.array([0, 1, 1, 0, 0, 1])
    np.testing.assert_array_equal(score_histogram(scores, labels, 4), [1, 0, 0, 2, 1, 1, 1, 0])


def test_no_patients_give_zeros():
    lanes = score_histogram(np.zeros(0), np.zeros(0), 5)
    assert lanes.shape == (10,)
    assert lanes.dtype == np.int64
    assert not lanes.any()


def test_what_is_not_a_score_or_a_label_is_left_out():
    scores = np.array([np.nan, -0.1, 1.1, np.inf, 0.5, 0.5, 0.5])
    labels = np.array([1.0, 1.0, 1.0, 1.0, np.nan, 2.0, 1.0])
    assert score_histogram(scores, labels, 3).sum() == 1


def test_misuse_is_a_bug():
    for scores, labels, bins in [
        (np.zeros(2), np.zeros(3), 4),
        (np.zeros((2, 1)), np.zeros((2, 1)), 4),
        (np.zeros(2), np.zeros(2), 0),
    ]:
        with pytest.raises(Bug, match="histogram-shape"):
            score_histogram(scores, labels, bins)


@given(
    st.lists(st.tuples(st.floats(), st.sampled_from([0.0, 1.0, float("nan")])), min_size=1, max_size=30),
    st.integers(1, 50),
)
def test_one_patient_more_moves_one_lane_by_at_most_one(patients, bins):
    scores, labels = (np.array(column) for column in zip(*patients, strict=True))
    change = score_histogram(scores, labels, bins) - score_histogram(scores[:-1], labels[:-1], bins)
    assert np.abs(change).sum() <= 1


def test_groups_lie_one_after_the_other():
    scores, labels = np.array([0.1, 0.9, 0.9, 0.5, 0.5]), np.array([0, 1, 1, 0, 1])
    lanes = score_histogram(scores, labels, 4, np.array([0, 2, 1, -1, 3]), 3).reshape(3, 2, 4)
    assert lanes.sum() == 3  # in no group: left out
    assert (lanes[0, 0].sum(), lanes[1, 1].sum(), lanes[2, 1].sum()) == (1, 1, 1)
    with pytest.raises(Bug, match="histogram-shape"):
        score_histogram(scores, labels, 4, np.zeros(2, dtype=int), 3)
