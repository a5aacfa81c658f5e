"""Laws of the optimizer: bounded steps, scale-free steps, exact checkpoints."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cameo_server.optimizer import adam_start, advance, from_arrays, start, step, to_arrays

GRADIENTS = st.lists(
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3).map(np.array), min_size=1, max_size=15
)  # fmt: skip


@given(GRADIENTS, st.floats(1e-4, 1.0))
def test_no_coordinate_moves_further_than_adam_allows(gradients, rate):
    state, params = adam_start(3), np.zeros(3)
    for gradient in gradients:
        state, moved = step(state, params, gradient, rate)
        # Cauchy-Schwarz over the two memories: |step| <= rate * (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)) = 1.41 rate
        assert (np.abs(moved - params) <= rate * 1.41).all()
        params = moved


@given(GRADIENTS, st.floats(0.0, 0.99), st.integers(1, 20))
def test_a_checkpoint_is_exact_at_every_round(gradients, average_from, rounds):
    descent = start(np.zeros(3))
    for gradient in gradients:
        descent = advance(descent, gradient, rate=0.1, rounds=rounds, average_from=average_from)
        arrays = to_arrays(descent)
        again = to_arrays(from_arrays(arrays))
        assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
        assert np.isfinite(descent.result).all()


@given(GRADIENTS, st.integers(1, 20))
def test_the_mean_lies_within_the_iterates(gradients, rounds):
    descent, iterates = start(np.zeros(3)), []
    for gradient in gradients:
        descent = advance(descent, gradient, rate=0.1, rounds=rounds, average_from=0.0)
        iterates.append(descent.params)
    assert (descent.result <= np.max(iterates, axis=0) + 1e-12).all()
    assert (descent.result >= np.min(iterates, axis=0) - 1e-12).all()
