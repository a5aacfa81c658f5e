"""A hospital's answers: what does not fit is refused with a code alone, and changes nothing."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.home import NodeHome
from cameo_client.ledger import Caps
from cameo_client.node.contribution import Contributor
from cameo_client.node.hospital import ROUND_STAGES
from cameo_client.node.publication import Library
from cameo_protocol import canonical
from cameo_protocol.packet import Packet
from cameo_protocol.privacy.releases import plan_releases
from cameo_protocol.stages import (
    ACK,
    ADMIT,
    ADVERTISE,
    FINISH,
    PUBLISH,
    READY,
    REVEAL,
    SHARE,
    UPLOAD,
    EpochCall,
    RoundCall,
    error_code,
    finish_body,
)
from cameo_server.home import load_ed25519

STAGES = (ADMIT, ADVERTISE, SHARE, READY, UPLOAD, ACK, REVEAL, PUBLISH, FINISH)
LATER = (ADVERTISE, SHARE, READY, UPLOAD, ACK, REVEAL)
CANARY = "patient-4711-has-diabetes"


def state(node: Any) -> tuple[Any, ...]:
    phase = node.hospital._phase
    admitted = getattr(phase, "admitted", None) or getattr(getattr(phase, "living", phase), "admitted", phase)
    return phase, getattr(admitted, "last_epoch", None), node.ledger.spent(), node.ledger.reserved(), node.ledger.head()


def refused(node: Any, packet: Packet) -> str:
    """The code of a refusal that left everything as it was."""
    before = state(node)
    answer = node.hospital.handle(packet)
    assert answer.kind == "error"
    assert not answer.vector
    assert set(canonical.decode(answer.body, max_bytes=4096)) == {"code"}
    after = state(node)
    assert after[0] is before[0]
    assert after[1:] == before[1:]
    return error_code(answer.body)


def change_policy(world: Any, pattern: str, put: str) -> str:
    """Change the officer's policy of hospital 1 on disk; returns the text before."""
    policy = NodeHome(world.homes / "h1").policy
    text = policy.read_text()
    changed = re.sub(pattern, put, text)
    assert changed != text
    policy.write_text(changed)
    return text


@pytest.mark.parametrize("stage", LATER)
def test_in_every_phase_garbage_is_refused_and_the_run_goes_on(world: Any, stage: str) -> None:
    logging.disable(logging.WARNING)
    waiting = world.run_until(stage)

    @settings(max_examples=12, deadline=None, database=None)
    @given(kind=st.sampled_from(STAGES), body=st.binary(max_size=80), vector=st.binary(max_size=8))
    def garbage(kind: str, body: bytes, vector: bytes) -> None:
        assert refused(world.first, Packet(kind, body, vector)) != "failed-local"

    @settings(max_examples=12, deadline=None, database=None)
    @given(
        kind=st.sampled_from(STAGES),
        value=st.recursive(
            st.none() | st.integers(-(2**31), 2**31) | st.text(max_size=5) | st.binary(max_size=9),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
            max_leaves=8,
        ),
    )
    def well_formed(kind: str, value: Any) -> None:
        assert refused(world.first, Packet(kind, canonical.encode(value))) != "failed-local"

    try:
        garbage()
        well_formed()
        for kind in ("", "nonsense", "error", "admit "):
            assert refused(world.first, Packet(kind, b"")) == "unknown-stage"
    finally:
        logging.disable(logging.NOTSET)
    assert world.first.hospital.handle(waiting).kind == stage


@pytest.mark.parametrize("stage", LATER[1:])
def test_a_message_that_was_answered_once_is_refused_the_second_time(world: Any, stage: str) -> None:
    world.run_until(stage)
    earlier = [packet for packet in world.asked[:-1] if packet.kind != ADMIT]
    if earlier[-1].kind in ROUND_STAGES:  # the newest may be asked for again
        earlier.pop()
    assert earlier
    codes = {packet.kind: refused(world.first, packet) for packet in earlier}
    assert codes[ADVERTISE] == "epoch-old"
    assert all(code == "out-of-order" for kind, code in codes.items() if kind in (SHARE, READY))
    assert codes.get(ACK, "already-acknowledged") == "already-acknowledged"


@pytest.mark.parametrize("stage", ROUND_STAGES)
def test_the_newest_message_of_a_round_asked_for_again_gets_the_same_bytes_and_changes_nothing(
    world: Any, stage: str
) -> None:
    waiting = world.run_until(stage, 2)
    first = world.first.hospital.handle(waiting)
    assert first.kind == stage
    before = state(world.first)
    assert world.first.hospital.handle(Packet(*waiting)) == first
    assert state(world.first)[0] is before[0]
    assert state(world.first)[1:] == before[1:]
    for other in (waiting._replace(body=waiting.body + b"\x00"), waiting._replace(vector=waiting.vector + bytes(4))):
        refused(world.first, other)
    assert world.first.hospital.handle(waiting) == first, "also after something else was refused"


