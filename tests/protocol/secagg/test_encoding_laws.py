"""Laws of the encoding: unbiased rounding, exact signed sums, sensitivity, no overflow (invariant 13)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from secagg_parties import epoch_params, layout, stream

from cameo_protocol.errors import Bug, OperatorError, Reject
from cameo_protocol.layout import Block, Layout
from cameo_protocol.secagg import encoding

finite = st.floats(-5.0, 5.0, allow_nan=False)
DIM = 6
NO_NOISE = {"risk": np.zeros(DIM, dtype=np.int64)}


@settings(deadline=None)
@given(st.lists(finite, min_size=DIM, max_size=DIM), st.integers(0, 2**32))
def test_a_lane_is_the_floor_or_the_ceiling_of_the_clamped_value(values, seed) -> None:
    plan = layout(DIM)
    lanes = encoding.encode(plan, {"risk": np.array(values)}, NO_NOISE, stream(seed)).view(np.int32)
    scaled = np.clip(values, -4.0, 4.0) * 1024
    assert ((lanes == np.floor(scaled)) | (lanes == np.ceil(scaled))).all()


@settings(deadline=None)
@given(
    st.lists(st.lists(finite, min_size=DIM, max_size=DIM), min_size=1, max_size=6),
    st.lists(st.integers(-(10**6), 10**6), min_size=DIM, max_size=DIM),
    st.integers(0, 2**32),
)
def test_a_sum_decodes_to_the_signed_sum_of_the_lanes(rows, noise, seed) -> None:
    plan, drawn = layout(DIM), {"risk": np.array(noise)}
    lanes = [encoding.encode(plan, {"risk": np.array(row)}, drawn, stream((seed, i))) for i, row in enumerate(rows)]
    total = np.sum(lanes, axis=0, dtype=np.uint32)
    expected = np.sum([lane.view(np.int32).astype(np.int64) for lane in lanes], axis=0) / 1024
    np.testing.assert_array_equal(encoding.decode(plan, total)["risk"], expected)


def test_rounding_is_unbiased_and_fresh_for_every_lane() -> None:
    """20,000 lanes of one value: the mean is the value within 5 standard errors, and lanes differ."""
    dim, value = 20_000, 0.3 / 1024
    plan = layout(dim)
    zeros = {"risk": np.zeros(dim, dtype=np.int64)}
    for sign in (1, -1):
        lanes = encoding.encode(plan, {"risk": np.full(dim, sign * value)}, zeros, stream(sign)).view(np.int32)
        assert abs(lanes.mean() - sign * 0.3) < 5 * math.sqrt(0.21 / dim)


@settings(deadline=None)
@given(
    st.lists(finite, min_size=DIM, max_size=DIM), st.integers(0, DIM - 1), st.integers(0, 2**32), st.integers(0, 2**32)
)
def test_one_patient_moves_the_lanes_by_at_most_the_stated_sensitivity(values, lane, seed, other) -> None:
    """A contribution of norm C = 1, with any rounding on either side."""
    plan = layout(DIM)
    without = np.array(values)
    step = np.zeros(DIM)
    step[lane] = 1.0
    a = encoding.encode(plan, {"risk": without}, NO_NOISE, stream(seed)).view(np.int32)
    b = encoding.encode(plan, {"risk": without + step}, NO_NOISE, stream(other)).view(np.int32)
    assert np.linalg.norm((a - b).astype(float)) <= plan.blocks[0].sensitivity + 1e-6


blocks = st.builds(
    Block,
    name=st.just("risk"),
    dim=st.integers(1, 10**6),
    clip=st.floats(1e-3, 1e3),
    bound=st.floats(1e-3, 1e6),
    scale=st.integers(1, 1 << 20),
    sigma=st.floats(1e-2, 1e3),
)


@settings(deadline=None)
@given(blocks, st.integers(3, 255), st.data())
def test_a_layout_is_refused_exactly_when_a_sum_could_leave_the_range(block, n, data) -> None:
    """The worst sum is n clamped and rounded vectors plus 8 standard deviations of noise; both ends agree."""
    t = data.draw(st.integers(n // 2 + 1, n))
    c = data.draw(st.integers(0, 2 * t - n - 1))
    worst = n * (block.scale * block.bound + 1)
    worst += 8 * block.sigma * (block.scale * block.clip + math.sqrt(block.dim)) * math.sqrt(n / (t - c))
    plan = Layout(kind="train", blocks=(block,))
    assume(abs(worst - (2**31 - 1)) > 1)
    if worst <= 2**31 - 1:
        encoding.check_range(plan, n, t, c)
    else:
        with pytest.raises(OperatorError, match="encoding-overflow"):
            encoding.check_range(plan, n, t, c)


def test_an_epoch_with_an_overflowing_layout_cannot_be_built() -> None:
    from dataclasses import replace

    params = epoch_params()
    wide = replace(params.layouts[0].blocks[0], bound=1e6)
    with pytest.raises(Reject, match="signed 32-bit range"):
        replace(params, layouts=(Layout(kind="train", blocks=(wide,)),))
    just = encoding.range_offered() / 4 / 1024 - 40
    near = replace(params.layouts[0].blocks[0], bound=just)
    fits = replace(params, layouts=(Layout(kind="train", blocks=(near,)),))
    loud = replace(near, sigma=15.0)
    assert replace(fits, layouts=(Layout(kind="train", blocks=(replace(near, sigma=2.0),)),))
    with pytest.raises(Reject, match="signed 32-bit range"):
        replace(fits, layouts=(Layout(kind="train", blocks=(loud,)),))


@settings(deadline=None)
@given(
    st.integers(1, 10**6),
    st.floats(1e-3, 10),
    st.floats(1e-3, 1e4),
    st.floats(0.1, 100),
    st.integers(3, 128),
    st.booleans(),
)
def test_the_largest_scale_is_a_power_of_two_that_fits_and_no_larger_one_does(
    dim, clip, bound, sigma, n, local
) -> None:
    t, c = 2 * n // 3 + 1, 0
    facts = {"dim": dim, "clip": clip, "bound": bound, "sigma": sigma}
    scale = encoding.largest_scale(**facts, n=n, t=t, c=c, local=local)
    assert scale & (scale - 1) == 0
    assert 1 <= scale <= encoding.LARGEST_SCALE
    plan = Layout(kind="train", blocks=(Block(name="risk", scale=scale, **facts),))
    encoding.check_range(plan, n, t, c, local=local)
    if scale < encoding.LARGEST_SCALE:
        twice = Layout(kind="train", blocks=(Block(name="risk", scale=2 * scale, **facts),))
        with pytest.raises(OperatorError, match="encoding-overflow"):
            encoding.check_range(twice, n, t, c, local=local)


def test_what_fits_no_scale_is_the_operators_to_fix() -> None:
    with pytest.raises(OperatorError, match="no scale fits"):
        encoding.largest_scale(dim=10, clip=1.0, bound=1e9, sigma=1.0, n=4, t=3, c=1)


@pytest.mark.parametrize(
    ("values", "noise"),
    [
        ({"risk": np.zeros(DIM - 1)}, NO_NOISE),
        ({"risk": np.zeros(DIM, dtype=np.float32)}, NO_NOISE),
        ({"risk": np.zeros(DIM, dtype=np.int64)}, NO_NOISE),
        ({"risk": np.zeros(DIM)}, {"risk": np.zeros(DIM)}),
        ({"risk": np.zeros(DIM)}, {"risk": np.zeros(DIM + 1, dtype=np.int64)}),
        ({"risk": np.zeros(DIM), "more": np.zeros(1)}, NO_NOISE),
        ({}, NO_NOISE),
    ],
)
def test_wrong_shapes_types_and_names_are_our_own_fault(values, noise) -> None:
    with pytest.raises(Bug, match="encoding-"):
        encoding.encode(layout(DIM), values, noise, stream(0))


def test_decode_takes_only_a_sum_of_its_layout() -> None:
    for wrong in (np.zeros(DIM, dtype=np.int32), np.zeros(DIM + 1, dtype=np.uint32)):
        with pytest.raises(Bug, match="encoding-shape"):
            encoding.decode(layout(DIM), wrong)


def test_two_blocks_keep_their_own_scale() -> None:
    plan = Layout(
        kind="train",
        blocks=(
            Block(name="risk", dim=1, clip=1.0, bound=4.0, scale=16, sigma=1.0),
            Block(name="segment", dim=2, clip=1.0, bound=4.0, scale=4, sigma=1.0),
        ),
    )
    noise = {"risk": np.array([1]), "segment": np.array([0, -1])}
    lanes = encoding.encode(plan, {"risk": np.array([1.0]), "segment": np.array([2.0, -1.0])}, noise, stream(0))
    np.testing.assert_array_equal(lanes.view(np.int32), [17, 8, -5])
    decoded = encoding.decode(plan, lanes)
    np.testing.assert_array_equal(decoded["segment"], [2.0, -1.25])
