"""The thing under audit: a plan, and the product's own code that carries it out.

Every piece that a defect could sit in is a field, so that a test can plant one: `dataclasses.replace(subject,
noise=...)`. Nothing here is a second implementation: the fields of `subject_of` are the product's functions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cameo_client.ledger import Ledger
from cameo_client.node.contribution import Contributor, Noise, Patients
from cameo_protocol.layout import RoundKind
from cameo_protocol.plan import Encoded, HistogramTask, RiskTask, RunPlan
from cameo_protocol.privacy.releases import Release, plan_releases
from cameo_server.run.training import Models

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Lanes = npt.NDArray[np.uint32]
Hospital = Callable[[RoundKind, Floats], Lanes]
OpenHospital = Callable[[RunPlan, Patients, Noise], Hospital]
Watch = Callable[[int, Floats, Lanes], None]
OpenLedger = Callable[[Path], Ledger]

LEDGER_DELTA = 1e-5
UNCLIPPED = 1e9
"""A clip that nothing reaches, for control arms."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the records of a training step are chosen.

    q: the sampling rate that the accountant is told; 1 = every record in every step, as all shipped plans do.
    draw: number of patients -> (N,) bool, who takes part in one step; asked anew for each.
    """

    q: float
    draw: Callable[[int], Flags]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Subject:
    """A plan and the code that carries it out.

    features: columns of a model of the plan's catalogue. hospitals: made-up patients, one entry a hospital of the
    cohort. noise: (sd, size) -> int64 draws. open: a hospital's side of one run, the product's `Contributor`.
    open_ledger: a new ledger at a path, for dry runs.
    """

    plan: RunPlan
    features: int
    hospitals: tuple[Patients, ...]
    sampling: Sampling
    noise: Noise
    open: OpenHospital
    open_ledger: OpenLedger

    def contribute(self, kind: RoundKind, parameters: Floats, patients: Patients) -> Lanes:
        """One hospital's noisy vector of one round before masking, (dim,) uint32; parameters: joint, (d,)."""
        return self.open(self.plan, patients, self.noise)(kind, parameters)

    def train(self, hospitals: Sequence[Patients], watch: Watch | None = None) -> Floats:
        """A whole training run over hospitals that all survive: the released parameters of all tasks, joint, (d,).

        watch: called in every round with (step, broadcast parameters, opened sum): what the coordinator sees.
        """
        opened = [self.open(self.plan, self.sampled(patients), self.noise) for patients in hospitals]
        models = Models.initial(self.plan, self.features)
        for step in range(self.plan.training.rounds):
            parameters = _floats(models.broadcast(self.plan))
            total = added([hospital("train", parameters) for hospital in opened])
            if watch is not None:
                watch(step, parameters, total)
            models = models.after(self.plan, total)
        return _floats(models.result(self.plan))

    def sampled(self, patients: Patients) -> Patients:
        """The same patients, of whom each step takes those that the sampling draws."""
        return replace(patients, allowed=lambda: patients.allowed() & self.sampling.draw(len(patients.features)))

    def initial(self) -> Floats:
        """The joint parameters of the first broadcast, (d,)."""
        return _floats(Models.initial(self.plan, self.features).broadcast(self.plan))

    def releases(self) -> tuple[tuple[str, Release], ...]:
        """(task, release) for everything that the plan may release, at the sampling rate that is claimed."""
        trained = {task.name for task in self.plan.trained()}
        return tuple(
            (name, replace(release, q=self.sampling.q) if name in trained else release)
            for name, release in plan_releases(self.plan)
        )

    def silent(self) -> Subject:
        """The same without noise: clipped sums alone. For control arms and for looking at what noise hides."""
        return replace(self, noise=no_noise)

    def bare(self) -> Subject:
        """The same without clip and without noise: what an attack meets where nothing protects."""
        return replace(self.silent(), plan=unclipped(self.plan))


def subject_of(plan: RunPlan, features: int, hospitals: Sequence[Patients]) -> Subject:
    """The product as it is shipped."""
    from cameo_client.training.noise import discrete_gaussian

    return Subject(
        plan=plan,
        features=features,
        hospitals=tuple(hospitals),
        sampling=Sampling(q=1.0, draw=lambda size: np.ones(size, dtype=bool)),
        noise=discrete_gaussian,
        open=open_hospital,
        open_ledger=open_ledger,
    )


def open_ledger(path: Path) -> Ledger:
    """A ledger that was never used."""
    return Ledger.create(path, dataset="audit", delta=LEDGER_DELTA, clock=time.time, random=os.urandom)


def open_hospital(plan: RunPlan, patients: Patients, noise: Noise) -> Hospital:
    """A hospital's side of one run."""
    return Contributor(plan, patients, noise, os.urandom).noisy_vector


def no_noise(_: float, size: int) -> npt.NDArray[np.int64]:
    """Zeros in place of noise."""
    return np.zeros(size, dtype=np.int64)


def unclipped(plan: RunPlan) -> RunPlan:
    """The plan with a clip that nothing reaches; such a plan is never sent to a hospital."""

    def free(encoded: Encoded) -> Encoded:
        return encoded.model_copy(update={"clip": UNCLIPPED})

    tasks = tuple(
        task.model_copy(update={"encoded": free(task.encoded)}) if task in plan.trained() else task
        for task in plan.tasks
    )
    return plan.model_copy(update={"tasks": tasks})


def patients_of(features: npt.NDArray[np.float32], outcome: Floats, plan: RunPlan) -> Patients:
    """Patients who all take part in training, one record each, all in the first of any groups.

    features: (N, F). outcome: (N,) of 0 or 1, for every risk label.
    """
    size = len(features)
    outcomes: Mapping[str, Floats] = {task.label: outcome for task in plan.tasks if isinstance(task, RiskTask)}
    counted = [task for task in plan.tasks if isinstance(task, HistogramTask) and task.by is not None]
    return Patients(
        features=features,
        outcomes=outcomes,
        held_out=np.zeros(size, dtype=bool),
        allowed=lambda: np.ones(size, dtype=bool),
        groups={task.name: np.zeros(size, dtype=np.int64) for task in counted},
    )


def added(vectors: Sequence[Lanes]) -> Lanes:
    """The sum modulo 2^32, (dim,): what the secure sum opens."""
    total: Lanes = np.sum(np.stack(vectors).astype(np.uint64), axis=0).astype(np.uint32)
    return total


def _floats(raw: bytes) -> Floats:
    return np.frombuffer(raw, dtype="<f4").astype(np.float64)
