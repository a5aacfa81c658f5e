"""Clipped sums: equal to a plain loop over patients, to the closed form, and safe at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cameo_client.training import gradients
from cameo_client.training.gradients import PatientGradients
from cameo_models.networks import build, load_parameters, patient_losses
from cameo_models.shapes import initial_parameters, parameter_count
from cameo_protocol.errors import Bug
from cameo_protocol.plan import Encoded, RiskTask, SegmentTask

ENCODED = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
LOGISTIC = RiskTask(label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=ENCODED)
MLP = LOGISTIC.model_copy(update={"model": "mlp", "hidden": 5})
SEGMENT = SegmentTask(clusters=3, temperature=0.7, rate=0.1, share=1.0, encoded=ENCODED)
TASKS = [LOGISTIC, MLP, SEGMENT]
F = 6


def data(task, size, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1, 1, size=(size, F)).astype(np.float32)
    labels = rng.integers(0, 2, size) if isinstance(task, RiskTask) else None
    return rows, labels


def params_of(task, seed=1):
    size = parameter_count(task, F)
    return initial_parameters(task, F, 3) + np.random.default_rng(seed).normal(0, 0.5, size)


def plain_loop(task, rows, labels, params, clip, groups=None):
    """The definition, without Opacus: one backward pass a patient."""
    groups = np.arange(len(rows)) if groups is None else groups
    total = np.zeros(parameter_count(task, F))
    for patient in np.unique(groups):
        module = build(task, F)
        load_parameters(module, task, F, params)
        mine = groups == patient
        chosen = None if labels is None else torch.from_numpy(labels[mine].astype(np.float64))
        patient_losses(task, module, torch.from_numpy(rows[mine].astype(np.float64)), chosen).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in module.parameters()]).numpy()
        if np.isfinite(gradient).all():
            total += gradient * min(1.0, clip / max(np.linalg.norm(gradient), 1e-300))
    return total


@pytest.mark.parametrize("task", TASKS, ids=["logistic", "mlp", "segment"])
@pytest.mark.parametrize("clip", [0.05, 0.5, 50.0])
def test_equals_a_plain_loop_over_patients(task, clip):
    rows, labels = data(task, 40)
    params = params_of(task)
    ours = PatientGradients(task, rows, labels).clipped_sum(params, clip)
    np.testing.assert_allclose(ours, plain_loop(task, rows, labels, params, clip), atol=1e-4)


def test_logistic_equals_the_closed_form():
    rows, labels = data(LOGISTIC, 200)
    params = params_of(LOGISTIC)
    inputs = np.hstack([rows, np.ones((200, 1))])
    each = (1 / (1 + np.exp(-inputs @ params)) - labels)[:, None] * inputs
    each *= np.minimum(1, 0.6 / np.linalg.norm(each, axis=1))[:, None]
    np.testing.assert_allclose(
        PatientGradients(LOGISTIC, rows, labels).clipped_sum(params, 0.6), each.sum(axis=0), atol=1e-4
    )


def test_segment_equals_the_closed_form():
    rows, _ = data(SEGMENT, 200)
    centres = params_of(SEGMENT).reshape(3, F)
    difference = centres[None] - rows[:, None]
    weight = np.exp(-(difference**2).sum(-1) / 0.7)
    weight /= weight.sum(axis=1, keepdims=True)
    each = (2 * weight[:, :, None] * difference).reshape(200, -1)
    each *= np.minimum(1, 0.6 / np.linalg.norm(each, axis=1))[:, None]
    ours = PatientGradients(SEGMENT, rows).clipped_sum(centres.ravel(), 0.6)
    np.testing.assert_allclose(ours, each.sum(axis=0), atol=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=["logistic", "mlp", "segment"])
def test_the_records_of_a_patient_are_clipped_together(task):
    rows, labels = data(task, 30)
    groups = np.random.default_rng(2).integers(100, 108, 30)
    params = params_of(task)
    ours = PatientGradients(task, rows, labels, groups).clipped_sum(params, 0.4)
    np.testing.assert_allclose(ours, plain_loop(task, rows, labels, params, 0.4, groups), atol=1e-4)
    assert np.linalg.norm(ours) <= 0.4 * 8


def test_one_patient_with_many_records_moves_the_sum_by_the_clip_only():
    rows, labels = data(LOGISTIC, 500)
    params = params_of(LOGISTIC)
    ours = PatientGradients(LOGISTIC, rows, labels, np.zeros(500, dtype=int)).clipped_sum(params, 0.3)
    assert np.linalg.norm(ours) <= 0.3


@pytest.mark.parametrize("task", TASKS, ids=["logistic", "mlp", "segment"])
@pytest.mark.parametrize("size", [0, 1])
def test_no_patient_and_one_patient(task, size):
    rows, labels = data(task, size)
    params = params_of(task)
    ours = PatientGradients(task, rows, labels).clipped_sum(params, 1.0)
    assert ours.shape == (parameter_count(task, F),)
    np.testing.assert_allclose(ours, plain_loop(task, rows, labels, params, 1.0), atol=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=["logistic", "mlp", "segment"])
@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e38])
def test_a_broken_record_adds_nothing_beyond_the_clip(task, broken):
    rows, labels = data(task, 20)
    params = params_of(task)
    others = PatientGradients(task, np.delete(rows, 7, 0), None if labels is None else np.delete(labels, 7))
    rows[7, 2] = broken
    ours = PatientGradients(task, rows, labels).clipped_sum(params, 0.5)
    moved = np.linalg.norm(ours - others.clipped_sum(params, 0.5))
    assert moved <= 0.5 + 1e-9
    assert np.isfinite(broken) or moved < 1e-12


def test_parameters_without_a_finite_gradient_give_zeros():
    rows, labels = data(LOGISTIC, 20)
    assert not PatientGradients(LOGISTIC, rows, labels).clipped_sum(np.full(F + 1, np.nan), 1.0).any()


@pytest.mark.parametrize("task", TASKS, ids=["logistic", "mlp", "segment"])
@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_the_sum_does_not_depend_on_the_chunk(task, at_once, monkeypatch):
    rows, labels = data(task, 50)
    groups = np.random.default_rng(4).integers(0, 20, 50)
    params = params_of(task)
    whole = PatientGradients(task, rows, labels, groups).clipped_sum(params, 0.5)
    monkeypatch.setattr(gradients, "RECORDS_AT_ONCE", at_once)
    split = PatientGradients(task, rows, labels, groups).clipped_sum(params, 0.5)
    np.testing.assert_allclose(split, whole, atol=1e-12)


def test_the_same_object_serves_every_round():
    rows, labels = data(LOGISTIC, 30)
    ours = PatientGradients(LOGISTIC, rows, labels)
    first = ours.clipped_sum(params_of(LOGISTIC), 0.5)
    ours.clipped_sum(params_of(LOGISTIC, seed=9), 0.1)
    np.testing.assert_array_equal(first, ours.clipped_sum(params_of(LOGISTIC), 0.5))


def test_misuse_is_a_bug():
    rows, labels = data(LOGISTIC, 5)
    with pytest.raises(Bug, match="gradients-labels"):
        PatientGradients(LOGISTIC, rows)
    with pytest.raises(Bug, match="gradients-labels"):
        PatientGradients(SEGMENT, rows, labels)
    with pytest.raises(Bug, match="gradients-shape"):
        PatientGradients(LOGISTIC, rows, labels[:3])
    with pytest.raises(Bug, match="gradients-shape"):
        PatientGradients(LOGISTIC, rows[0], labels)
    for clip in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(Bug, match="gradients-clip"):
            PatientGradients(LOGISTIC, rows, labels).clipped_sum(params_of(LOGISTIC), clip)
    with pytest.raises(Bug, match="model-shape"):
        PatientGradients(LOGISTIC, rows, labels).clipped_sum(np.zeros(3), 1.0)
