"""The product withstands every attack, and every control arm breaks."""

from __future__ import annotations

import os

import numpy as np
import pytest
from attack_subject import small_subject

from cameo_lab.audit.attacks.table import ATTACKS
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.subject import Subject

FULL = bool(os.environ.get("CAMEO_FULL"))
EFFORTS: tuple[Effort, ...] = ("quick", "full") if FULL else ("quick",)


def run(name: str, subject: Subject, effort: Effort = "quick", seed: int = 1) -> Finding:
    return ATTACKS[name](subject, np.random.default_rng(seed), effort)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_product_withstands_it_and_the_control_does_not(name: str, effort: Effort, subject: Subject) -> None:
    finding = run(name, subject, effort)
    print(finding)
    assert finding.name == name
    assert finding.control_failed, finding
    assert finding.passed, finding
    assert finding.control
    assert finding.seconds > 0


def test_a_cohort_in_which_all_must_answer_refuses_a_second_sum() -> None:
    subject = small_subject(hospitals=3)
    finding = run("cohort-differencing", subject)
    assert finding.passed
    assert finding.figures["second_sum_refused"] == finding.figures["trials"]
    assert run("aggregate-of-one", subject).passed


@pytest.mark.parametrize("shape", [{"model": "mlp"}, {"risk": False}])
def test_other_models_are_attacked_as_well(shape: dict[str, object]) -> None:
    subject = small_subject(**shape)  # type: ignore[arg-type]
    for name in ("imprint", "cohort-differencing", "floating-point", "crafted-first-model"):
        finding = run(name, subject)
        assert finding.passed, finding
