"""Laws of the exchanged files: no changed byte is accepted, no input is anything but a value or an OperatorError."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol.errors import OperatorError
from cameo_protocol.federation import (
    SiteCard,
    canonical_json,
    check_host,
    default_colluders,
    default_threshold,
    node_key_hex,
    read_card,
    read_federation,
    write_card,
)
from cameo_protocol.plan import Cohort, Site

_IDENTITY = Ed25519PrivateKey.generate()
_NODE = ec.generate_private_key(ec.SECP384R1())
_CARD = SiteCard(
    name="hospital-a",
    identity=_IDENTITY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
    node_key=node_key_hex(_NODE.public_key()),
    created="2026-11-24T08:00:00Z",
)
_RAW = write_card(_CARD, _IDENTITY, _NODE)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def accepted(reader: object, raw: bytes) -> bool:
    try:
        reader(raw)  # type: ignore[operator]
    except OperatorError:
        return False
    return True


@given(position=st.integers(0, len(_RAW.strip()) - 1), bit=st.integers(0, 7))
def test_no_flipped_bit_is_accepted(position: int, bit: int) -> None:
    changed = bytearray(_RAW)
    changed[position] ^= 1 << bit
    assert not accepted(read_card, bytes(changed))


@given(raw=st.binary(max_size=300))
def test_bytes_are_a_value_or_an_operator_error(raw: bytes) -> None:
    assert not accepted(read_card, raw)
    assert not accepted(read_federation, raw)


@given(body=json_values, signature=json_values)
def test_any_json_in_the_right_frame_is_an_operator_error(body: object, signature: object) -> None:
    card = {"kind": "cameo-public-card", "body": body, "signature": signature, "node_signature": signature}
    assert not accepted(read_card, canonical_json(card))
    federation = {"kind": "cameo-federation", "body": body, "signature": signature}
    assert not accepted(read_federation, canonical_json(federation))


@given(n=st.integers(3, 128))
def test_default_cohorts_are_sound(n: int) -> None:
    sites = tuple(Site(name=f"h{i}", index=i, identity=f"{i:064x}") for i in range(1, n + 1))
    cohort = Cohort(sites=sites, threshold=default_threshold(n), colluders=default_colluders(n))
    assert cohort.threshold - cohort.colluders >= 2
    assert 3 * cohort.threshold > 2 * n


@given(text=st.text(max_size=40))
def test_a_host_is_unchanged_or_refused(text: str) -> None:
    try:
        assert check_host(text) == text
    except ValueError:
        return
    assert text.isascii()
    assert not any(c in text for c in " \"'\\\n\r\0/%")
