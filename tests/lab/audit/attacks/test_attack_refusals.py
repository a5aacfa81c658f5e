"""What is refused, it is refused for the right reason."""

from __future__ import annotations

from itertools import islice

import numpy as np

from cameo_lab.audit.attacks import refusals
from cameo_lab.audit.attacks.differencing import _with_room
from cameo_lab.audit.attacks.wire import Refused, open_wire
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import Subject
from cameo_protocol.packet import Packet
from cameo_protocol.stages import UPLOAD


def code_of(ask: object, *arguments: object) -> str:
    try:
        return str(ask(*arguments))  # type: ignore[operator]
    except Refused as refused:
        return refused.code


def test_plans_without_noise_fall_at_the_door_or_at_their_claim(subject: Subject) -> None:
    with open_wire(subject, [nobody(subject.plan, subject.features)] * 4) as wire:
        plans = islice(refusals._quiet_plans(wire.plan, np.random.default_rng(1)), 11)
        assert {code_of(wire.invite, 1, plan) for plan in plans} == {"plan-invalid", "plan-epsilon"}


def test_other_networks_are_declined(subject: Subject) -> None:
    with open_wire(subject, [nobody(subject.plan, subject.features)] * 4) as wire:
        plans = islice(refusals._other_architectures(wire.plan, np.random.default_rng(1)), 30)
        answers = [code_of(wire.invite, 1, plan) for plan in plans]
    assert "declined-policy" in answers
    assert set(answers) <= {"declined-policy", "encoding-overflow"}


def test_other_first_models_fall_by_form_value_and_bit(subject: Subject) -> None:
    with open_wire(subject, [nobody(subject.plan, subject.features)] * 4) as wire:
        call = wire.call(step=0).encode()
        models = islice(refusals._other_models(subject.initial(), np.random.default_rng(1)), 6)
        codes = [code_of(wire.ask, 1, Packet(UPLOAD, call, model)) for model in models]
        initial = Packet(UPLOAD, call, subject.initial().astype("<f4").tobytes())
        assert wire.ask(1, initial).vector
    first, *_ = codes
    assert first == "model-not-initial"
    assert set(codes) == {"model-not-initial", "model-not-finite", "model-shape"}


def test_room_is_made_only_where_there_is_none(subject: Subject) -> None:
    assert _with_room(subject) is subject
