"""Every decoder takes any bytes and answers with a value or a `Reject`, in bounded memory (invariant 15)."""

from __future__ import annotations

import datetime
import os
import tracemalloc

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_parties import epoch_params, identity, run_round, set_up, stream, vectors

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject
from cameo_protocol.secagg import client_round, client_setup, messages, server_round, server_setup
from cameo_protocol.secagg.boxes import open_box
from cameo_protocol.secagg.params import Party

EXAMPLES = 3000 if os.environ.get("CAMEO_FULL") else 150
KINDS = (messages.Advert, messages.Shares, messages.Ready, messages.Upload, messages.Ack, messages.Reveal)
KEY = identity(1)
PARTY = Party(1, KEY.public_key().public_bytes_raw())

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=64) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
cbor = st.recursive(
    st.none() | st.integers() | st.floats() | st.binary(max_size=40) | st.text(max_size=8) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
).map(lambda value: cbor2.dumps(value, timezone=datetime.UTC))
anything = st.binary(max_size=300) | cbor | values.map(canonical.encode)


@settings(max_examples=EXAMPLES, deadline=None)
@given(anything, st.sampled_from(KINDS))
def test_any_bytes_as_an_envelope(data: bytes, kind) -> None:
    with pytest.raises(Reject):
        messages.open_from(kind, data, PARTY, max_bytes=10_000)


@settings(max_examples=EXAMPLES, deadline=None)
@given(values, st.sampled_from(KINDS))
def test_any_body_under_a_good_signature(body, kind) -> None:
    data = envelope.seal(KEY, f"secagg/{kind.kind}", body)
    with pytest.raises(Reject):
        messages.open_from(kind, data, PARTY, max_bytes=10_000)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data(), st.sampled_from(KINDS))
def test_one_field_of_a_good_body_replaced_by_anything(data, kind) -> None:
    """Either the value fits its field, or the message is refused."""
    body = good_body(kind)
    name = data.draw(st.sampled_from(sorted(body)))
    changed = {**body, name: data.draw(values)}
    sealed = envelope.seal(KEY, f"secagg/{kind.kind}", changed)
    try:
        message = messages.open_from(kind, sealed, PARTY, max_bytes=10_000)
    except Reject:
        return
    assert messages.seal(KEY, message) == sealed, "what is accepted has one form"


def good_body(kind) -> dict:
    from dataclasses import fields

    filler = {"from": 1, "r": 0, "epoch": 0, "rounds": 1, "t": 3, "c": 0, "run": "run", "mlkem": bytes(1184)}
    names = [f.metadata["wire"] for f in fields(kind)]
    return {"kind": kind.kind} | {name: filler.get(name, bytes(32)) for name in names}


def test_the_good_bodies_are_good() -> None:
    for kind in KINDS:
        assert messages.open_from(
            kind, envelope.seal(KEY, f"secagg/{kind.kind}", good_body(kind)), PARTY, max_bytes=9999
        )


@settings(max_examples=EXAMPLES, deadline=None)
@given(anything)
def test_any_bytes_as_a_bundle(data: bytes) -> None:
    try:
        items = messages.unpack(data, max_item_bytes=100)
    except Reject:
        return
    assert messages.pack(items) == data


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_as_a_box(data: bytes) -> None:
    pair = client_setup.new_key_pair(stream(0))
    with pytest.raises(Reject):
        open_box(data.ljust(1232, b"\0"), pair.private, bytes(32), 2, 1, 1)


@pytest.fixture(scope="module")
def scene():
    fed = set_up(epoch_params(rounds=2))
    ups = {i: client_round.upload(fed.lives[i], fed.start(), vectors([i], 7)[i]) for i in fed.all}
    headers = {i: up[1] for i, up in ups.items()}
    acked = client_round.acknowledge(fed.lives[1], ups[1][0], headers)[0]
    return lambda: (fed, headers, acked)  # a short repr in failures


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(st.integers(-1, 300), anything, max_size=5))
def test_any_mapping_into_every_state(scene, given_items) -> None:
    """Both sides' public functions, with any indices and any bytes."""
    fed, headers, acked = scene()
    state, advert = client_setup.advertise(fed.params, 1, identity(1), stream(1))
    calls = [
        lambda: client_setup.share(state, given_items, stream(2)),
        lambda: client_setup.share(state, {**fed.adverts, 2: b"", **given_items, 1: advert}, stream(2)),
        lambda: client_round.acknowledge(fed.lives[2], fed.start(), given_items),
        lambda: client_round.reveal(fed.lives[1], acked, given_items),
        lambda: server_setup.collect_adverts(server_setup.open_setup(fed.params), given_items),
        lambda: server_setup.restore(fed.params, fed.adverts, {**fed.envelopes, **given_items, 1: b""}, fed.readies),
        lambda: server_setup.restore(fed.params, fed.adverts, fed.envelopes, {**given_items}),
    ]
    for call in calls:
        with pytest.raises(Reject):
            call()
    collecting = server_round.open_round(fed.epoch, fed.start())
    survivors = server_round.Survivors(fed.epoch, fed.start(), headers, np.zeros(7, dtype=np.uint32))
    quorum = server_round.Quorum(fed.epoch, survivors.survivors, {}, np.zeros(7, dtype=np.uint32))
    for index, data in given_items.items():
        for add in (lambda i, d: collecting.add_upload(i, d, d), survivors.add_ack, quorum.add_reveal):
            with pytest.raises(Reject):
                add(index, data)


BOMBS = {
    "array of 2^64 - 1": b"\x9b" + b"\xff" * 8,
    "map of 2^64 - 1": b"\xbb" + b"\xff" * 8,
    "bytes of 2^40": b"\x5b" + (2**40).to_bytes(8, "big"),
    "text of 2^40": b"\x7b" + (2**40).to_bytes(8, "big"),
    "array of 2^31": b"\x9a\x80\x00\x00\x00",
    "deep lists": b"\x81" * 20_000,
    "deep maps": b"\xa1\x61a" * 5_000,
    "endless bytes": b"\x5f" + b"\x41a" * 1000,
    "endless list": b"\x9f" + b"\x01" * 1000,
    "bignum": b"\xc2\x59\x03\xe8" + b"\xff" * 1000,
    "shared reference": b"\xd8\x1c\x81\xd8\x1d\x00",
    "zeros": bytes(2**20),
    "too long": bytes(2**24),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_bounded_memory(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(Reject):
            messages.open_from(messages.Upload, data, PARTY, max_bytes=2**20)
        with pytest.raises(Reject):
            messages.unpack(data, max_item_bytes=4096)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20


def test_a_vector_of_256_mib_is_refused_by_its_length() -> None:
    """Before it is hashed or copied; zeros of that length cost no memory here."""
    fed = set_up(epoch_params())
    trace = run_round(fed, fed.start(), vectors(fed.all, 7))
    collecting = server_round.open_round(fed.epoch, fed.start())
    huge = memoryview(np.zeros(2**26, dtype=np.uint32)).cast("B")
    with pytest.raises(Reject, match="vector-length"):
        collecting.add_upload(1, trace.headers[1], huge)


def test_another_key_of_the_right_form_does_not_help() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    data = envelope.seal(other, "secagg/ack", good_body(messages.Ack))
    with pytest.raises(Reject, match="signature-invalid"):
        messages.open_from(messages.Ack, data, PARTY, max_bytes=512)
