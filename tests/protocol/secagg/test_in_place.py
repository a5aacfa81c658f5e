"""Masking in place: the same bytes, in the caller's own memory."""

from __future__ import annotations

import numpy as np
import pytest
from secagg_parties import epoch_params, set_up, snapshot, vectors

from cameo_protocol.secagg import client_round


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
