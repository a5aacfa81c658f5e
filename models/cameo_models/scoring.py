"""Scores of patients under a model given as a flat vector; the same code in evaluation, publishing and tags."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cameo_models.features import Features
from cameo_models.networks import build, load_parameters
from cameo_models.shapes import ModelTask, Parameters
from cameo_protocol.plan import RiskTask, SegmentTask

ROWS_AT_ONCE = 1 << 16


def risk_scores(task: RiskTask, features: int, params: Parameters, rows: Features) -> NDArray[np.float64]:
    """The risk of each row of (N, F), in [0, 1], shape (N,). N = 0 works."""
    return _forward(task, features, params, rows, torch.sigmoid).reshape(len(rows))


def segment_memberships(task: SegmentTask, features: int, params: Parameters, rows: Features) -> NDArray[np.float64]:
    """How much each row of (N, F) belongs to each of K segments, (N, K); rows add up to 1."""
    memberships = _forward(task, features, params, rows, lambda scaled: torch.softmax(-scaled, dim=-1))
    return memberships.reshape(len(rows), task.clusters)


def segment_of(task: SegmentTask, features: int, params: Parameters, rows: Features) -> NDArray[np.int64]:
    """The segment of each row of (N, F): the index of its nearest prototype, (N,), 0 <= index < K."""
    nearest: NDArray[np.int64] = segment_memberships(task, features, params, rows).argmax(axis=1)
    return nearest


def _forward(
    task: ModelTask, features: int, params: Parameters, rows: Features, last: Callable[[torch.Tensor], torch.Tensor]
) -> NDArray[np.float64]:
    module = build(task, features)
    load_parameters(module, task, features, params)
    with torch.no_grad():
        parts = [
            last(module(torch.from_numpy(np.asarray(rows[at : at + ROWS_AT_ONCE], dtype=np.float64))))
            for at in range(0, len(rows), ROWS_AT_ONCE)
        ]
    scores: NDArray[np.float64] = torch.cat(parts).numpy() if parts else np.zeros(0)
    return scores
