"""Shamir sharing over GF(2^8), all secrets of an epoch in one call.

Field: GF(2)[x] / (x^8 + x^4 + x^3 + x + 1), as in AES. Secrets are only ever multiplied by public constants, with
shift and xor over whole arrays, so no table look-up and no branch depends on a secret. Source: Shamir (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Bug

Bytes = npt.NDArray[np.uint8]
_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE = np.uint64(0x0101010101010101)
_POLY = np.uint64(0x1B)


def multiply(a: int, b: int) -> int:
    """Product of two public field elements.

    >>> hex(multiply(0x57, 0x83))
    '0xc1'
    """
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def invert(a: int) -> int:
    """Inverse of a public non-zero field element: a^254."""
    if a == 0:
        raise Bug("shamir-zero", what="zero has no inverse")
    result = 1
    for _ in range(254):
        result = multiply(result, a)
    return result


def split(secrets: Bytes, threshold: int, points: Sequence[int], random: Callable[[int], bytes]) -> Bytes:
    """Share L bytes among distinct points of 1..255; any `threshold` of the shares give them back.

    secrets: shape (L,), uint8, L a multiple of 8. Returns shape (len(points), L), row i for points[i].
    random: a CSPRNG; (threshold - 1) * L bytes are read. Any threshold - 1 rows are uniform, whatever the secrets.
    """
    _check_points(points, threshold)
    drawn = np.frombuffer(random((threshold - 1) * secrets.size), dtype=np.uint8)
    coefficients = np.concatenate([secrets[None, :], drawn.reshape(threshold - 1, secrets.size)])
    powers = [_powers(point, threshold) for point in points]
    shares = _combine(powers, coefficients)
    coefficients.fill(0)
    return shares


def join(shares: Bytes, points: Sequence[int]) -> Bytes:
    """The secrets, shape (L,), from shares of shape (t, L), row i from points[i], t the threshold of the split.

    Wrong or too few shares give other bytes, not an error: compare the result with a commitment.
    """
    _check_points(points, len(points))
    secrets: Bytes = _combine([_lagrange_at_zero(points)], shares)[0]
    return secrets


def _check_points(points: Sequence[int], threshold: int) -> None:
    distinct = len(set(points)) == len(points) and all(1 <= point <= 255 for point in points)
    if not distinct or not 1 <= threshold <= len(points):
        raise Bug("shamir-points", what="points are distinct, in 1..255, and at least as many as the threshold")


def _powers(base: int, count: int) -> list[int]:
    powers = [1]
    while len(powers) < count:
        powers.append(multiply(powers[-1], base))
    return powers


def _lagrange_at_zero(points: Sequence[int]) -> list[int]:
    weights = []
    for point in points:
        top, bottom = 1, 1
        for other in points:
            if other != point:
                top, bottom = multiply(top, other), multiply(bottom, other ^ point)
        weights.append(multiply(top, invert(bottom)))
    return weights


def _combine(matrix: Sequence[Sequence[int]], rows: Bytes) -> Bytes:
    """matrix (m, k) of public constants times rows (k, L) over the field; 8 bytes a machine word."""
    if rows.shape[1] % 8:
        raise Bug("shamir-length", what="the length of the secrets is not a multiple of 8")
    words = np.ascontiguousarray(rows).view(np.uint64)
    out = np.zeros((len(matrix), words.shape[1]), dtype=np.uint64)
    for k in range(words.shape[0]):
        doubled = words[k].copy()
        for bit in range(8):
            for line, factors in zip(out, matrix, strict=True):
                if factors[k] >> bit & 1:
                    np.bitwise_xor(line, doubled, out=line)
            doubled = ((doubled & _LOW) << np.uint64(1)) ^ (((doubled >> np.uint64(7)) & _ONE) * _POLY)
    return out.view(np.uint8)
