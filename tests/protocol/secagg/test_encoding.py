"""Encoding on examples: what a lane holds, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from secagg_parties import histogram, layout, stream

from cameo_protocol.errors import Bug, OperatorError
from cameo_protocol.layout import Block, Layout
from cameo_protocol.secagg import encoding


def test_negative_sums_come_back_signed() -> None:
    plan = layout(3)
    zeros = {"risk": np.zeros(3, dtype=np.int64)}
    values = {"risk": np.array([-2.5, 0.25, 4.0])}
    total = np.zeros(3, dtype=np.uint32)
    for seed in range(4):
        total = total + encoding.encode(plan, values, zeros, stream(seed))
    np.testing.assert_array_equal(encoding.decode(plan, total)["risk"], [-10.0, 1.0, 16.0])


def test_a_coordinate_is_clamped_to_its_public_bound() -> None:
    plan = layout(2)
    lanes = encoding.encode(plan, {"risk": np.array([1e300, -1e300])}, {"risk": np.array([3, -3])}, stream("clamp"))
    np.testing.assert_array_equal(lanes.view(np.int32), [4 * 1024 + 3, -4 * 1024 - 3])


def test_counts_are_not_rounded_and_read_no_randomness() -> None:
    def none(size: int) -> bytes:
        raise AssertionError("counts need no randomness")

    plan = histogram(2)
    lanes = encoding.encode(plan, {"evaluation": np.array([7, 0])}, {"evaluation": np.array([-9, 2])}, none)
    np.testing.assert_array_equal(encoding.decode(plan, lanes)["evaluation"], [-2.0, 2.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_our_own_fault(bad: float) -> None:
    with pytest.raises(Bug, match="encoding-not-finite"):
        encoding.encode(layout(1), {"risk": np.array([bad])}, {"risk": np.array([1])}, stream(0))


def test_no_lane_goes_without_noise() -> None:
    with pytest.raises(Bug, match="encoding-blocks"):
        encoding.encode(layout(1), {"risk": np.array([0.0])}, {}, stream(0))


def test_the_largest_scale_fits_and_its_double_does_not() -> None:
    facts = {"dim": 1000, "clip": 1.0, "bound": 200.0, "sigma": 40.0}
    scale = encoding.largest_scale(**facts, n=100, t=67, c=33)
    for factor, fits in ((1, True), (2, False)):
        plan = Layout(kind="train", blocks=(Block(name="risk", scale=factor * scale, **facts),))
        if fits:
            encoding.check_range(plan, 100, 67, 33)
        else:
            with pytest.raises(OperatorError, match="encoding-overflow"):
                encoding.check_range(plan, 100, 67, 33)
