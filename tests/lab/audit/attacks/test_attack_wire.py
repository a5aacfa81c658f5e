"""The attacks meet real hospitals: their sums are exact, their refusals are their own, their ledgers count."""

from __future__ import annotations

import numpy as np
import pytest

from cameo_lab.audit.attacks import imprint
from cameo_lab.audit.attacks.invert import uniform_p
from cameo_lab.audit.attacks.wire import Refused, open_wire
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import Subject, added
from cameo_models.shapes import parameter_count
from cameo_protocol.errors import Bug
from cameo_protocol.packet import Packet
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.plan_check import check_plan
from cameo_protocol.privacy.releases import round_releases
from cameo_protocol.stages import REVEAL


def test_a_round_opens_the_sum_of_what_hospitals_made_and_is_charged(subject: Subject) -> None:
    with open_wire(subject, subject.hospitals) as wire:
        captured = wire.round(subject.initial())
        assert np.array_equal(captured.total, added(list(wire.made.values())))
        assert all(not np.array_equal(captured.uploads[i], wire.made[i]) for i in wire.everybody)
        spent = [r for _, r in round_releases(wire.plan, "train")]
        assert wire.ledgers[1].spent() == pytest.approx(epsilon(spent, wire.plan.privacy.delta))


def test_a_new_run_begins_where_the_last_has_no_more_rounds(subject: Subject) -> None:
    rounds = subject.plan.training.rounds + subject.plan.training.spare
    with open_wire(subject, [nobody(subject.plan, subject.features)] * 4) as wire:
        runs = {wire.call().run for _ in range(rounds + 1)}
    assert len(runs) == 2


def test_a_refusal_is_the_hospitals_code(subject: Subject) -> None:
    with open_wire(subject, [nobody(subject.plan, subject.features)] * 4) as wire:
        wire.begin()
        with pytest.raises(Refused) as refused:
            wire.ask(1, Packet(REVEAL, b""))
        assert refused.value.code == "out-of-order"
        with pytest.raises(Refused, match="plan-invalid"):
            wire.invite(1, b"{}")


def test_the_plan_is_as_it_was_but_for_the_keys(subject: Subject) -> None:
    with open_wire(subject, subject.hospitals) as wire:
        ours, theirs = wire.plan.model_dump(), subject.plan.model_dump()
        keys = [site.pop("identity") for plan in (ours, theirs) for site in plan["cohort"]["sites"]]
        assert ours == theirs
        assert len(set(keys)) == 8


def test_patients_are_needed_for_every_site(subject: Subject) -> None:
    with pytest.raises(Bug), open_wire(subject, subject.hospitals[:2]):
        pass


def test_the_widest_plan_is_one_that_hospitals_accept(subject: Subject) -> None:
    plan = imprint.widest(subject.plan, subject.features, 64)
    check_plan(plan)
    (task,) = plan.trained()
    assert task.encoded.sigma == subject.plan.trained()[0].encoded.sigma
    assert task.encoded.dim == parameter_count(task, subject.features)


def test_uniform_lanes_and_others() -> None:
    random = np.random.default_rng(1)
    assert uniform_p(random.integers(0, 2**32, 20_000, dtype=np.uint32)) > 1e-3
    small = random.integers(-(2**20), 2**20, 20_000).astype(np.uint32)
    assert uniform_p(small) < 1e-9
