"""Envelopes: only the right key, label and bytes open one; anything else is a refusal."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def refused(data: bytes, key: bytes = b"", label: str = "test", max_bytes: int = 1000) -> str:
    with pytest.raises(Reject) as refusal:
        envelope.open_envelope(data, key or public(KEY), label, max_bytes=max_bytes)
    return refusal.value.code


def test_round_trip() -> None:
    sealed = envelope.seal(KEY, "test", {"a": [1, b"x"]})
    assert envelope.open_envelope(sealed, public(KEY), "test", max_bytes=100) == {"a": [1, b"x"]}
    assert envelope.unverified_body(sealed, max_bytes=100) == {"a": [1, b"x"]}


def test_another_key_label_or_body_does_not_open_it() -> None:
    sealed = envelope.seal(KEY, "test", 1)
    assert refused(sealed, key=public(OTHER)) == "signature-invalid"
    assert refused(sealed, label="tes") == "signature-invalid"
    assert refused(sealed, key=b"short") == "signature-invalid"
    body, signature = canonical.decode(sealed, max_bytes=200)
    assert refused(canonical.encode([canonical.encode(2), signature])) == "signature-invalid"
    assert refused(canonical.encode([body, signature[:-1]])) == "message-malformed"
    assert refused(canonical.encode([body, signature, b""])) == "message-malformed"
    assert refused(canonical.encode([body.hex(), signature])) == "message-malformed"


def test_a_signature_over_bytes_that_are_not_canonical_does_not_help() -> None:
    body = b"\x18\x00"  # the number 0 in two bytes
    signature = KEY.sign(b"cameo/signed/test\0" + body)
    assert refused(canonical.encode([body, signature])) == "message-malformed"


def test_the_size_of_the_body_is_bounded() -> None:
    sealed = envelope.seal(KEY, "test", bytes(996))
    assert envelope.open_envelope(sealed, public(KEY), "test", max_bytes=999) == bytes(996)
    assert refused(sealed, max_bytes=998) == "message-too-long"
    assert refused(sealed, max_bytes=10) == "message-too-long"


def test_fingerprint_is_a_hash_in_ten_groups() -> None:
    text = envelope.fingerprint(public(KEY))
    assert [len(group) for group in text.split("-")] == [4] * 10
    assert text != envelope.fingerprint(public(OTHER))


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    refused(data)


@given(st.data())
def test_one_changed_bit_closes_it(data: st.DataObject) -> None:
    raw = bytearray(envelope.seal(KEY, "test", {"n": 7}))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    refused(bytes(raw))
