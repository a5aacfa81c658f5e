"""The masking kernel: against AES block by block, and independent of chunk, thread count and size (invariant 11)."""

from __future__ import annotations

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_parties import stream

from cameo_protocol.errors import Bug
from cameo_protocol.secagg import kernel
from cameo_protocol.secagg.kernel import CHUNK_LANES, Keystream, Stream, apply_streams

KEYS = [stream(k)(32) for k in range(5)]


@pytest.fixture(autouse=True, scope="module")
def threads_for_the_least_work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_THREAD_LANES", 1)
        yield


def by_blocks(dim: int, streams) -> np.ndarray:
    """The definition: AES of the counters, little-endian words, added or subtracted modulo 2^32."""
    total = np.zeros(dim, dtype=np.uint64)
    for key, add in streams:
        cipher = AES.new(key, AES.MODE_ECB)
        blocks = b"".join(cipher.encrypt(i.to_bytes(16, "big")) for i in range(-(-dim // 4)))
        words = np.frombuffer(blocks, dtype="<u4")[:dim].astype(np.uint64)
        total += words if add else 2**32 - words
    return (total % 2**32).astype(np.uint32)


streams = st.lists(st.builds(Stream, st.sampled_from(KEYS), st.booleans()), max_size=5)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 200), streams, st.integers(1, 5), st.integers(1, 30))
def test_chunk_and_threads_do_not_matter(dim, chosen, threads, chunk) -> None:
    lanes = np.zeros(dim, dtype=np.uint32)
    apply_streams(lanes, chosen, threads=threads, chunk=4 * chunk)
    np.testing.assert_array_equal(lanes, by_blocks(dim, chosen))


@pytest.mark.parametrize("dim", [CHUNK_LANES - 1, CHUNK_LANES, CHUNK_LANES + 1, 3 * CHUNK_LANES + 7])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_real_chunk_edges_and_threads(dim: int, threads: int) -> None:
    chosen = [Stream(KEYS[0], True), Stream(KEYS[1], False)]
    lanes = np.arange(dim, dtype=np.uint32)
    apply_streams(lanes, chosen, threads=threads)
    whole = np.arange(dim, dtype=np.uint32)
    apply_streams(whole, chosen, chunk=4 * (dim // 4 + 1))
    np.testing.assert_array_equal(lanes, whole)
    np.testing.assert_array_equal(lanes[:64] - np.arange(64, dtype=np.uint32), by_blocks(64, chosen))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), streams)
def test_the_first_lanes_do_not_depend_on_the_size(small, more, chosen) -> None:
    one, two = np.zeros(small, dtype=np.uint32), np.zeros(small + more, dtype=np.uint32)
    apply_streams(one, chosen)
    apply_streams(two, chosen, threads=2, chunk=8)
    np.testing.assert_array_equal(one, two[:small])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), streams, st.integers(0, 2**32))
def test_adding_and_subtracting_cancel(dim, chosen, seed) -> None:
    lanes = np.random.default_rng(seed).integers(0, 2**32, dim, dtype=np.uint32)
    kept = lanes.copy()
    apply_streams(lanes, chosen)
    apply_streams(lanes, [Stream(s.key, not s.add) for s in chosen])
    np.testing.assert_array_equal(lanes, kept)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.sampled_from(KEYS))
def test_a_keystream_read_in_pieces_is_the_keystream(pieces, key) -> None:
    whole = AES.new(key, AES.MODE_CTR, nonce=b"").encrypt(bytes(sum(pieces)))
    stream, read = Keystream(key), b""
    for size in pieces:
        out = bytearray(size)
        stream.read_into(memoryview(bytes(40)), memoryview(out))
        read += out
    assert read == whole


def test_a_long_keystream_is_ctr_to_its_last_byte() -> None:
    """A megabyte and a bit: past every lane of a wide implementation, with the counter's low bytes carrying."""
    size = (1 << 20) + 48
    out = bytearray(size)
    Keystream(KEYS[0]).read_into(memoryview(bytes(size)), memoryview(out))
    assert out == AES.new(KEYS[0], AES.MODE_CTR, nonce=b"").encrypt(bytes(size))


@pytest.mark.parametrize("threads", [2, 3, 40])
def test_many_streams_in_threads_are_the_same_sum(threads: int) -> None:
    chosen = [Stream(stream(("many", k))(32), k % 3 == 0) for k in range(31)]
    one = np.arange(CHUNK_LANES + 9, dtype=np.uint32)
    many = one.copy()
    apply_streams(one, chosen)
    apply_streams(many, chosen, threads=threads)
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize(("asked", "streams_given", "used"), [(1, 9, 0), (2, 9, 2), (99, 9, 4), (99, 3, 3), (3, 1, 0)])
def test_how_many_threads_work(monkeypatch, asked: int, streams_given: int, used: int) -> None:
    """Memory is bounded: at most 4 vectors, whatever is asked for; one share needs no pool."""
    pools = []
    real = kernel.ThreadPoolExecutor
    monkeypatch.setattr(kernel, "ThreadPoolExecutor", lambda count: pools.append(count) or real(count))
    apply_streams(np.zeros(8, dtype=np.uint32), [Stream(KEYS[0], True)] * streams_given, threads=asked)
    assert pools == ([used] if used else [])


def test_little_work_gets_no_threads(monkeypatch) -> None:
    monkeypatch.setattr(kernel, "_THREAD_LANES", 1 << 24)
    monkeypatch.setattr(kernel, "ThreadPoolExecutor", None)
    apply_streams(np.zeros(1000, dtype=np.uint32), [Stream(KEYS[0], True)] * 50, threads=8)


def test_keys_may_lie_in_buffers() -> None:
    one, two = np.zeros(9, dtype=np.uint32), np.zeros(9, dtype=np.uint32)
    apply_streams(one, [Stream(bytearray(KEYS[0]), True)])
    apply_streams(two, [Stream(KEYS[0], True)])
    np.testing.assert_array_equal(one, two)


def test_a_kernel_failure_in_a_thread_is_not_swallowed() -> None:
    with pytest.raises(ValueError, match="key size"):
        apply_streams(np.zeros(64, dtype=np.uint32), [Stream(KEYS[0], True), Stream(b"short", True)], threads=2)


@pytest.mark.parametrize(
    ("lanes", "options"),
    [
        (np.zeros(8, dtype=np.int32), {}),
        (np.zeros((2, 4), dtype=np.uint32), {}),
        (np.zeros(16, dtype=np.uint32)[::2], {}),
        (np.zeros(8, dtype=np.uint32), {"chunk": 6}),
        (np.zeros(8, dtype=np.uint32), {"chunk": 0}),
        (np.zeros(8, dtype=np.uint32), {"threads": 0}),
    ],
)
def test_what_the_kernel_does_not_take_is_our_own_fault(lanes, options) -> None:
    with pytest.raises(Bug, match="kernel-"):
        apply_streams(lanes, [Stream(KEYS[0], True)], **options)