def test_an_answer_is_forgotten_with_the_keys_of_its_epoch(world: Any) -> None:
    waiting = world.run_until(ACK)
    assert world.first.hospital.handle(waiting).kind == ACK
    advertise = next(packet for packet in world.asked if packet.kind == ADVERTISE)
    call = replace(EpochCall.decode(advertise.body), epoch=2)
    assert world.first.hospital.handle(Packet(ADVERTISE, call.encode())).kind == ADVERTISE
    assert refused(world.first, waiting) == "out-of-order"


@pytest.mark.parametrize("stage", LATER)
def test_a_stage_that_is_not_due_is_out_of_order(world: Any, stage: str) -> None:
    due = {SHARE: {SHARE}, READY: {READY}, UPLOAD: {UPLOAD, ACK}, ACK: {ACK, UPLOAD}, REVEAL: {REVEAL, UPLOAD, ACK}}
    world.run_until(stage)
    for kind in set(LATER) - {ADVERTISE} - due.get(stage, set()):
        assert refused(world.first, Packet(kind, b"")) == "out-of-order"


def test_without_a_run_only_an_invitation_is_in_order(world: Any) -> None:
    for kind in LATER:
        assert refused(world.first, Packet(kind, b"")) == "out-of-order"


def test_the_spend_is_on_disk_before_anything_is_computed_and_no_text_leaves(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = world.run_until(UPLOAD)
    seen: list[float] = []

    def broken(*_: Any) -> None:
        seen.append(world.first.ledger.spent())
        raise ValueError(CANARY)

    monkeypatch.setattr(Contributor, "noisy_vector", broken)
    before = world.first.hospital._phase
    assert world.first.ledger.spent() == 0
    answer = world.first.hospital.handle(packet)
    assert error_code(answer.body) == "failed-local"
    assert CANARY.encode() not in answer.body + answer.vector
    assert world.first.hospital._phase is before
    assert seen[0] == world.first.ledger.spent() > 0


def test_no_text_of_ours_leaves_whatever_stage_fails(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(CANARY)

    world.run_until(UPLOAD)
    monkeypatch.setattr(Library, "store", broken)
    monkeypatch.setattr("cameo_client.node.hospital.EpochCall.decode", broken)
    monkeypatch.setattr("cameo_client.node.hospital.RoundCall.decode", broken)
    monkeypatch.setattr("cameo_client.node.admission.Invitation.open", broken)
    monkeypatch.setattr("cameo_client.node.admission.open_finish", broken)
    for kind in (PUBLISH, ADVERTISE, UPLOAD, ADMIT, FINISH):
        answer = world.first.hospital.handle(Packet(kind, b""))
        assert answer == Packet("error", canonical.encode({"code": "failed-local"}))


def test_a_reason_to_decline_stays_in_the_hospital(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cameo_protocol.errors import OperatorError

    def broken(*_: Any, **__: Any) -> None:
        raise OperatorError("quality-low", what=CANARY, do=CANARY)

    packet = world.run_until(ADMIT)
    monkeypatch.setattr("cameo_client.node.service.load_local", broken)
    answer = world.first.hospital.handle(packet)
    assert answer.kind == ADMIT
    assert b"declined-local" in answer.body
    assert CANARY.encode() not in answer.body
    assert b"quality" not in answer.body


def _scaled(vector: bytes) -> bytes:
    return (np.frombuffer(vector, dtype="<f4") + np.float32(1e-6)).astype("<f4").tobytes()


def _not_finite(vector: bytes) -> bytes:
    return np.float32(np.nan).tobytes() + vector[4:]


SPOILT = (
    (_scaled, "model-not-initial"),
    (_not_finite, "model-not-finite"),
    (lambda vector: np.float32(np.inf).tobytes() + vector[4:], "model-not-finite"),
    (lambda vector: vector[:-4], "model-shape"),
    (lambda vector: vector + bytes(4), "model-shape"),
    (lambda vector: vector[:-1], "model-shape"),
    (lambda _: b"", "model-shape"),
)
ROUNDS: tuple[tuple[dict[str, Any], str | None], ...] = (
    ({"run": "r2"}, "round-foreign"),
    ({"epoch": 7}, "round-foreign"),
    ({"step": -1}, "round-unplanned"),
    ({"step": 3}, "round-unplanned"),
    ({"kind": "other"}, "message-malformed"),
    ({"invited": (1,)}, None),
    ({"invited": (2, 3, 4)}, "not-invited"),
    ({"round_no": 999}, None),
    ({"round_no": -1}, None),
)
EPOCHS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"run": "r2"}, "run-foreign"),
    ({"parties": (2, 3, 4)}, "party-missing"),
    ({"parties": (1, 2)}, "cohort-too-small"),
    ({"parties": (1,)}, "cohort-too-small"),
    ({"parties": (1, 2, 3, 9)}, "party-unknown"),
    ({"epoch": -1}, "epoch-old"),
    ({"rounds": 0}, "epoch-too-long"),
    ({"rounds": 10_000}, "epoch-too-long"),
    ({"parties": (3, 2, 1)}, "message-malformed"),
)


