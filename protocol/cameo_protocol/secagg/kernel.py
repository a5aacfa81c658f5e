"""The masking kernel: add and subtract AES-256-CTR keystreams to a vector of 32-bit lanes, in place.

PRG(key) is the AES-256-CTR keystream from counter zero (SP 800-38A, 6.5), read as little-endian uint32. A key
serves one vector only, so the counter starts at zero. All keys pass over one resident chunk, with one scratch
buffer. The cipher and numpy's add release the GIL, so shares of the keys may go to threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cameo_protocol.errors import Bug

Lanes = npt.NDArray[np.uint32]
CHUNK_LANES = 65_536  # 256 kB: stays in the second-level cache while all keys pass over it
_BLOCK_LANES = 4  # an AES block is four lanes
_THREAD_LANES = 1 << 24  # lanes of keystream that are worth a thread of their own: some 4 ms of work
_MOST_THREADS = 4  # each one more needs another vector's memory
_HEAD_BYTES = 32  # counters 0 and 1


class Stream(NamedTuple):
    """One keystream: its 32-byte key (any buffer), and whether it is added or subtracted."""

    key: Any
    add: bool


class Keystream:
    """AES-256-CTR from counter zero, read piece by piece.

    From counter 2 on it is what GCM with a nonce of zeros enciphers with (SP 800-38D, 7.1: J0 = 0^96 || 1, first
    block inc(J0)), and OpenSSL's GCM uses wider vector instructions than its CTR: over twice as fast where there is
    VAES, the tag that nobody reads included. The low 32 bits count, so a stream ends after 2^36 bytes.
    """

    __slots__ = ("_head", "_tail")

    def __init__(self, key: Any) -> None:
        cipher = algorithms.AES(key)
        self._head = Cipher(cipher, modes.CTR(bytes(16))).encryptor().update(bytes(_HEAD_BYTES))
        self._tail = Cipher(cipher, modes.GCM(bytes(12))).encryptor()

    def read_into(self, zeros: memoryview, out: memoryview) -> None:
        """Fill `out` with the next bytes. zeros: at least as many zero bytes."""
        first = len(self._head)
        if first:
            first = min(first, len(out))
            out[:first] = self._head[:first]
            self._head = self._head[first:]
        self._tail.update_into(zeros[: len(out) - first], out[first:])


def apply_streams(lanes: Lanes, streams: Sequence[Stream], *, threads: int = 1, chunk: int = CHUNK_LANES) -> None:
    """lanes += sum of the added keystreams - sum of the subtracted ones, modulo 2^32, in place.

    lanes: shape (d,), uint32, contiguous, writable. threads: the most to use, e.g. the machine's cores; fewer where
    the work is little, and at most 4. Each takes a share of the streams, and all but one add them up in 4 d bytes of
    their own. The result depends on neither `threads` nor `chunk` (lanes, a multiple of 4), and the first lanes not
    on d.
    """
    if lanes.ndim != 1 or lanes.dtype != np.uint32 or not lanes.flags.c_contiguous:
        raise Bug("kernel-lanes", what="lanes must be one contiguous row of uint32")
    if chunk < _BLOCK_LANES or chunk % _BLOCK_LANES or threads < 1:
        raise Bug("kernel-chunk", what="a chunk is a positive multiple of 4 lanes, and there is at least one thread")
    used = min(threads, _MOST_THREADS, len(streams), lanes.size * len(streams) // _THREAD_LANES)
    shares = [streams[first::used] for first in range(used)]
    if len(shares) <= 1:
        _apply(lanes, streams, chunk)
        return
    parts = [lanes, *(np.zeros_like(lanes) for _ in shares[1:])]
    with ThreadPoolExecutor(len(shares)) as pool:
        jobs = [pool.submit(_apply, part, share, chunk) for part, share in zip(parts, shares, strict=True)]
        for job in jobs:
            job.result()
    for part in parts[1:]:
        np.add(lanes, part, out=lanes)
        part.fill(0)  # a sum of masks: of no use to anybody else


def _apply(lanes: Lanes, streams: Sequence[Stream], chunk: int) -> None:
    pairs = [(Keystream(stream.key), stream.add) for stream in streams]
    size = min(chunk, lanes.size)
    zeros = memoryview(bytes(4 * size))
    scratch = np.empty(4 * size, dtype=np.uint8)
    raw, words = scratch.data, scratch.view("<u4")
    for low in range(0, lanes.size, chunk):
        part = lanes[low : low + chunk]
        length = part.size
        for keystream, add in pairs:
            keystream.read_into(zeros, raw[: 4 * length])
            (np.add if add else np.subtract)(part, words[:length], out=part)
    scratch.fill(0)
