"""The flat vector and the torch modules are one model: same parameters, same order, same scores."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from cameo_models.networks import build, load_parameters, patient_losses
from cameo_models.scoring import risk_scores, segment_memberships, segment_of
from cameo_models.shapes import (
    PROTOTYPE_BOX,
    flatten,
    initial_parameters,
    parameter_count,
    parameter_shapes,
    recalibrated,
    unflatten,
)
from cameo_protocol.errors import Bug
from cameo_protocol.plan import Encoded, RiskTask, SegmentTask

ENCODED = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
LOGISTIC = RiskTask(label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=ENCODED)
MLP = LOGISTIC.model_copy(update={"model": "mlp", "hidden": 5})
SEGMENT = SegmentTask(clusters=3, temperature=0.7, rate=0.1, share=1.0, encoded=ENCODED)
TASKS = [LOGISTIC, MLP, SEGMENT]
F = 4
ROWS = np.random.default_rng(0).uniform(-1, 1, (50, F)).astype(np.float32)
every_task = pytest.mark.parametrize("task", TASKS, ids=["logistic", "mlp", "segment"])


def params_of(task):
    return np.random.default_rng(1).normal(size=parameter_count(task, F))


@every_task
def test_shapes_are_those_of_the_module_in_its_order(task):
    module = build(task, F)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == parameter_shapes(task, F)
    assert [name for name, _ in module.named_parameters()] == list(parameter_shapes(task, F))
    assert sum(p.numel() for p in module.parameters()) == parameter_count(task, F)
    assert all(p.dtype == torch.float64 for p in module.parameters())


@every_task
def test_loading_keeps_the_order_of_the_vector(task):
    module, params = build(task, F), params_of(task)
    load_parameters(module, task, F, params)
    np.testing.assert_array_equal(torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy(), params)


@every_task
def test_flatten_undoes_unflatten(task):
    params = params_of(task)
    np.testing.assert_array_equal(flatten(task, F, unflatten(task, F, params)), params)
    with pytest.raises(Bug, match="model-shape"):
        unflatten(task, F, params[:-1])
    with pytest.raises(Bug, match="model-shape"):
        flatten(task, F, {"other": params})


def test_counts_by_hand():
    assert parameter_count(LOGISTIC, 33) == 34
    assert parameter_count(MLP, 33) == 33 * 5 + 5 + 5 + 1
    assert parameter_count(SEGMENT, 33) == 99
    with pytest.raises(Bug, match="model-features"):
        parameter_count(LOGISTIC, 0)


@every_task
def test_the_start_is_a_public_function_of_task_and_seed(task):
    first = initial_parameters(task, F, 7)
    np.testing.assert_array_equal(first, initial_parameters(task, F, 7))
    assert first.dtype == np.float64
    assert np.abs(first).max() <= 1.0
    assert np.array_equal(first, initial_parameters(task, F, 8)) == (task is LOGISTIC)


def test_starts_by_hand():
    assert not initial_parameters(LOGISTIC, F, 7).any()
    mlp = unflatten(MLP, F, initial_parameters(MLP, F, 7))
    assert not mlp["hidden.bias"].any()
    assert not mlp["output.bias"].any()
    assert np.abs(mlp["hidden.weight"]).max() <= 1 / np.sqrt(F)
    segment = initial_parameters(SEGMENT, F, 7)
    assert np.abs(segment).max() <= PROTOTYPE_BOX
    assert len(np.unique(segment)) == segment.size
    # Frozen: a change of the numbers would make hospitals disagree with running plans.
    np.testing.assert_allclose(segment[:3], [0.02501909, 0.07944276, 0.05513714], atol=1e-8)


def test_logistic_scores_equal_the_formula():
    params = params_of(LOGISTIC)
    expected = 1 / (1 + np.exp(-(ROWS @ params[:F] + params[F])))
    np.testing.assert_allclose(risk_scores(LOGISTIC, F, params, ROWS), expected, rtol=1e-6)


def test_mlp_scores_equal_the_formula():
    params = params_of(MLP)
    part = unflatten(MLP, F, params)
    hidden = np.tanh(ROWS @ part["hidden.weight"].T + part["hidden.bias"])
    expected = 1 / (1 + np.exp(-(hidden @ part["output.weight"].T + part["output.bias"])))
    np.testing.assert_allclose(risk_scores(MLP, F, params, ROWS), expected[:, 0], rtol=1e-6)


def test_memberships_equal_the_formula_and_the_segment_is_the_nearest():
    params = params_of(SEGMENT)
    distance = ((ROWS[:, None] - params.reshape(3, F)[None]) ** 2).sum(-1)
    weight = np.exp(-distance / 0.7)
    expected = weight / weight.sum(axis=1, keepdims=True)
    memberships = segment_memberships(SEGMENT, F, params, ROWS)
    np.testing.assert_allclose(memberships, expected, rtol=1e-6)
    np.testing.assert_array_equal(segment_of(SEGMENT, F, params, ROWS), distance.argmin(axis=1))


def test_no_rows_score():
    none = ROWS[:0]
    assert risk_scores(LOGISTIC, F, params_of(LOGISTIC), none).shape == (0,)
    assert segment_memberships(SEGMENT, F, params_of(SEGMENT), none).shape == (0, 3)
    assert segment_of(SEGMENT, F, params_of(SEGMENT), none).shape == (0,)


@every_task
def test_the_loss_of_a_patient_does_not_depend_on_the_others(task):
    module = build(task, F)
    load_parameters(module, task, F, params_of(task))
    rows = torch.from_numpy(ROWS.astype(np.float64))
    labels = torch.arange(50, dtype=torch.float64) % 2 if isinstance(task, RiskTask) else None
    together = patient_losses(task, module, rows, labels)
    alone = patient_losses(task, module, rows[9:10], None if labels is None else labels[9:10])
    assert together.shape == (50,)
    np.testing.assert_allclose(together[9].item(), alone[0].item(), rtol=1e-12)


def test_a_risk_loss_without_labels_is_a_bug():
    with pytest.raises(Bug, match="loss-labels"):
        patient_losses(LOGISTIC, build(LOGISTIC, F), torch.zeros(1, F, dtype=torch.float64), None)


@pytest.mark.parametrize("task", [LOGISTIC, MLP], ids=["logistic", "mlp"])
def test_recalibration_is_taken_into_the_parameters(task):
    params = params_of(task)
    score = risk_scores(task, F, params, ROWS)
    moved = risk_scores(task, F, recalibrated(task, F, params, 1.5, -0.2), ROWS)
    logit = np.log(score / (1 - score))
    np.testing.assert_allclose(np.log(moved / (1 - moved)), 1.5 * logit - 0.2, rtol=1e-6)
    np.testing.assert_allclose(recalibrated(task, F, params, 1.0, 0.0), params)


def test_planning_needs_no_torch():
    code = "import sys, cameo_models.shapes, cameo_models.features; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )
