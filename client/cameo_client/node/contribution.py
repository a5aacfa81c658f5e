"""What one hospital adds to a round: clipped sums and counts of its patients, as integers with noise.

Everything here is `sensitive until noised`: nothing but the return value of `noisy_vector` may leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Bug
from cameo_protocol.layout import Layout, RoundKind
from cameo_protocol.plan import HistogramTask, RiskTask, RunPlan, SegmentTask
from cameo_protocol.privacy.noise import hospital_sd
from cameo_protocol.secagg.encoding import encode

if TYPE_CHECKING:
    from cameo_client.training.gradients import PatientGradients

Floats = npt.NDArray[np.float64]
Noise = Callable[[float, int], npt.NDArray[np.int64]]


def _nobody(_run: str, _kind: RoundKind, _rows: npt.NDArray[np.bool_]) -> None:
    """For rows behind which there is no patient to tell: public or made-up ones."""


@dataclass(frozen=True, eq=False, repr=False)
class Patients:
    """The rows that a run may read; row i is one record everywhere.

    features: (N, F) float32 of public-constant scaling. outcomes: label id -> (N,) float64, NaN = not known.
    held_out: (N,) bool, fixed by a keyed hash of the patient. allowed: returns (N,) bool, False for patients who
    withdrew; asked anew for every round. owner: (N,) int64, whose record each row is; None = one record a patient.
    groups: histogram task -> (N,) int64, each row's group of `task.by`, -1 = in none.
    note_use: told (run, kind of round, (N,) bool: the rows that enter it) before anything is computed from them.
    A patient is the unit: the gradients of all records of one owner are clipped as one, and histograms count one
    record of each owner (`counted_once`).
    """

    features: npt.NDArray[np.float32]
    outcomes: Mapping[str, Floats]
    held_out: npt.NDArray[np.bool_]
    allowed: Callable[[], npt.NDArray[np.bool_]]
    owner: npt.NDArray[np.int64] | None = None
    groups: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    note_use: Callable[[str, RoundKind, npt.NDArray[np.bool_]], None] = _nobody


def counted_once(rows: npt.NDArray[np.bool_], owner: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    """Of the chosen rows, (N,) bool, the last one of each owner, (N,) int64: the row that stands for the patient."""
    if owner is None:
        return rows
    places = np.flatnonzero(rows)
    first = np.unique(owner[places][::-1], return_index=True)[1]
    kept = np.zeros_like(rows)
    kept[places[len(places) - 1 - first]] = True
    return kept


class Contributor:
    """Computes this hospital's vectors for one run, under whose name each use of a patient's data is noted."""

    def __init__(
        self, plan: RunPlan, patients: Patients, noise: Noise, random: Callable[[int], bytes], run: str = ""
    ) -> None:
        self._plan, self._run = plan, run
        self._patients = patients
        self._noise = noise
        self._random = random
        self._mask: npt.NDArray[np.bool_] | None = None
        self._gradients: dict[str, PatientGradients] = {}

    def noisy_vector(self, kind: RoundKind, parameters: Floats) -> npt.NDArray[np.uint32]:
        """The vector of a round, (dim,) uint32: clipped, summed, clamped, scaled, rounded once, integer noise added.

        parameters: the joint vector of all trained tasks. The result has the same size and the same noise
        whatever the hospital holds, also with no patient at all.
        """
        layout = self._plan.layout(kind)
        self._refresh()
        self._patients.note_use(self._run, kind, self._entering(kind))
        parts = {name: parameters[span] for name, span in self._plan.parameter_spans().items()}
        sums = self._gradient_sums(parts) if kind == "train" else self._histograms(kind, parts)
        return encode(layout, sums, self._noise_of(layout), self._random)

    def warm_up(self, parameters: Floats) -> None:
        """Do once what every round needs, so that the first round is as quick as the others. Nothing leaves."""
        self._refresh()
        self._gradient_sums({name: parameters[span] for name, span in self._plan.parameter_spans().items()})
        self._noise(1.0, 1)

    def _noise_of(self, layout: Layout) -> dict[str, npt.NDArray[np.int64]]:
        cohort, mode = self._plan.cohort, self._plan.privacy.mode
        return {
            block.name: self._noise(hospital_sd(block, mode, cohort.threshold, cohort.colluders), block.dim)
            for block in layout.blocks
        }

    def _refresh(self) -> None:
        """Leave out who withdrew since the last round. Nobody joins a run that goes on, so who is out stays out."""
        allowed = self._patients.allowed()
        if self._mask is not None:
            allowed = allowed & self._mask
            if np.array_equal(allowed, self._mask):
                return
        from cameo_client.training.gradients import PatientGradients

        self._mask = allowed
        for task in self._plan.trained():
            rows = self._rows(task)
            target = self._patients.outcomes[task.label][rows] if isinstance(task, RiskTask) else None
            owner = None if self._patients.owner is None else self._patients.owner[rows]
            self._gradients[task.name] = PatientGradients(task, self._patients.features[rows], target, owner)

    def _rows(self, task: RiskTask | SegmentTask | HistogramTask) -> npt.NDArray[np.bool_]:
        """(N,) bool: allowed now, on the task's side of the hold-out, with a known outcome where one is needed."""
        if self._mask is None:
            raise Bug("rows-unset", what="rows were asked for before it was known who is allowed")
        held_out = self._patients.held_out
        rows = self._mask & (held_out if task.kind == "evaluation" else ~held_out)
        risk = self._risks()[task.of] if isinstance(task, HistogramTask) else task
        return rows & ~np.isnan(self._patients.outcomes[risk.label]) if isinstance(risk, RiskTask) else rows

    def _entering(self, kind: RoundKind) -> npt.NDArray[np.bool_]:
        """(N,) bool: the rows from which the vector of a round is made."""
        tasks = self._plan.trained() if kind == "train" else self._plan.counted(kind)
        rows: npt.NDArray[np.bool_] = np.any([self._rows(task) for task in tasks], axis=0)
        return rows

    def _risks(self) -> dict[str, RiskTask]:
        return {task.name: task for task in self._plan.tasks if isinstance(task, RiskTask)}

    def _gradient_sums(self, parts: Mapping[str, Floats]) -> dict[str, npt.NDArray[Any]]:
        return {
            task.name: self._gradients[task.name].clipped_sum(parts[task.name], task.encoded.clip)
            for task in self._plan.trained()
        }

    def _histograms(self, kind: RoundKind, parts: Mapping[str, Floats]) -> dict[str, npt.NDArray[Any]]:
        from cameo_client.training.histogram import score_histogram
        from cameo_models.scoring import risk_scores

        risks, patients = self._risks(), self._patients
        sums: dict[str, npt.NDArray[Any]] = {}
        for task in self._plan.counted(kind):
            risk = risks[task.of]
            outcome = patients.outcomes[risk.label]
            rows = counted_once(self._rows(task), patients.owner)
            features = patients.features[rows]
            scores = risk_scores(risk, features.shape[1], parts[risk.name], features)
            groups = None if task.by is None else patients.groups[task.name][rows]
            count = 1 if task.by is None else len(task.by)
            sums[task.name] = score_histogram(scores, outcome[rows], task.bins, groups, count)
        return sums
