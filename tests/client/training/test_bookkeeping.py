"""Book-keeping is Opacus' hooks without the per-record gradients: same clipped sum for every shipped model."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import cameo_client
import cameo_lab
import cameo_models
import cameo_protocol
import cameo_server
from cameo_client.training import bookkeeping
from cameo_client.training.bookkeeping import Batch, clipped_sum, fits
from cameo_client.training.gradients import PatientGradients
from cameo_models.networks import PrototypeLayer
from cameo_models.shapes import parameter_count
from cameo_protocol.plan import Encoded, RiskTask, SegmentTask

ENCODED = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
LOGISTIC = RiskTask(label="l", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=ENCODED)
MLP = LOGISTIC.model_copy(update={"model": "mlp", "hidden": 8})
SEGMENT = SegmentTask(clusters=4, temperature=0.8, rate=0.1, share=1.0, encoded=ENCODED)
every_task = pytest.mark.parametrize("task", [LOGISTIC, MLP, SEGMENT], ids=["logistic", "mlp", "segment"])
F = 9


def patients(task, size, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size) if isinstance(task, RiskTask) else None
    ours = PatientGradients(task, rng.uniform(-1, 1, (size, F)).astype(np.float32), labels)
    return ours, rng.normal(0, 0.7, parameter_count(task, F))


def through_opacus(ours, params, clip):
    """The same object made to take Opacus' way."""
    ours._batches = None
    return ours.clipped_sum(params, clip)


@every_task
@pytest.mark.parametrize("clip", [0.01, 0.7, 90.0])
def test_equals_opacus_hooks(task, clip):
    ours, params = patients(task, 300)
    assert ours._batches is not None, "the shipped models take the fast way"
    np.testing.assert_allclose(ours.clipped_sum(params, clip), through_opacus(ours, params, clip), atol=1e-4, rtol=0)


@every_task
def test_the_fast_way_does_not_call_opacus(task, monkeypatch):
    ours, params = patients(task, 20)
    monkeypatch.setattr(PatientGradients, "_through_opacus", lambda *_: pytest.fail("called"))
    ours.clipped_sum(params, 1.0)


def test_a_deep_network_equals_opacus_hooks():
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    torch.manual_seed(3)
    wide = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    module = nn.Sequential(*wide, nn.Linear(64, 1)).double()
    rows, labels = torch.randn(128, 64, dtype=torch.float64), torch.arange(128, dtype=torch.float64) % 2

    def losses(network, inputs):
        return functional.binary_cross_entropy_with_logits(network(inputs).squeeze(-1), labels, reduction="none")

    assert fits(module)
    ours = clipped_sum(module, Batch.of(rows), losses, 0.3)
    hooked = GradSampleModule(module, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(hooked.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=0.3,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    losses(hooked, rows).sum().backward()
    optimizer.clip_and_accumulate()
    for mine, parameter in zip(ours, hooked.parameters(), strict=True):
        np.testing.assert_allclose(mine, parameter.summed_grad, atol=1e-4, rtol=0)


def test_what_it_does_not_know_does_not_fit():
    assert fits(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)))
    assert fits(PrototypeLayer(2, 3))
    assert not fits(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    assert not fits(nn.Conv1d(1, 1, 1))
    tied = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.weight = tied.weight
    assert not fits(nn.Sequential(tied, other))


@every_task
def test_no_hook_stays_behind(task):
    ours, params = patients(task, 10)
    ours.clipped_sum(params, 1.0)
    assert not any(module._forward_hooks for module in ours._network.modules())


@every_task
def test_the_sum_does_not_depend_on_the_batches(task, monkeypatch):
    ours, params = patients(task, 50)
    whole = ours.clipped_sum(params, 0.5)
    monkeypatch.setattr("cameo_client.training.gradients.ROWS_AT_ONCE", 7)
    parts, _ = patients(task, 50)
    assert len(parts._batches) == 8
    np.testing.assert_allclose(parts.clipped_sum(params, 0.5), whole, atol=1e-12)


def test_prototypes_far_away_and_on_top_of_a_patient():
    rows = np.zeros((3, F), dtype=np.float32)
    for centres in (np.zeros((4, F)), np.full((4, F), 1e12), np.full((4, F), 1e160)):
        total = PatientGradients(SEGMENT, rows).clipped_sum(centres.ravel(), 0.2)
        assert np.isfinite(total).all()
        assert np.linalg.norm(total) <= 3 * 0.2 * (1 + 1e-9)


@pytest.mark.parametrize("package", [cameo_client, cameo_lab, cameo_models, cameo_protocol, cameo_server])
def test_nothing_calls_make_private(package):
    """Opacus' classic entry derives sample rate, normaliser and step count from the private number of patients."""
    (root,) = package.__path__
    for path in Path(root).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert not name.startswith("make_private"), f"{path}:{node.lineno}"
            imported = [a.name for a in node.names] if isinstance(node, ast.ImportFrom | ast.Import) else []
            assert "PrivacyEngine" not in imported, f"{path}:{node.lineno}"


def test_a_planted_fault_is_seen(monkeypatch):
    """Without the bias in the norm, the clipped sum is no longer Opacus'."""
    ours, params = patients(LOGISTIC, 100)
    monkeypatch.setattr(bookkeeping._Pass, "squared_norms", lambda p: p.backprops.square().sum(1) * p.squares)
    wrong = ours.clipped_sum(params, 0.5)
    assert np.abs(wrong - through_opacus(ours, params, 0.5)).max() > 1e-2
