"""The clipped sum of per-record gradients without any per-record gradient: exact, at about the cost of a plain step.

One backward pass gives b, the gradient of each record's loss at the output of each layer. With the layer's input a,
that is enough for every record's gradient norm and, once the norms are known, for the clipped sum:

    linear      gradient b a^T and b           squared norm |b|^2 (|a|^2 + 1)      sum over records of c (b a^T, b)
    prototypes  gradient 2 b_k (m_k - x)       squared norm 4 sum_k b_k^2 |x - m_k|^2      the same, weighted by c

with c = min(1, C / norm). Sources: Goodfellow (2015), "Efficient per-example gradient computations", for the norms;
Bu, Wang, Zha and Karypis, ICML 2023, section 3 (book-keeping), for the sum without a second backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from cameo_models.networks import PrototypeLayer

# Opacus adds the same to every norm, so that a norm of zero divides nothing; the clip is kept strictly.
NORM_FLOOR = 1e-6

Layer = nn.Linear | PrototypeLayer
Losses = Callable[[nn.Module, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Records (N, F), float, and their squared norms (N,), which stay the same from round to round."""

    rows: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> Batch:
        """The batch of these rows."""
        return cls(rows, _squares(rows))


def fits(module: nn.Module) -> bool:
    """Whether every parameter of the module is a linear layer's or a prototype layer's, each with one of its own."""
    known = [p for layer in _layers(module) for p in layer.parameters()]
    return len({id(p) for p in known}) == len(known) == sum(1 for _ in module.parameters())


def clipped_sum(module: nn.Module, batch: Batch, losses: Losses, clip: float) -> list[torch.Tensor]:
    """Sum over records of each record's gradient, scaled to an L2 norm of at most `clip`; one tensor a parameter.

    module: one that `fits`, and uses each layer once, on inputs (N, features). losses: runs the module on N >= 1 rows
    and returns the loss of each, (N,), which reads its own row only. clip: > 0, gradient units.
    A record whose gradient or norm is not finite adds zeros. Equal to Opacus' hooks up to float rounding.
    """
    passes = _forward_and_back(module, batch, losses)
    squared = torch.stack([p.squared_norms() for p in passes]).sum(dim=0)  # sensitive until noised
    weights = (clip / (squared.sqrt() + NORM_FLOOR)).clamp(max=1.0)
    # One number tells whether all are finite; the mask that keeps 0 * inf out of the sum is needed next to never.
    if not bool(squared.sum().isfinite()):
        finite = squared.isfinite()
        weights = torch.where(finite, weights, 0.0)
        passes = [p.without(~finite) for p in passes]
    summed = {parameter: total for p in passes for parameter, total in p.weighted_sums(weights)}
    return [summed[parameter] for parameter in module.parameters()]


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one layer saw. inputs: (N, in), squares: (N,) their squared norms; outputs, backprops: (N, out)."""

    layer: Layer
    inputs: torch.Tensor
    squares: torch.Tensor
    outputs: torch.Tensor
    backprops: torch.Tensor

    def squared_norms(self) -> torch.Tensor:
        """The squared L2 norm of each record's gradient of this layer's parameters, (N,)."""
        if isinstance(self.layer, PrototypeLayer):
            return 4.0 * (self.backprops.square() * self.outputs).sum(dim=1)
        bias = 0.0 if self.layer.bias is None else 1.0
        return _squares(self.backprops) * (self.squares + bias)

    def weighted_sums(self, weights: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each parameter of this layer with the sum over records of weight times gradient. weights: (N,)."""
        weighted = self.backprops * weights[:, None]
        if isinstance(self.layer, PrototypeLayer):
            centres = self.layer.centres
            return [(centres, 2.0 * (weighted.sum(dim=0)[:, None] * centres.detach() - weighted.T @ self.inputs))]
        sums: list[tuple[torch.Tensor, torch.Tensor]] = [(self.layer.weight, weighted.T @ self.inputs)]
        return sums if self.layer.bias is None else [*sums, (self.layer.bias, weighted.sum(dim=0))]

    def without(self, broken: torch.Tensor) -> _Pass:
        """The same with zeros in place of the broken records."""
        row = broken[:, None]
        return _Pass(
            self.layer,
            self.inputs.masked_fill(row, 0.0),
            self.squares.masked_fill(broken, 0.0),
            self.outputs.masked_fill(row, 0.0),
            self.backprops.masked_fill(row, 0.0),
        )


def _forward_and_back(module: nn.Module, batch: Batch, losses: Losses) -> list[_Pass]:
    """One forward pass, and one backward pass that stops at the layers' outputs: no parameter's gradient is made."""
    seen: list[tuple[Layer, torch.Tensor, torch.Tensor]] = []

    def note(layer: Layer, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((layer, inputs[0], output))

    handles = [layer.register_forward_hook(note) for layer in _layers(module)]
    try:
        total = losses(module, batch.rows).sum()
    finally:
        for handle in handles:
            handle.remove()
    backprops = torch.autograd.grad(total, [output for _, _, output in seen])
    return [
        _Pass(
            layer,
            inputs.detach(),
            batch.squares if inputs is batch.rows else _squares(inputs.detach()),
            output.detach(),
            back,
        )
        for (layer, inputs, output), back in zip(seen, backprops, strict=True)
    ]


def _layers(module: nn.Module) -> list[Layer]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | PrototypeLayer)]


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm of each row."""
    squares: torch.Tensor = torch.linalg.vector_norm(rows, dim=1).square()
    return squares
