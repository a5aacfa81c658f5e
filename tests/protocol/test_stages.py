"""Messages of the stages: round trips, signatures, and decoders that refuse everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol import canonical, envelope, stages
from cameo_protocol.errors import Reject
from cameo_protocol.stages import Admission, EpochCall, Invitation, Publication, RoundCall, SurvivorsCall

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
EPOCH = EpochCall(run="r", epoch=2, rounds=7, parties=(1, 3, 255))
ROUND = RoundCall(
    run="r", epoch=2, round_no=0, kind="train", step=4, invited=(1, 3), heads={1: b"h"}, receipts={1: b"r"}
)
SURVIVORS = SurvivorsCall(call=ROUND, model_hash=bytes(32), headers={1: b"a", 3: b"c"})

SIGNED: dict[str, tuple[Any, Callable[[bytes], Any]]] = {
    "invitation": (
        Invitation(run="r", plan=b"{}", heads=((bytes(32), b"h"),), former={1: (bytes(32),), 255: ()}),
        lambda raw: Invitation.open(raw, PUBLIC),
    ),
    "admission": (
        Admission(run="r", plan_id=bytes(32), answer="declined-local", head=b"h", peers=((bytes(32), b"x"),)),
        lambda raw: Admission.open(raw, PUBLIC),
    ),
    "publication": (
        Publication(run="r", plan_id=bytes(32), models={"risk": b"m"}, card=b"{}"),
        lambda raw: Publication.open(raw, PUBLIC),
    ),
}
DECODERS: dict[str, Callable[[bytes], Any]] = {
    **{name: decode for name, (_, decode) in SIGNED.items()},
    "finish": lambda raw: stages.open_finish(raw, PUBLIC),
    "epoch": EpochCall.decode,
    "round": RoundCall.decode,
    "survivors": SurvivorsCall.decode,
    "pair": stages.unpair,
}
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-300, 300) | st.binary(max_size=4) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", SIGNED)
def test_signed_messages_come_back_and_only_from_their_signer(name: str) -> None:
    message, decode = SIGNED[name]
    assert decode(message.seal(KEY)) == message
    with pytest.raises(Reject, match="signature-invalid"):
        decode(message.seal(STRANGER))


def test_no_signed_message_passes_for_another() -> None:
    sealed = {name: message.seal(KEY) for name, (message, _) in SIGNED.items()}
    sealed["finish"] = stages.finish_body(KEY, "r")
    for name, raw in sealed.items():
        for other in sealed.keys() - {name}:
            with pytest.raises(Reject):
                DECODERS[other](raw)
    assert stages.open_finish(sealed["finish"], PUBLIC) == "r"


def test_calls_come_back() -> None:
    assert EpochCall.decode(EPOCH.encode()) == EPOCH
    assert RoundCall.decode(ROUND.encode()) == ROUND
    assert SurvivorsCall.decode(SURVIVORS.encode()) == SURVIVORS
    assert stages.unpair(stages.pair(b"a", b"")) == (b"a", b"")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": True},
        {"epoch": "2"},
        {"parties": [3, 1]},
        {"parties": [1, 1]},
        {"parties": [0]},
        {"parties": [256]},
        {"parties": [True]},
        {"parties": ["1"]},
        {"more": 1},
    ],
)
def test_an_epoch_call_with_a_wrong_field_is_refused(change: dict[str, Any]) -> None:
    value = canonical.decode(EPOCH.encode(), max_bytes=1000)
    with pytest.raises(Reject, match="message-malformed"):
        EpochCall.decode(canonical.encode(value | change))


@pytest.mark.parametrize("field", ["run", "epoch", "round", "kind", "step", "invited"])
def test_a_round_call_needs_each_field(field: str) -> None:
    value = canonical.decode(ROUND.encode(), max_bytes=1000)
    with pytest.raises(Reject, match="message-malformed"):
        RoundCall.decode(canonical.encode(value | {field: None}))
    del value[field]
    with pytest.raises(Reject, match="message-malformed"):
        RoundCall.decode(canonical.encode(value))


def test_a_round_of_an_unknown_kind_is_refused() -> None:
    value = canonical.decode(ROUND.encode(), max_bytes=1000) | {"kind": "peek"}
    with pytest.raises(Reject, match="message-malformed"):
        RoundCall.decode(canonical.encode(value))


def test_an_answer_is_one_of_three_and_a_model_is_bytes() -> None:
    raw = envelope.seal(KEY, "admission", {"run": "r", "plan": bytes(32), "answer": "maybe, 7 patients"})
    with pytest.raises(Reject, match="message-malformed"):
        Admission.open(raw, PUBLIC)
    raw = envelope.seal(KEY, "publish", {"run": "r", "plan": bytes(32), "models": {"risk": "m"}, "card": b"{}"})
    with pytest.raises(Reject, match="message-malformed"):
        Publication.open(raw, PUBLIC)


def test_the_model_hash_binds_every_field_and_the_model() -> None:
    others = [
        RoundCall(**{**vars(ROUND), name: value})
        for name, value in {
            "run": "s",
            "epoch": 3,
            "round_no": 1,
            "kind": "evaluate",
            "step": 5,
            "invited": (1, 2),
        }.items()
    ]
    hashes = [call.model_hash(b"model") for call in (ROUND, *others)] + [ROUND.model_hash(b"other")]
    assert len(set(hashes)) == len(hashes)
    assert {len(value) for value in hashes} == {32}


def test_an_error_answer_says_only_its_code() -> None:
    packet = stages.error_packet("failed-local")
    assert (packet.kind, packet.vector) == (stages.ERROR, b"")
    assert stages.error_code(packet.body) == "failed-local"
    assert stages.error_code(canonical.encode({"code": "x" * 65})) == "unreadable"


@given(st.binary(max_size=80) | JSONISH.map(canonical.encode))
def test_an_error_code_is_always_a_short_text(raw: bytes) -> None:
    code = stages.error_code(raw)
    assert isinstance(code, str)
    assert len(code) <= 64


@pytest.mark.parametrize("name", DECODERS)
@given(raw=st.binary(max_size=120) | JSONISH.map(canonical.encode))
def test_garbage_is_refused_or_read_back_exactly(name: str, raw: bytes) -> None:
    try:
        value = DECODERS[name](raw)
    except Reject:
        return
    assert name == "pair"
    assert stages.pair(*value) == raw


@pytest.mark.parametrize("name", [*SIGNED, "finish"])
@given(body=JSONISH)
def test_a_signed_body_of_another_shape_is_refused(name: str, body: object) -> None:
    label = {"invitation": "admit", "publication": "publish"}.get(name, name)
    with pytest.raises(Reject, match="message-malformed"):
        DECODERS[name](envelope.seal(KEY, label, body))


@given(
    parties=st.sets(st.integers(1, 255), max_size=20).map(lambda found: tuple(sorted(found))),
    epoch=st.integers(-(2**63), 2**63 - 1),
    run=st.text(max_size=10),
)
def test_every_epoch_call_comes_back(parties: tuple[int, ...], epoch: int, run: str) -> None:
    call = EpochCall(run=run, epoch=epoch, rounds=1, parties=parties)
    assert EpochCall.decode(call.encode()) == call
