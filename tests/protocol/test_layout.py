"""Layouts: lanes in order, sensitivity of one patient, and a digest that binds every number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol.layout import Block, Layout

BLOCK = Block(name="risk", dim=9, clip=1.5, bound=64.0, scale=100, sigma=2.0)
LAYOUT = Layout(kind="train", blocks=(BLOCK, replace(BLOCK, name="segment", dim=4)))


def test_lanes_follow_one_another() -> None:
    assert LAYOUT.dim == 13
    assert LAYOUT.spans() == {"risk": slice(0, 9), "segment": slice(9, 13)}
    assert Layout(kind="train", blocks=()).dim == 0


def test_sensitivity_is_scaled_clip_plus_rounding_and_one_for_counts() -> None:
    assert BLOCK.sensitivity == 100 * 1.5 + 3
    assert replace(BLOCK, counts=True).sensitivity == 1


@given(st.integers(1, 50), st.integers(1, 1000), st.floats(0.01, 10), st.integers(0, 2**32))
def test_no_rounding_takes_one_patient_beyond_the_sensitivity(dim: int, scale: int, clip: float, seed: int) -> None:
    block = Block(name="b", dim=dim, clip=clip, bound=1.0, scale=scale, sigma=1.0)
    direction = np.random.default_rng(seed).normal(size=dim)
    gradient = clip * direction / max(np.linalg.norm(direction), 1e-12)
    away = np.where(gradient >= 0, np.ceil(gradient * scale), np.floor(gradient * scale))
    assert np.linalg.norm(away) <= block.sensitivity * (1 + 1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x"},
        {"dim": 10},
        {"clip": 1.5000000000000002},
        {"bound": 65.0},
        {"scale": 101},
        {"sigma": 2.0000000000000004},
        {"counts": True},
    ],
)
def test_the_digest_binds_every_number(change: dict[str, object]) -> None:
    other = replace(LAYOUT, blocks=(replace(BLOCK, **change), LAYOUT.blocks[1]))  # type: ignore[arg-type]
    assert other.digest() != LAYOUT.digest()


def test_the_digest_binds_kind_and_order() -> None:
    assert replace(LAYOUT, kind="evaluate").digest() != LAYOUT.digest()
    assert replace(LAYOUT, blocks=LAYOUT.blocks[::-1]).digest() != LAYOUT.digest()
    assert len(LAYOUT.digest()) == 32
