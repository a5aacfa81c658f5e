"""Canonical CBOR: vectors of RFC 8949, and everything that must be refused."""

from __future__ import annotations

import hashlib

import cbor2
import pytest

from cameo_protocol import canonical
from cameo_protocol.errors import Bug, Reject

# RFC 8949, appendix A; "b before aa" is the order of section 4.2.1.
VECTORS = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (1000, "1903e8"),
    (2**63 - 1, "1b7fffffffffffffff"),
    (-1, "20"),
    (-1000, "3903e7"),
    (-(2**63), "3b7fffffffffffffff"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (b"\x01\x02\x03\x04", "4401020304"),
    ("IETF", "6449455446"),
    ("\u6c34", "63e6b0b4"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    ({}, "a0"),
    ({"aa": 1, "b": 2}, "a261620262616101"),
]

REFUSED = {
    "empty": "",
    "cut off": "43ab",
    "bytes left over": "0000",
    "float": "f93c00",
    "float64": "fb3ff199999999999a",
    "undefined": "f7",
    "integer in too many bytes": "1800",
    "length in too many bytes": "580100",
    "integer beyond 64 signed bits": "1b8000000000000000",
    "negative beyond 64 signed bits": "3b8000000000000000",
    "bignum": "c249010000000000000000",
    "indefinite bytes": "5f41ab41cdff",
    "indefinite list": "9f01ff",
    "indefinite map": "bf616101ff",
    "map out of order": "a2626161016162 02",
    "map with a key twice": "a2616101616102",
    "map with an integer key": "a10102",
    "map with a list key": "a1800101",
    "text that is not UTF-8": "61ff",
    "half a surrogate pair": "63eda080",
    "tag: date": "c074323031332d30332d32315432303a30343a30305a",
    "tag: shared list that holds itself": "d81c81d81d00",
    "tag: decimal of a huge exponent": "c4821b7fffffffffffffff01",
    "tag: unknown": "d9fffe00",
    "a list of 2^63 items": "9b7fffffffffffffff",
    "bytes of 2^63": "5b7fffffffffffffff",
    "lone break": "ff",
}


@pytest.mark.parametrize(("value", "text"), VECTORS, ids=[text for _, text in VECTORS])
def test_published_vectors(value: object, text: str) -> None:
    assert canonical.encode(value).hex() == text
    assert canonical.decode(bytes.fromhex(text), max_bytes=100) == value


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(Reject) as refusal:
        canonical.decode(bytes.fromhex(text), max_bytes=100)
    assert refusal.value.code == "message-malformed"


def test_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(Reject) as refusal:
        canonical.decode(bytes(11), max_bytes=10)
    assert refusal.value.code == "message-too-long"


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a", b"\xc1", b"\xd8\x1c\x81"])
@pytest.mark.parametrize("depth", [canonical.MAX_DEPTH + 1, 1000, 100_000])
def test_depth_is_bounded(opening: bytes, depth: int) -> None:
    with pytest.raises(Reject):
        canonical.decode(opening * depth + b"\x00", max_bytes=1 << 20)


def test_the_deepest_value_that_is_allowed() -> None:
    value: object = 0
    for _ in range(canonical.MAX_DEPTH):
        value = [value]
    assert canonical.decode(canonical.encode(value), max_bytes=100) == value
    with pytest.raises(Bug):
        canonical.encode([value])


@pytest.mark.parametrize(
    "value", [1.0, 2**63, -(2**63) - 1, {1: 2}, {b"a": 1}, {1, 2}, [object()], "\ud800", {"\ud800": 1}, bytearray(b"a")]
)
def test_what_has_no_form_is_our_own_fault(value: object) -> None:
    with pytest.raises(Bug) as fault:
        canonical.encode(value)
    assert fault.value.code == "canonical-type"


def test_digest_binds_label_and_value() -> None:
    expected = hashlib.sha256(b"cameo/a\0" + cbor2.dumps([1, "x"], canonical=True)).digest()
    assert canonical.digest("a", [1, "x"]) == expected
    assert len({canonical.digest(label, value) for label in ("a", "b") for value in (1, True, "1", b"1")}) == 8
