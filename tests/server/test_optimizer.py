"""Adam and the average of late iterates: against torch, by hand, through a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cameo_protocol.errors import Bug, OperatorError
from cameo_server.optimizer import adam_start, advance, from_arrays, start, step, to_arrays

RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(12, 5)) * 10.0 ** RNG.integers(-6, 3, size=5)


def test_steps_equal_torch():
    params = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([params], lr=0.07, betas=(0.7, 0.9))
    state, ours = adam_start(5), np.zeros(5)
    for gradient in GRADIENTS:
        params.grad = torch.from_numpy(gradient)
        theirs.step()
        state, ours = step(state, ours, gradient, 0.07)
        np.testing.assert_allclose(ours, params.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_the_first_step_has_the_size_of_the_rate():
    _, moved = step(adam_start(3), np.zeros(3), np.array([4.0, -0.2, 0.0]), 0.1)
    np.testing.assert_allclose(moved, [-0.1, 0.1, 0.0], atol=1e-6)


def test_a_step_changes_nothing_it_was_given():
    state, params = adam_start(5), np.ones(5)
    step(state, params, GRADIENTS[0], 0.1)
    assert (state.count, state.first.any(), state.second.any()) == (0, False, False)
    assert (params == 1).all()


def walk(rounds, average_from, gradients=GRADIENTS):
    descent, iterates = start(np.ones(5)), []
    for gradient in gradients:
        descent = advance(descent, gradient, rate=0.05, rounds=rounds, average_from=average_from)
        iterates.append(descent.params)
    return descent, iterates


@pytest.mark.parametrize(("average_from", "first"), [(0.0, 0), (0.5, 6), (0.75, 9), (0.99, 11)])
def test_the_result_is_the_mean_of_the_late_iterates(average_from, first):
    descent, iterates = walk(12, average_from)
    np.testing.assert_allclose(descent.result, np.mean(iterates[first:], axis=0), rtol=1e-12)
    assert descent.averaged == 12 - first


def test_before_averaging_the_result_is_the_current_iterate():
    descent, iterates = walk(100, 0.5)
    np.testing.assert_array_equal(descent.result, iterates[-1])
    np.testing.assert_array_equal(start(np.ones(5)).result, np.ones(5))


def test_averaging_calms_noise():
    rng = np.random.default_rng(1)
    descent = start(np.full(200, 3.0))
    for _ in range(200):
        noisy = descent.params + rng.normal(0, 5, 200)  # the gradient of |x|^2 / 2 under heavy noise
        descent = advance(descent, noisy, rate=0.1, rounds=200, average_from=0.5)
    assert np.abs(descent.result).mean() < 0.8 * np.abs(descent.params).mean()


def test_a_checkpoint_goes_on_where_it_stopped():
    whole, _ = walk(12, 0.25)
    half, _ = walk(12, 0.25, GRADIENTS[:5])
    again = from_arrays(to_arrays(half))
    for gradient in GRADIENTS[5:]:
        again = advance(again, gradient, rate=0.05, rounds=12, average_from=0.25)
    np.testing.assert_array_equal(again.result, whole.result)
    np.testing.assert_array_equal(again.params, whole.params)


@pytest.mark.parametrize(
    "change",
    [
        {"params": np.zeros(4)},
        {"first": np.zeros(5, dtype=np.float32)},
        {"second": np.full(5, np.nan)},
        {"counts": np.array([1, 2], dtype=np.int64)},
        {"counts": np.array([-1, -1], dtype=np.int64)},
        {"counts": np.array([1.0, 0.0])},
        {"counts": np.array([1], dtype=np.int64)},
        {"more": np.zeros(5)},
        {name: np.zeros((5, 1)) for name in ("params", "first", "second", "mean")},
    ],
)
def test_a_broken_checkpoint_is_refused(change):
    good = to_arrays(walk(12, 0.5)[0])
    with pytest.raises(OperatorError, match="checkpoint-invalid"):
        from_arrays(good | change)
    with pytest.raises(OperatorError, match="checkpoint-invalid"):
        from_arrays({name: good[name] for name in list(good)[1:]})


@pytest.mark.parametrize("gradient", [np.zeros(4), np.full(5, np.inf), np.full(5, np.nan)])
def test_a_gradient_that_does_not_fit_is_a_bug(gradient):
    with pytest.raises(Bug, match="optimizer-gradient"):
        step(adam_start(5), np.zeros(5), gradient, 0.1)
