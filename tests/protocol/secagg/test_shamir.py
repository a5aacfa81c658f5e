"""Shamir sharing over GF(2^8): against galois, and secrecy of t - 1 shares (invariant 7)."""

from __future__ import annotations

import itertools

import galois
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_parties import stream

from cameo_protocol.errors import Bug
from cameo_protocol.secagg import shamir

FIELD = galois.GF(2**8, irreducible_poly="x^8 + x^4 + x^3 + x + 1")


def test_the_field_is_that_of_galois() -> None:
    rng = np.random.default_rng(1)
    for a, b in rng.integers(0, 256, (2000, 2)).tolist():
        assert shamir.multiply(a, b) == int(FIELD(a) * FIELD(b))
    for a in range(1, 256):
        assert shamir.invert(a) == int(FIELD(1) / FIELD(a))


@st.composite
def sharings(draw):
    points = sorted(draw(st.sets(st.integers(1, 255), min_size=1, max_size=9)))
    threshold = draw(st.integers(1, len(points)))
    length = 8 * draw(st.integers(1, 5))
    secret = draw(st.binary(min_size=length, max_size=length))
    return np.frombuffer(secret, dtype=np.uint8), threshold, points, draw(st.integers(0, 2**32))


@settings(max_examples=60, deadline=None)
@given(sharings())
def test_shares_are_the_polynomial_that_galois_evaluates(sharing) -> None:
    secret, threshold, points, seed = sharing
    shares = shamir.split(secret, threshold, points, stream(seed))
    drawn = np.frombuffer(stream(seed)((threshold - 1) * secret.size), dtype=np.uint8).reshape(-1, secret.size)
    for point, share in zip(points, shares, strict=True):
        expected = FIELD(secret)
        for power, row in enumerate(drawn, start=1):
            expected = expected + FIELD(row) * FIELD(point) ** power
        np.testing.assert_array_equal(share, np.asarray(expected))


@settings(max_examples=60, deadline=None)
@given(sharings(), st.randoms())
def test_any_t_shares_give_the_secret_back(sharing, random) -> None:
    secret, threshold, points, seed = sharing
    shares = shamir.split(secret, threshold, points, stream(seed))
    chosen = random.sample(range(len(points)), threshold)
    joined = shamir.join(shares[chosen], [points[i] for i in chosen])
    np.testing.assert_array_equal(joined, secret)


def test_all_255_points_and_a_high_threshold() -> None:
    secret = np.frombuffer(stream("secret")(64), dtype=np.uint8)
    shares = shamir.split(secret, 171, range(1, 256), stream("coefficients"))
    np.testing.assert_array_equal(shamir.join(shares[84:], range(85, 256)), secret)
    assert (shamir.join(shares[85:], range(86, 256)) != secret).any(), "170 shares do not do"


@settings(max_examples=40, deadline=None)
@given(sharings(), st.binary(min_size=40, max_size=40))
def test_any_t_minus_1_shares_are_consistent_with_every_secret(sharing, other) -> None:
    """For another secret of our choice there are coefficients that give the same t - 1 shares: built with galois."""
    secret, threshold, points, seed = sharing
    if threshold == 1:
        return
    shares = shamir.split(secret, threshold, points, stream(seed))
    known = FIELD(points[: threshold - 1])
    wanted = FIELD(np.frombuffer(other[: secret.size], dtype=np.uint8))
    vandermonde = FIELD([[int(x**k) for k in range(1, threshold)] for x in known])
    right = FIELD(shares[: threshold - 1]) + wanted
    coefficients = np.linalg.solve(vandermonde, right)
    given = np.asarray(coefficients, dtype=np.uint8).tobytes()
    again = shamir.split(np.asarray(wanted, dtype=np.uint8), threshold, points, lambda size: given[:size])
    np.testing.assert_array_equal(again[: threshold - 1], shares[: threshold - 1])


def test_one_share_of_two_takes_every_value_equally_often_for_every_secret() -> None:
    """Exhaustive over the 256 coefficients of one byte (t = 2), for three secrets and points."""
    for secret, point in itertools.product((0, 1, 0xA7), (1, 2, 255)):
        column = np.full(8, secret, dtype=np.uint8)
        seen = {
            int(shamir.split(column, 2, [point, 3 if point != 3 else 4], lambda size, k=k: bytes([k]) * size)[0, 0])
            for k in range(256)
        }
        assert len(seen) == 256


@pytest.mark.parametrize(("points", "threshold"), [([1, 1], 2), ([0, 1], 2), ([256, 1], 2), ([1, 2], 3), ([1, 2], 0)])
def test_unsound_points_are_our_own_fault(points, threshold) -> None:
    with pytest.raises(Bug, match="shamir-points"):
        shamir.split(np.zeros(8, dtype=np.uint8), threshold, points, stream(0))


def test_zero_has_no_inverse_and_lengths_are_whole_words() -> None:
    with pytest.raises(Bug, match="shamir-zero"):
        shamir.invert(0)
    with pytest.raises(Bug, match="shamir-length"):
        shamir.split(np.zeros(9, dtype=np.uint8), 1, [1], stream(0))