def test_a_round_that_the_plan_does_not_allow_is_refused_before_any_charge(world: Any) -> None:
    packet = world.run_until(UPLOAD)
    for spoil, code in SPOILT:
        assert refused(world.first, Packet(UPLOAD, packet.body, spoil(packet.vector))) == code
    for change, wanted in ROUNDS:
        call = replace(RoundCall.decode(packet.body), **change)
        found = refused(world.first, Packet(UPLOAD, call.encode(), packet.vector))
        assert found != "failed-local"
        assert wanted in (found, None)
    assert world.first.hospital.handle(packet).kind == UPLOAD


def test_an_epoch_with_wrong_hospitals_or_length_is_refused(world: Any) -> None:
    packet = world.run_until(ADVERTISE)
    for change, code in EPOCHS:
        call = replace(EpochCall.decode(packet.body), **change)
        assert refused(world.first, Packet(ADVERTISE, call.encode())) == code
    assert world.first.hospital.handle(packet).kind == ADVERTISE


def test_a_hospital_the_officer_does_not_approve_is_refused_in_an_epoch(world: Any) -> None:
    packet = world.run_until(ADVERTISE)
    change_policy(world, r'(?m)^  "hospital-2": .*\n', "")
    assert refused(world.first, packet) == "policy-stricter"


@pytest.mark.parametrize("stage", [ADVERTISE, UPLOAD])
def test_a_policy_that_has_become_stricter_stops_a_running_run_before_any_charge(
    world: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    packet, told = world.run_until(stage), []
    monkeypatch.setattr(world.first.hospital, "_report", lambda code, what: told.append((code, what)))
    before = change_policy(world, r"(?m)^(  sigma:) .*", r"\1 900")
    assert refused(world.first, packet) == "policy-stricter"
    assert [(code, what.partition(":")[0]) for code, what in told] == [("policy-stricter", "sigma-too-low")]
    assert world.first.ledger.spent() == 0
    NodeHome(world.homes / "h1").policy.write_text("version: nonsense")
    assert refused(world.first, packet) == "failed-local"
    NodeHome(world.homes / "h1").policy.write_text(before)
    assert world.first.hospital.handle(packet).kind == stage


def test_a_decline_after_the_data_were_read_leaves_the_ledger_as_it_was(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a hospital tells of its ledger with the decline is then the same, however far the data came."""
    from cameo_protocol.errors import OperatorError

    def broken(*_: Any) -> None:
        raise OperatorError("consent-store-read", what=CANARY, do=CANARY)

    packet = world.run_until(ADMIT)
    monkeypatch.setattr(Contributor, "warm_up", broken)
    before = world.first.ledger.head()
    answer = world.first.hospital.handle(packet)
    assert b"declined-local" in answer.body
    assert world.first.ledger.head() == before
    assert world.first.ledger.reserved() == 0


def test_the_late_end_of_another_run_does_not_end_this_one(world: Any) -> None:
    packet = world.run_until(UPLOAD)
    node, plan = world.first, world.plan
    node.ledger.reserve("r0", plan.plan_id(), plan_releases(plan), Caps(dataset=1e3, year=1e3))
    late = finish_body(load_ed25519(world.coordinator.plan_key), "r0")
    assert node.hospital.handle(Packet(FINISH, late)).kind == FINISH
    assert node.ledger.open_runs() == ("r1",)
    assert node.hospital.handle(packet).kind == UPLOAD


def test_a_hospital_that_declines_the_run_it_is_in_answers_no_more_of_it(world: Any) -> None:
    """The officer has become stricter; a coordinator that asks on all the same gets nothing."""
    packet = world.run_until(UPLOAD)
    invitation = next(asked for asked in world.asked if asked.kind == ADMIT)
    change_policy(world, r"(?m)^(  hospitals:) \d+", r"\1 9")
    assert b"declined-policy" in world.first.hospital.handle(invitation).body
    assert refused(world.first, packet) == "out-of-order"
    assert world.first.ledger.spent() == 0
