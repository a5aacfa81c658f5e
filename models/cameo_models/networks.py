"""The networks as torch modules, and the loss of each patient alone.

Both losses are sums over patients of a term that reads one patient only, which per-patient clipping needs:
nothing here mixes rows (no batch norm, no batch statistics).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from cameo_models.shapes import ModelTask, Parameters, unflatten
from cameo_protocol.errors import Bug
from cameo_protocol.plan import SegmentTask


class RiskNetwork(nn.Module):
    """Logistic regression (hidden = 0) or one tanh layer. Input (N, F), output: the logit of each row, (N,)."""

    def __init__(self, features: int, hidden: int = 0) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden) if hidden else None
        self.output = nn.Linear(hidden or features, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N,) logits."""
        if self.hidden is not None:
            rows = torch.tanh(self.hidden(rows))
        logits: torch.Tensor = self.output(rows)
        return logits.squeeze(-1)


class PrototypeLayer(nn.Module):
    """K centres in feature space. Input (N, F), output: squared Euclidean distances (N, K)."""

    def __init__(self, features: int, clusters: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(clusters, features))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N, K)."""
        # |x|^2 + |m|^2 - 2 x m by one matrix product; rounding may leave a distance of zero just below it.
        squares = rows.square().sum(dim=1)[:, None] + self.centres.square().sum(dim=1)
        return torch.addmm(squares, rows, self.centres.T, alpha=-2.0).clamp(min=0.0)


class SegmentNetwork(nn.Module):
    """A mixture of K equal prototypes with soft assignment. Input (N, F), output: distances over temperature (N, K)."""

    def __init__(self, features: int, clusters: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.prototypes = PrototypeLayer(features, clusters)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N, K)."""
        distances: torch.Tensor = self.prototypes(rows)
        return distances / self.temperature


def build(task: ModelTask, features: int) -> RiskNetwork | SegmentNetwork:
    """The task's module in float64. Its parameters are those of `shapes.parameter_shapes`, in that order."""
    if isinstance(task, SegmentTask):
        return SegmentNetwork(features, task.clusters, task.temperature).double()
    return RiskNetwork(features, task.hidden if task.model == "mlp" else 0).double()


def load_parameters(module: nn.Module, task: ModelTask, features: int, params: Parameters) -> None:
    """Put a flat vector (d,) into a module made by `build`."""
    tensors = unflatten(task, features, params)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(tensors[name]))


def patient_losses(task: ModelTask, module: nn.Module, rows: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """Loss of each row, (N,). Risk (labels: (N,) of 0 or 1): cross entropy. Segment (no labels): free energy.

    module: made by `build` for this task, or a wrapper of it. Segment: -T log sum_k exp(-|x - m_k|^2 / T), whose
    gradient is that of soft k-means; T -> 0 is k-means.
    """
    output: torch.Tensor = module(rows)
    if isinstance(task, SegmentTask):
        return -task.temperature * torch.logsumexp(-output, dim=-1)
    if labels is None:
        raise Bug("loss-labels", what="a risk task needs a label for every row")
    return functional.binary_cross_entropy_with_logits(output, labels, reduction="none")
