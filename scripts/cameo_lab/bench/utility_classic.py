"""What others do, on the same splits: pooled and single-hospital regression, and classic Opacus with FedAvg."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cameo_lab.bench.utility_data import Bools, UtilitySet
from cameo_lab.bench.utility_private import Scores
from cameo_protocol.privacy.calibration import Share, calibrate


def pooled_scores(data: UtilitySet, held_out: Sequence[Bools]) -> Scores:
    """Logistic regression without privacy on the training patients of all hospitals in one place."""
    rows = np.concatenate([s.features[~h] for s, h in zip(data.sites, held_out, strict=True)])
    labels = np.concatenate([s.labels[~h] for s, h in zip(data.sites, held_out, strict=True)])
    return [_regress(rows, labels, s.features[h]) for s, h in zip(data.sites, held_out, strict=True)]


def alone_scores(data: UtilitySet, held_out: Sequence[Bools]) -> Scores:
    """Logistic regression without privacy in each hospital on its own patients; each scores its own held-out ones."""
    return [_regress(s.features[~h], s.labels[~h], s.features[h]) for s, h in zip(data.sites, held_out, strict=True)]


def _regress(
    rows: npt.NDArray[np.float32], labels: npt.NDArray[np.float64], wanted: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        return np.full(len(wanted), float(labels.mean()))
    model = LogisticRegression(max_iter=5000).fit(rows.astype(np.float64), labels)
    scores: npt.NDArray[np.float64] = model.predict_proba(wanted.astype(np.float64))[:, 1]
    return scores


@dataclass(frozen=True, kw_only=True)
class Classic:
    """A recipe of local DP-SGD with FedAvg: rounds of `steps` noisy steps, Poisson rate q (1: full batch)."""

    rounds: int
    steps: int
    q: float
    rate: float
    clip: float


# Tuned like ours on splits 100-104 at epsilon 1 and delta 1e-3; docs/benchmarks.md says how.
TUNED = {
    "heart": Classic(rounds=10, steps=2, q=1.0, rate=2.0, clip=1.0),
    "support2": Classic(rounds=40, steps=2, q=0.3, rate=4.0, clip=1.0),
    "cardiometabolic": Classic(rounds=5, steps=5, q=1.0, rate=1.0, clip=1.0),
}


def classic_scores(
    recipe: Classic, epsilon: float, delta: float, data: UtilitySet, held_out: Sequence[Bools], seed: int
) -> Scores:
    """Each hospital takes DP-SGD steps through Opacus, with its own (epsilon, delta) noise; weights are averaged.

    As usual, and to its favour: hospitals weigh by, and normalise with, their exact number of patients, which no
    epsilon covers; the noise comes from torch's own generator.
    """
    sigma = calibrate(epsilon, delta, [Share(name="c", rounds=recipe.rounds * recipe.steps, weight=1.0, q=recipe.q)])
    torch.manual_seed(seed)
    rows = [torch.from_numpy(s.features[~h]) for s, h in zip(data.sites, held_out, strict=True)]
    labels = [torch.from_numpy(s.labels[~h]).float() for s, h in zip(data.sites, held_out, strict=True)]
    weights = np.array([len(each) for each in rows]) / sum(len(each) for each in rows)
    model = torch.nn.Linear(rows[0].shape[1], 1)
    shared = [torch.zeros_like(p) for p in model.parameters()]
    for _ in range(recipe.rounds):
        locals_ = [_local(recipe, sigma["c"], shared, *site) for site in zip(rows, labels, strict=True)]
        shared = [sum(w * p for w, p in zip(weights, each, strict=True)) for each in zip(*locals_, strict=True)]
    weight, bias = (p.numpy().astype(np.float64) for p in shared)
    return [
        1 / (1 + np.exp(-(s.features[h].astype(np.float64) @ weight[0] + bias[0])))
        for s, h in zip(data.sites, held_out, strict=True)
    ]


def _local(
    recipe: Classic, sigma: float, shared: Sequence[torch.Tensor], rows: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    """One hospital's weights after its local steps."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    linear = torch.nn.Linear(rows.shape[1], 1)
    with torch.no_grad():
        for parameter, value in zip(linear.parameters(), shared, strict=True):
            parameter.copy_(value)
    module = GradSampleModule(linear, loss_reduction="mean")
    optimizer = DPOptimizer(
        torch.optim.SGD(module.parameters(), lr=recipe.rate),
        noise_multiplier=sigma,
        max_grad_norm=recipe.clip,
        expected_batch_size=max(1, math.floor(recipe.q * len(rows))),
        loss_reduction="mean",
    )
    for _ in range(recipe.steps):
        drawn = torch.rand(len(rows)) < recipe.q
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            if bool(drawn.any()):
                logits = module(rows[drawn]).squeeze(-1)
                functional.binary_cross_entropy_with_logits(logits, labels[drawn]).backward()  # type: ignore[no-untyped-call]
            else:
                for parameter in module.parameters():
                    parameter.grad_sample = torch.zeros(0, *parameter.shape)
        optimizer.step()
    return [parameter.detach().clone() for parameter in linear.parameters()]
