"""The masking kernel: add and subtract AES-256-CTR keystreams to a vector of 32-bit lanes, in place.

PRG(key) is the AES-256-CTR keystream from counter zero (SP 800-38A, 6.5), read as little-endian uint32. A key
serves one vector only, so the counter starts at zero. All keys pass over one resident chunk, with one scratch
buffer. `update_into` and numpy's add release the GIL, so ranges may go to threads.
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


class Stream(NamedTuple):
    """One keystream: its 32-byte key (any buffer), and whether it is added or subtracted."""

    key: Any
    add: bool


def apply_streams(lanes: Lanes, streams: Sequence[Stream], *, threads: int = 1, chunk: int = CHUNK_LANES) -> None:
    """lanes += sum of the added keystreams - sum of the subtracted ones, modulo 2^32, in place.

    lanes: shape (d,), uint32, contiguous, writable. The result depends on neither `threads` nor `chunk`
    (lanes, a multiple of 4), and the first lanes not on d.
    """
    if lanes.ndim != 1 or lanes.dtype != np.uint32 or not lanes.flags.c_contiguous:
        raise Bug("kernel-lanes", what="lanes must be one contiguous row of uint32")
    if chunk < _BLOCK_LANES or chunk % _BLOCK_LANES or threads < 1:
        raise Bug("kernel-chunk", what="a chunk is a positive multiple of 4 lanes, and there is at least one thread")
    chunks = -(-lanes.size // chunk)
    step = chunk * max(1, -(-chunks // threads))
    starts = range(0, lanes.size, step)
    if len(starts) <= 1:
        _apply_range(lanes, 0, lanes.size, streams, chunk)
        return
    with ThreadPoolExecutor(len(starts)) as pool:
        jobs = [pool.submit(_apply_range, lanes, a, min(a + step, lanes.size), streams, chunk) for a in starts]
        for job in jobs:
            job.result()


def _apply_range(lanes: Lanes, start: int, stop: int, streams: Sequence[Stream], chunk: int) -> None:
    """`start` is a multiple of 4: the keystream of a range begins at counter start / 4."""
    counter = (start // _BLOCK_LANES).to_bytes(16, "big")
    pairs = [(Cipher(algorithms.AES(s.key), modes.CTR(counter)).encryptor(), s.add) for s in streams]
    size = min(chunk, stop - start)
    zeros = bytes(4 * size)
    scratch = np.empty(4 * size, dtype=np.uint8)
    raw, words = scratch.data, scratch.view("<u4")
    for low in range(start, stop, chunk):
        part = lanes[low : min(low + chunk, stop)]
        length = part.size
        for encryptor, add in pairs:
            encryptor.update_into(memoryview(zeros)[: 4 * length], raw)
            if add:
                np.add(part, words[:length], out=part)
            else:
                np.subtract(part, words[:length], out=part)
    scratch.fill(0)
