"""From gradients back to records: exact without noise, for every model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attack_subject import FEATURES, small_subject

from cameo_client.training.gradients import PatientGradients
from cameo_lab.audit.attacks.gradients import View, hits, invert
from cameo_lab.audit.subject import Subject
from cameo_protocol.plan import RiskTask


def view_of(subject: Subject, rows: Any, outcome: Any, clip: float, noise: float = 0.0) -> View:
    """Each target's own gradient, as a coordinator would get it where nobody else is in the sum."""
    model, spans, random = subject.initial(), subject.plan.parameter_spans(), np.random.default_rng(2)
    sums: dict[str, Any] = {}
    for task in subject.plan.trained():
        made = []
        for row, label in zip(rows, outcome, strict=True):
            labels = np.array([label]) if isinstance(task, RiskTask) else None
            one = PatientGradients(task, row[None, :], labels).clipped_sum(model[spans[task.name]], clip)
            made.append(one + noise * random.standard_normal(one.shape))
        sums[task.name] = np.stack(made)
    return View(model, sums)


@pytest.mark.parametrize("shape", [{}, {"model": "mlp"}, {"segment": False}])
@pytest.mark.parametrize("steps", [0, 15])
@pytest.mark.parametrize("clip", [1e9, 0.1])
def test_a_risk_model_gives_the_record_away_in_closed_form(shape: Any, steps: int, clip: float) -> None:
    subject, random = small_subject(**shape), np.random.default_rng(1)
    rows, outcome = random.uniform(-1, 1, (8, FEATURES)).astype(np.float32), random.integers(0, 2, 8).astype(float)
    guess = invert(subject.plan, FEATURES, view_of(subject, rows, outcome, clip), steps)
    assert guess.shape == rows.shape
    assert hits(guess, rows) == 8


@pytest.mark.parametrize("clip", [1e9, 0.5])
def test_a_segment_model_gives_the_record_away_by_matching(clip: float) -> None:
    subject, random = small_subject(risk=False), np.random.default_rng(1)
    rows = random.uniform(-1, 1, (8, FEATURES)).astype(np.float32)
    view = view_of(subject, rows, np.zeros(8), clip)
    assert hits(invert(subject.plan, FEATURES, view, 0), rows) == 0
    assert hits(invert(subject.plan, FEATURES, view, 60), rows) == 8


def test_noise_as_wide_as_a_patient_stops_it() -> None:
    subject, random = small_subject(), np.random.default_rng(1)
    rows, outcome = random.uniform(-1, 1, (8, FEATURES)).astype(np.float32), random.integers(0, 2, 8).astype(float)
    guess = invert(subject.plan, FEATURES, view_of(subject, rows, outcome, 1.0, noise=1.0), 15)
    assert hits(guess, rows) == 0
    assert np.abs(guess).max() <= 1


def test_no_gradient_at_all_gives_a_guess_of_nothing() -> None:
    subject = small_subject(model="mlp")
    sums = {task.name: np.zeros((2, task.encoded.dim)) for task in subject.plan.trained()}
    guess = invert(subject.plan, FEATURES, View(subject.initial(), sums), 3)
    assert np.isfinite(guess).all()


def test_what_counts_as_reconstructed() -> None:
    truth = np.zeros((3, 4))
    guess = np.array([[0.1] * 4, [0.11] * 4, [0.2, 0, 0, 0]])
    assert hits(guess, truth) == 2
