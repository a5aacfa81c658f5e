"""Laws of canonical CBOR: one value, one byte string; any other bytes are refused and nothing else happens."""

from __future__ import annotations

from typing import Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_protocol import canonical
from cameo_protocol.errors import Reject

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: _depth(value) <= canonical.MAX_DEPTH)
# Also what our encoder would never write: floats, odd keys, tags.
FOREIGN = st.recursive(
    SCALARS | st.floats() | st.integers() | st.builds(cbor2.CBORTag, st.integers(0, 300), SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _same(one: Any, other: Any) -> bool:
    """Equal in value and type: True is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def decode_or_none(data: bytes) -> Any:
    try:
        return [canonical.decode(data, max_bytes=1 << 16)]
    except Reject:
        return None


@given(VALUES)
def test_round_trip(value: Any) -> None:
    assert _same(canonical.decode(canonical.encode(value), max_bytes=1 << 16), value)


@settings(max_examples=300)
@given(st.binary(max_size=40) | FOREIGN.map(cbor2.dumps) | FOREIGN.map(lambda v: cbor2.dumps(v, canonical=True)))
def test_bytes_give_a_value_with_just_these_bytes_or_a_refusal(data: bytes) -> None:
    found = decode_or_none(data)
    if found is not None:
        assert canonical.encode(found[0]) == data


@given(VALUES, st.data())
def test_no_two_byte_strings_mean_one_value(value: Any, data: st.DataObject) -> None:
    raw = bytearray(canonical.encode(value))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    found = decode_or_none(bytes(raw))
    assert found is None or not _same(found[0], value)


@given(VALUES, VALUES)
def test_digests_differ_where_values_do(one: Any, other: Any) -> None:
    assert (canonical.digest("x", one) == canonical.digest("x", other)) == _same(one, other)
