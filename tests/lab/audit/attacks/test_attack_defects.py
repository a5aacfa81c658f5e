"""An attack that breaks nothing proves nothing: each finding turns red on the defect that it is there for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cameo_client.node import admission, hospital
from cameo_client.node.admission import Admitted
from cameo_client.training.noise import discrete_gaussian
from cameo_lab.audit.attacks import differencing, invert, membership
from cameo_lab.audit.attacks.table import ATTACKS
from cameo_lab.audit.attacks.wire import Wire
from cameo_lab.audit.finding import Finding
from cameo_lab.audit.subject import Subject
from cameo_protocol.secagg import client_round
from cameo_protocol.secagg.client_round import Acked, Live, Uploaded
from cameo_protocol.secagg.params import RoundStart


def run(name: str, subject: Subject) -> Finding:
    return ATTACKS[name](subject, np.random.default_rng(5), "quick")


@pytest.mark.parametrize("name", ["gradient-inversion", "imprint", "cohort-differencing", "zero-noise"])
def test_no_noise_is_found(name: str, subject: Subject) -> None:
    finding = run(name, subject.silent())
    assert finding.control_failed
    assert not finding.passed


@pytest.mark.parametrize("name", ["gradient-inversion", "cohort-differencing"])
def test_far_too_little_noise_is_found(name: str, subject: Subject) -> None:
    weak = replace(subject, noise=lambda sd, size: discrete_gaussian(sd / 2000, size))
    finding = run(name, weak)
    assert not finding.passed
    assert finding.figures["opened" if name == "gradient-inversion" else "reconstructed"] > 0


def test_a_model_without_noise_is_found_by_its_members(subject: Subject) -> None:
    finding = membership.attack(subject.silent(), np.random.default_rng(5), "quick")
    assert not finding.passed
    assert finding.figures["auc"] > 0.7


def test_noise_on_a_coarse_grid_is_found(subject: Subject) -> None:
    coarse = replace(subject, noise=lambda sd, size: 16 * discrete_gaussian(sd / 16, size))
    finding = run("floating-point", coarse)
    assert not finding.passed
    assert finding.figures["low_bits_p"] < 1e-6


def test_a_hospital_that_takes_any_first_model_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Admitted.check_round

    def lenient(this: Admitted, call: Any, vector: bytes, epoch: int) -> Any:
        return honest(this, replace(call, step=1), vector, epoch)

    monkeypatch.setattr(Admitted, "check_round", lenient)
    finding = run("crafted-first-model", subject)
    assert not finding.passed
    assert finding.figures["models_refused"] < finding.figures["tries"]
    assert finding.figures["charged"] > 0


def test_a_hospital_that_takes_any_architecture_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    class Anything(int):
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    monkeypatch.setattr(admission, "parameter_count", lambda *_: Anything())
    monkeypatch.setattr(admission.Contributor, "warm_up", lambda *_: None)
    monkeypatch.setattr(admission, "check_plan", lambda _: None)
    finding = run("crafted-first-model", subject)
    assert not finding.passed
    assert finding.figures["plans_refused"] < finding.figures["tries"]


def test_a_hospital_that_does_not_check_the_claim_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "check_plan", lambda _: None)
    finding = run("zero-noise", subject)
    assert not finding.passed
    assert 0 < finding.figures["refused"] < finding.figures["tries"]


def test_a_hospital_that_needs_no_quorum_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody: dict[int, bytes] = {}
    reveal, acknowledge = hospital.reveal, hospital.acknowledge

    def remembering(live: Live, where: RoundStart | Uploaded, headers: Any) -> tuple[Acked, bytes]:
        acked, everybody[live.index] = acknowledge(live, where, headers)
        return acked, everybody[live.index]

    monkeypatch.setattr(hospital, "acknowledge", remembering)
    monkeypatch.setattr(hospital, "reveal", lambda live, acked, _: reveal(live, acked, dict(everybody)))
    finding = run("below-threshold-reveal", subject)
    assert not finding.passed
    assert finding.figures["refused"] < finding.figures["tries"]


def test_an_acknowledgement_counted_twice_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_round, "read_ack", lambda *_: None)
    assert not run("below-threshold-reveal", subject).passed


def test_hospitals_that_stand_by_two_sets_are_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = differencing._equivocate
    monkeypatch.setattr(
        differencing,
        "_equivocate",
        lambda wire, model, random, *, forgetful: honest(wire, model, random, forgetful=True),
    )
    finding = run("aggregate-of-one", subject)
    assert not finding.passed
    assert finding.figures["opened"] == finding.figures["trials"]


def test_vectors_that_are_not_masked_are_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Wire.round

    def bare(this: Wire, *args: Any, **named: Any) -> Any:
        captured = honest(this, *args, **named)
        return replace(captured, uploads=dict(this.made))

    monkeypatch.setattr(Wire, "round", bare)
    finding = invert.attack(subject, np.random.default_rng(5), "quick")
    assert not finding.passed
    assert finding.figures["masked_uniform_p"] < invert.LEAST_P
