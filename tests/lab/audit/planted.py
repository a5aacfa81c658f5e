"""Subjects for the tests of the audit: the product as it is, and with one defect planted."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cameo_client.ledger import Ledger
from cameo_client.node.contribution import Contributor, Noise, Patients
from cameo_client.training.noise import discrete_gaussian
from cameo_lab.audit.people import made_up
from cameo_lab.audit.subject import (
    LEDGER_DELTA,
    UNCLIPPED,
    Hospital,
    Sampling,
    Subject,
    no_noise,
    open_hospital,
    subject_of,
)
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import RunPlan, Site
from cameo_protocol.privacy.noise import honest
from cameo_server.definitions import read_catalogue
from cameo_server.launch import make_plan_for

SITES, PATIENTS, Q = 4, 60, 0.1


@lru_cache
def plan_of(*overrides: str) -> RunPlan:
    """A plan of four hospitals."""
    identities = [hashlib.sha256(bytes([i])).hexdigest() for i in range(SITES)]
    sites = [Site(name=f"h-{i}", index=i, identity=key) for i, key in enumerate(identities, start=1)]
    return make_plan_for(sites, overrides)


def subject(*overrides: str) -> Subject:
    """The product, on made-up patients."""
    plan = plan_of(*(overrides or ("data=heart", "training.rounds=20")))
    catalogue, random = read_catalogue(plan.data.catalogue), np.random.default_rng(7)
    people = [made_up(plan, catalogue, PATIENTS, random) for _ in range(SITES)]
    return subject_of(plan, len(feature_names(catalogue)), people)


def sampled_subject() -> Subject:
    """The product as it would be with Poisson sampling at rate Q, with the noise that goes with it, about Q times."""
    whole = subject()
    tasks = tuple(
        t.model_copy(update={"encoded": t.encoded.model_copy(update={"sigma": Q * t.encoded.sigma})})
        if t in whole.plan.trained()
        else t
        for t in whole.plan.tasks
    )
    random = np.random.default_rng()
    poisson = Sampling(q=Q, draw=lambda size: random.random(size) < Q)
    return replace(whole, plan=whole.plan.model_copy(update={"tasks": tasks}), sampling=poisson)


class Forgetful(Ledger):
    """Writes down the first run only."""

    def commit(self, run_id: str, *args: Any, **options: Any) -> Any:
        if not self.report()["runs"] or self.report()["runs"][0]["run"] == run_id:
            return super().commit(run_id, *args, **options)
        return None


def forgetful(path: Path) -> Ledger:
    return Forgetful.create(path, dataset="audit", delta=LEDGER_DELTA, clock=time.time, random=os.urandom)


def shuffled(size: int) -> Callable[[int], npt.NDArray[np.bool_]]:
    """Batches of a fixed size, one after the other from a permutation."""
    random = np.random.default_rng()
    order: list[int] = []

    def draw(count: int) -> npt.NDArray[np.bool_]:
        chosen = np.zeros(count, dtype=bool)
        if len(order) < size:
            order[:] = random.permutation(count).tolist()
        chosen[[order.pop() for _ in range(min(size, len(order)))]] = True
        return chosen

    return draw


def split_noise(plan: RunPlan, patients: Patients, noise: Noise) -> Hospital:
    """The noise of a sum divided among all n hospitals, of which not all need survive."""
    cohort = plan.cohort
    share = math.sqrt(honest(plan.privacy.mode, cohort.threshold, cohort.colluders) / len(cohort.sites))
    return open_hospital(plan, patients, lambda sd, size: noise(sd * share, size))


class Unclipped(Contributor):
    """The noise of the plan, and no clip."""

    def _gradient_sums(self, parts: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        return {name: gradients.clipped_sum(parts[name], UNCLIPPED) for name, gradients in self._gradients.items()}


def free_hospital(plan: RunPlan, patients: Patients, noise: Noise) -> Hospital:
    return Unclipped(plan, patients, noise, os.urandom).noisy_vector


Plant = Callable[[], Subject]
PLANTED: dict[str, Plant] = {
    "half-noise": lambda: replace(subject(), noise=lambda sd, size: discrete_gaussian(sd / 2, size)),
    "no-noise": lambda: replace(subject(), noise=no_noise),
    "no-clip": lambda: replace(subject(), open=free_hospital),
    "all-records-each-step": lambda: replace(
        sampled_subject(), sampling=Sampling(q=Q, draw=lambda size: np.ones(size, dtype=bool))
    ),
    "noise-split-over-hospitals": lambda: replace(subject(), open=split_noise),
    "one-entry-for-three-runs": lambda: replace(subject(), open_ledger=forgetful),
    "shuffling-called-poisson": lambda: replace(sampled_subject(), sampling=Sampling(q=Q, draw=shuffled(6))),
}
