"""Masking in place, and with threads: the same bytes and the same sum, whatever does the work and wherever it lies."""

from __future__ import annotations

import numpy as np
import pytest
from secagg_parties import epoch_params, plain_sum, run_round, set_up, snapshot, vectors

from cameo_protocol.secagg import client_round, kernel
from cameo_protocol.secagg.server_round import Quorum, Summed
from cameo_protocol.secagg.transcript import read_survivors


@pytest.fixture(autouse=True)
def threads_for_the_least_work(monkeypatch) -> None:
    monkeypatch.setattr(kernel, "_THREAD_LANES", 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_vector_that_is_given_up_is_masked_where_it_lies(threads: int) -> None:
    fed = set_up(epoch_params(dim=11))
    twin = snapshot(fed.lives[1])
    twin._journal = type(fed.journals[1])()
    vector = vectors([1], 11)[1]
    kept = vector.copy()
    _, header, apart = client_round.upload(twin, fed.start(), vector)
    np.testing.assert_array_equal(vector, kept)
    assert not np.shares_memory(apart, vector)
    _, header_again, masked = client_round.upload(fed.lives[1], fed.start(), vector, consume=True, threads=threads)
    assert np.shares_memory(masked, vector)
    np.testing.assert_array_equal(masked, apart)
    assert header_again == header
    assert (vector != kept).any()


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_an_opened_sum_does_not_depend_on_the_coordinators_threads(threads: int) -> None:
    """With a dropout, so that edge keys are opened too."""
    fed = set_up(epoch_params(n=7, t=5, dim=1003, rounds=1))
    inputs, alive = vectors(range(1, 8), 1003), [1, 2, 4, 5, 6, 7]
    trace = run_round(fed, fed.start(), inputs, uploads=alive)
    survivors = read_survivors(fed.epoch.cohort, fed.start(), trace.headers)
    masked = {i: np.frombuffer(raw, dtype="<u4") for i, raw in trace.masked.items()}
    quorum = Quorum(fed.epoch, survivors, trace.acks, plain_sum(masked, alive))
    for i, reveal in trace.reveals.items():
        quorum.add_reveal(i, reveal)
    opened = quorum.close(threads=threads)
    assert isinstance(opened, Summed)
    np.testing.assert_array_equal(opened.total, plain_sum(inputs, alive))
