"""Sums of clipped per-patient gradients.

Two ways, equal to 1e-4 and tested to be: with one record a patient, book-keeping (`bookkeeping`), at about the cost of
a plain step; with several, or for a layer that it does not know, Opacus gives the gradient of each record
(`GradSampleModule`), and clips and adds them (`DPOptimizer`). Opacus adds no noise here (integer noise is added once,
after rounding) and it chooses nothing: `make_private` is not used, because it derives sample rate, normaliser and step
count from the private number of patients.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.grad_sample import register_grad_sampler
from opacus.optimizers import DPOptimizer

from cameo_client.training import bookkeeping
from cameo_models.features import Features
from cameo_models.networks import PrototypeLayer, build, load_parameters, patient_losses
from cameo_models.shapes import ModelTask, Parameters, parameter_count
from cameo_protocol.errors import Bug
from cameo_protocol.plan import RiskTask

# Bounds memory: Opacus holds one gradient a record, so 4,096 records of a model with d = 10,000 take 330 MB.
RECORDS_AT_ONCE = 4096
# Book-keeping holds a few numbers a record and layer; more at once are no faster.
ROWS_AT_ONCE = 1 << 14


class PatientGradients:
    """The records of one hospital for one task, ready to give the clipped sum of a round.

    task: a risk or segment task. rows: features (N, F). labels: (N,) of 0 or 1 for risk, None for segment.
    groups: (N,) integers that say whose record each row is; None = one record a patient. A patient's
    gradient is the sum over that patient's records, clipped once.
    """

    def __init__(
        self,
        task: ModelTask,
        rows: Features,
        labels: NDArray[np.generic] | None = None,
        groups: NDArray[np.integer] | None = None,
    ) -> None:
        if rows.ndim != 2 or rows.shape[1] < 1:
            raise Bug("gradients-shape", what="the features are not a matrix with at least one column")
        if (labels is None) == isinstance(task, RiskTask):
            raise Bug("gradients-labels", what="a risk task needs labels, a segment task has none")
        if any(extra is not None and extra.shape != (len(rows),) for extra in (labels, groups)):
            raise Bug("gradients-shape", what="labels and groups need one entry a record")
        self._task = task
        self._features = rows.shape[1]
        order, self._owner = _by_patient(len(rows), groups)
        self._rows = torch.from_numpy(np.asarray(rows[order], dtype=np.float64))
        self._labels = None if labels is None else torch.from_numpy(np.asarray(labels[order], dtype=np.float64))
        self._network = build(task, self._features)
        one_record_each = len(self._owner) == 0 or int(self._owner[-1]) + 1 == len(self._owner)
        self._batches = self._cut() if one_record_each and bookkeeping.fits(self._network) else None

    def clipped_sum(self, params: Parameters, clip: float) -> Parameters:
        """Sum over patients of each patient's gradient at `params`, scaled to an L2 norm of at most `clip`.

        params: (d,) float64. clip: > 0, gradient units. Returns (d,) float64; no patients -> zeros. A patient
        whose gradient is not finite adds zeros, so a broken record cannot remove the guarantee.
        Guarantee: one patient more or less changes the result by at most `clip` in L2 (plus float64 rounding).
        Source: Abadi et al. (2016), Algorithm 1, clipping step.
        """
        if not 0 < clip < np.inf:
            raise Bug("gradients-clip", what="the clip must be positive and finite")
        load_parameters(self._network, self._task, self._features, params)
        if self._batches is None:
            return self._through_opacus(clip)
        total = torch.zeros(parameter_count(self._task, self._features), dtype=torch.float64)
        for batch, labels in self._batches:
            losses = partial(self._losses, labels)
            sums = bookkeeping.clipped_sum(self._network, batch, losses, clip)  # sensitive until noised
            total += torch.cat([part.flatten() for part in sums])
        flat: Parameters = total.numpy()
        return flat

    def _cut(self) -> list[tuple[bookkeeping.Batch, torch.Tensor | None]]:
        """The records in batches for book-keeping, with their labels."""
        starts = range(0, len(self._rows), ROWS_AT_ONCE)
        labels = [None if self._labels is None else self._labels[at : at + ROWS_AT_ONCE] for at in starts]
        batches = [bookkeeping.Batch.of(self._rows[at : at + ROWS_AT_ONCE]) for at in starts]
        return list(zip(batches, labels, strict=True))

    def _losses(self, labels: torch.Tensor | None, module: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        return patient_losses(self._task, module, rows, labels)

    def _through_opacus(self, clip: float) -> Parameters:
        """The clipped sum by the gradient of each record; a patient's records are added up before they are clipped."""
        module = GradSampleModule(copy.deepcopy(self._network), loss_reduction="sum", strict=True)
        optimizer = DPOptimizer(
            torch.optim.SGD(module.parameters(), lr=0.0),
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        for start, stop in _slices(self._owner):
            self._add(module, start, stop)
            optimizer.clip_and_accumulate()
            _forget_samples(module)
        return _summed(module, parameter_count(self._task, self._features))

    def _add(self, module: GradSampleModule, start: int, stop: int) -> None:
        """Leave the gradient of each patient of records [start, stop) in `grad_sample`, finite or zero."""
        labels = None if self._labels is None else self._labels[start:stop]
        with warnings.catch_warnings():
            # The inputs are data, not parameters: that they need no gradient is intended.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            torch.autograd.backward(patient_losses(self._task, module, self._rows[start:stop], labels).sum())
        owner = self._owner[start:stop] - self._owner[start]
        patients = int(owner[-1]) + 1
        parameters = list(module.parameters())
        samples = []
        for parameter in parameters:
            sample = parameter.grad_sample  # sensitive until noised
            if patients < stop - start:
                sample = torch.zeros(patients, *sample.shape[1:], dtype=sample.dtype).index_add_(0, owner, sample)
            samples.append(sample)
        finite = torch.stack([sample.flatten(1).isfinite().all(dim=1) for sample in samples]).all(dim=0)
        for parameter, sample in zip(parameters, samples, strict=True):
            keep = finite.reshape(-1, *[1] * (sample.dim() - 1))
            parameter.grad_sample = torch.where(keep, sample, torch.zeros_like(sample))


@register_grad_sampler(PrototypeLayer)  # type: ignore[untyped-decorator]
def prototype_grad_sample(
    layer: PrototypeLayer, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Per-record gradient of squared distances: d |x - m_k|^2 / d m_k = 2 (m_k - x), weighted by the backprop.

    activations: [(N, F)]; backprops: (N, K). Returns {centres: (N, K, F)}.
    """
    difference = layer.centres[None, :, :] - activations[0][:, None, :]
    return {layer.centres: 2.0 * backprops[:, :, None] * difference.detach()}


def _by_patient(size: int, groups: NDArray[np.integer] | None) -> tuple[NDArray[np.int64], torch.Tensor]:
    """(order that brings a patient's records together, owner of each ordered record as 0, 1, 2, ...)."""
    if groups is None:
        return np.arange(size), torch.arange(size)
    order = np.argsort(groups, kind="stable")
    return order, torch.from_numpy(np.unique(groups[order], return_inverse=True)[1].astype(np.int64))


def _slices(owner: torch.Tensor) -> Iterator[tuple[int, int]]:
    """[start, stop) of runs of about RECORDS_AT_ONCE records; a patient's records are never split."""
    size, start = len(owner), 0
    while start < size:
        stop = min(start + RECORDS_AT_ONCE, size)
        stop = int(torch.searchsorted(owner, owner[stop - 1], right=True))
        yield start, stop
        start = stop


def _forget_samples(module: GradSampleModule) -> None:
    for parameter in module.parameters():
        parameter.grad_sample = None
        parameter.grad = None


def _summed(module: GradSampleModule, size: int) -> Parameters:
    """The accumulated clipped sums as one vector (size,); zeros when there was no patient."""
    sums = [parameter.summed_grad for parameter in module.parameters()]  # sensitive until noised
    if any(part is None for part in sums):
        return np.zeros(size)
    flat: Parameters = torch.cat([part.detach().flatten() for part in sums]).numpy()
    return flat
