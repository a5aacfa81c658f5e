"""The secure sum end to end on examples: set-up, rounds, dropouts at every stage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from secagg_parties import epoch_params, plain_sum, run_round, set_up, vectors

from cameo_protocol.secagg.server_round import Summed, Void


@pytest.fixture(scope="module")
def fed():
    return set_up(epoch_params(rounds=400))


@pytest.fixture(scope="module")
def numbers():
    return iter(range(400))


def subsets(items, least):
    return [s for k in range(least, len(items) + 1) for s in itertools.combinations(sorted(items), k)]


def test_every_dropout_pattern_down_to_t_gives_the_plain_sum(fed, numbers) -> None:
    inputs = vectors(fed.all, 7)
    for uploads, acks in itertools.product(subsets(fed.all, 3), repeat=2):
        for reveals in subsets(acks, 3):
            start = fed.start(next(numbers))
            result = run_round(fed, start, inputs, uploads=uploads, acks=acks, reveals=reveals).result
            assert isinstance(result, Summed)
            assert result.survivors == frozenset(uploads)
            np.testing.assert_array_equal(result.total, plain_sum(inputs, uploads))


@pytest.mark.parametrize(
    ("silent", "reason"),
    [("uploads", "uploads-too-few"), ("acks", "acks-too-few"), ("reveals", "reveals-too-few")],
)
def test_fewer_than_t_answers_at_a_stage_void_the_round(fed, numbers, silent, reason) -> None:
    inputs = vectors(fed.all, 7)
    result = run_round(fed, fed.start(next(numbers)), inputs, **{silent: (1, 2)}).result
    assert result == Void(result.round_no, reason)
