"""Laws of the encoding: unbiased rounding, exact signed sums, sensitivity, no overflow (invariant 13)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from Crypto.Cipher import AES
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


@settings(max_examples=25, deadline=None)
@given(st.lists(finite, min_size=1, max_size=30), st.integers(1, 9), st.binary(min_size=32, max_size=32))
def test_a_lane_rounds_by_its_own_32_bits_of_the_keystream_whatever_the_chunk(values, chunk, key) -> None:
    """Against whole numbers: floor((x 2^32 truncated + u) / 2^32) + noise, u from AES-256-CTR of the key."""
    dim = len(values)
    stream_bytes = AES.new(key, AES.MODE_CTR, nonce=b"").encrypt(bytes(4 * dim))
    uniform = [int.from_bytes(stream_bytes[4 * i : 4 * i + 4], "little") for i in range(dim)]
    noise = [(-1) ** i * 7 * i for i in range(dim)]
    exact = [int(min(max(x, -4.0), 4.0) * 1024 * 2**32) for x in values]
    wanted = [(x + u) // 2**32 + z for x, u, z in zip(exact, uniform, noise, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_CHUNK", chunk)
        lanes = encoding.encode(layout(dim), {"risk": np.array(values)}, {"risk": np.array(noise)}, lambda _: key)
    assert lanes.view(np.int32).tolist() == wanted


@pytest.mark.parametrize("dim", [encoding._CHUNK - 1, encoding._CHUNK, 2 * encoding._CHUNK + 3])
def test_real_chunk_edges(dim: int) -> None:
    """Whole steps take no rounding, so every lane is known."""
    values = {"risk": (np.arange(dim) % 4001 - 2000) / 1024}
    noise = {"risk": np.arange(dim) - 5}
    lanes = encoding.encode(layout(dim), values, noise, stream(dim)).view(np.int32)
    np.testing.assert_array_equal(lanes, np.arange(dim) % 4001 - 2000 + np.arange(dim) - 5)


def test_a_block_that_cannot_be_held_is_our_own_fault() -> None:
    block = Block(name="risk", dim=1, clip=1.0, bound=2.0**20, scale=1 << 12, sigma=1.0)
    plan = Layout(kind="train", blocks=(block,))
    with pytest.raises(Bug, match="encoding-range"):
        encoding.encode(plan, {"risk": np.zeros(1)}, {"risk": np.array([1])}, stream(0))
