"""From a gradient back to the record that made it: what an honest-but-curious coordinator computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from cameo_lab.audit.subject import Floats
from cameo_models.networks import build, load_parameters, patient_losses
from cameo_models.shapes import ModelTask, unflatten
from cameo_protocol.plan import RiskTask, RunPlan

# A feature lies in [-1, 1]; half of that range, 1.0 RMS, is what a coin gets, and guessing zeros gets 0.58.
RECONSTRUCTED_RMS = 0.1


@dataclass(frozen=True, eq=False)
class View:
    """What an attacker holds about some patients. parameters: the broadcast model, joint (d,).

    sums: trained task name -> (targets, dim): for each target, a noisy or clear gradient in which nobody else is.
    """

    parameters: Floats
    sums: Mapping[str, Floats]


def invert(plan: RunPlan, features: int, view: View, steps: int) -> Floats:
    """The best guess of each target's features, (targets, F) in [-1, 1].

    steps: of gradient matching after the closed form. The attacker knows the plan, the model and that one patient
    alone is in the sum; nothing about the patient.
    Sources: Geiping et al., NeurIPS 2020, "Inverting Gradients", proposition 3.1 (the input of a biased linear layer
    is the ratio of its two gradients) and section 4 (matching by cosine, which clipping does not change); Zhu et al.,
    NeurIPS 2019, "Deep Leakage from Gradients", section 3; Zhao et al. 2020, "iDLG" (the label is a gradient's sign).
    """
    guess = np.zeros((len(next(iter(view.sums.values()))), features))
    for task in plan.trained():
        if isinstance(task, RiskTask):
            guess = _closed_form(task, features, view.sums[task.name])
    return _matched(plan, features, view, np.clip(guess, -1.0, 1.0), steps) if steps else np.clip(guess, -1.0, 1.0)


def hits(guess: Floats, truth: npt.NDArray[np.floating[Any]]) -> int:
    """How many targets are reconstructed: features (targets, F) off by at most `RECONSTRUCTED_RMS` RMS."""
    return int((np.sqrt(np.mean((guess - truth) ** 2, axis=1)) <= RECONSTRUCTED_RMS).sum())


def _closed_form(task: RiskTask, features: int, sums: Floats) -> Floats:
    """Least squares of x in  weight gradient = bias gradient * x,  over the units of the first layer."""
    layer = "hidden" if task.model == "mlp" else "output"
    rows = []
    for vector in sums:
        tensors = unflatten(task, features, vector)
        weight, bias = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
        rows.append(bias @ weight / max(float(bias @ bias), np.finfo(np.float64).tiny))
    return np.array(rows)


def _matched(plan: RunPlan, features: int, view: View, start: Floats, steps: int) -> Floats:
    """Move x until its gradients point where the view's do."""
    spans = plan.parameter_spans()
    losses = [
        _distance(task, features, view.parameters[spans[task.name]], torch.from_numpy(view.sums[task.name]))
        for task in plan.trained()
    ]
    guess = torch.tensor(start, requires_grad=True)
    # The valley is flat where prototypes lie close together, so the curvature is needed.
    optimizer = torch.optim.LBFGS(
        [guess], max_iter=steps, history_size=20, tolerance_grad=1e-14, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def distance() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.stack([loss(guess).sum() for loss in losses]).sum()
        torch.autograd.backward(total)
        return total

    optimizer.step(distance)  # type: ignore[no-untyped-call]
    found: Floats = np.clip(np.nan_to_num(guess.detach().numpy()), -1.0, 1.0)
    return found


class _Called(nn.Module):
    """A module with parameters given from outside, as `patient_losses` calls it."""

    def __init__(self, module: nn.Module, parameters: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._of = [module]  # in a list, so that its own parameters are not ours
        self._given = parameters

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """As the module, at the given parameters."""
        output: torch.Tensor = functional_call(self._of[0], self._given, (rows,))
        return output


def _distance(task: ModelTask, features: int, parameters: Floats, seen: torch.Tensor) -> Any:
    """x (targets, F) -> 1 - cosine between its gradients and the seen ones, (targets,)."""
    module = build(task, features)
    load_parameters(module, task, features, parameters)
    given = {name: value.detach() for name, value in module.named_parameters()}

    def loss(at: dict[str, torch.Tensor], row: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        labels = label[None] if isinstance(task, RiskTask) else None
        return patient_losses(task, _Called(module, at), row[None], labels)[0]

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    # The last lane of a risk model is the output bias, whose gradient is score - label.
    labels = (seen[:, -1] < 0).double()

    def distance(rows: torch.Tensor) -> torch.Tensor:
        made = gradients(given, rows, labels)
        flat = torch.cat([made[name].flatten(1) for name in given], dim=1)
        return 1 - torch.nn.functional.cosine_similarity(flat, seen, dim=1)

    return distance
