"""Laws of the attacks' own arithmetic: an attack that misjudges would pass or fail for nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_lab.audit.attacks import precision
from cameo_lab.audit.attacks.differencing import _too_few
from cameo_lab.audit.attacks.precision import added_reaches

finite = st.floats(-1e3, 1e3, allow_nan=False)


@given(clear=finite, noise=finite)
def test_what_was_added_is_always_reachable(clear: float, noise: float) -> None:
    assert added_reaches(np.array([clear + noise]), np.array([clear])).all()


@given(clear=finite, noise=st.integers(-(2**40), 2**40), bits=st.integers(0, 20))
@settings(max_examples=200)
def test_integer_noise_reaches_every_point_of_its_grid(clear: float, noise: int, bits: int) -> None:
    steps = np.array([2.0**bits])
    seen = (np.floor(np.array([clear]) * steps) + noise) / steps
    assert precision._on_grid(steps, seen, np.array([clear])).all()
    assert precision._on_grid(steps, seen, np.array([clear + 1])).all()


@given(parties=st.integers(3, 9), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_what_is_too_few_is_too_few(parties: int, seed: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(2, parties))
    acks = {index: bytes([index]) for index in range(1, parties + 1)}
    told = _too_few(acks, threshold, np.random.default_rng(seed))
    assert len({told[index] for index in told if told[index] == acks[index]}) < threshold
    assert len(told) <= threshold
