"""The coordinator's side of learning: from an opened sum to the next global model. Pure, and all post-processing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cameo_models.shapes import initial_parameters
from cameo_protocol.plan import RunPlan
from cameo_protocol.secagg.encoding import decode
from cameo_server.optimizer import Descent, advance, from_arrays, start, to_arrays

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Models:
    """All models of a run on their way: task name -> descent."""

    descents: Mapping[str, Descent]

    @classmethod
    def initial(cls, plan: RunPlan, features: int) -> Models:
        """The public starting point, which hospitals compute for themselves and compare."""
        return cls({t.name: start(initial_parameters(t, features, plan.seed)) for t in plan.trained()})

    def broadcast(self, plan: RunPlan) -> bytes:
        """The current parameters of all tasks in plan order, little-endian float32."""
        return _joint([self.descents[task.name].params for task in plan.trained()])

    def result(self, plan: RunPlan) -> bytes:
        """The parameters to evaluate and publish (the mean of the late iterates), little-endian float32."""
        return _joint([self.descents[task.name].result for task in plan.trained()])

    def after(self, plan: RunPlan, total: npt.NDArray[np.uint32]) -> Models:
        """The models after one opened training sum; the sum is divided by a public constant."""
        sums = decode(plan.layout("train"), total)
        normaliser = plan.privacy.population * (1 - plan.data.holdout)
        return Models(
            {
                task.name: advance(
                    self.descents[task.name],
                    sums[task.name] / normaliser,
                    rate=task.rate,
                    rounds=plan.training.rounds,
                    average_from=task.average_from,
                )
                for task in plan.trained()
            }
        )

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint: "task/name" -> array."""
        return {
            f"{name}/{key}": array
            for name, descent in self.descents.items()
            for key, array in to_arrays(descent).items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Models:
        """The inverse of `to_arrays`; strict, raises OperatorError "checkpoint-invalid"."""
        grouped: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for key, array in arrays.items():
            name, _, field = key.partition("/")
            grouped.setdefault(name, {})[field] = array
        return cls({name: from_arrays(fields) for name, fields in grouped.items()})


def block_norms(plan: RunPlan, total: npt.NDArray[np.uint32]) -> dict[str, float]:
    """L2 norm of each block of an opened (noisy) training sum, model units; what the live view may show."""
    return {name: float(np.linalg.norm(sums)) for name, sums in decode(plan.layout("train"), total).items()}


def _joint(parts: list[Floats]) -> bytes:
    return np.concatenate(parts).astype("<f4").tobytes()
