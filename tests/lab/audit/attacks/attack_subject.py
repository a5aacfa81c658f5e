"""A small plan to attack: four hospitals, a risk and a segment model of a dozen features, epsilon 2."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cameo_lab.audit.subject import Subject, patients_of, subject_of
from cameo_models.shapes import parameter_count
from cameo_protocol.plan import (
    Cohort,
    DataTerms,
    Encoded,
    PrivacyTerms,
    RiskTask,
    RunPlan,
    SegmentTask,
    Site,
    Training,
)
from cameo_protocol.privacy.calibration import Share, calibrate
from cameo_protocol.secagg.encoding import largest_scale

FEATURES = 12
DELTA = 1e-5


def small_subject(
    *,
    model: Literal["logistic", "mlp"] = "logistic",
    segment: bool = True,
    risk: bool = True,
    hospitals: int = 4,
    epsilon: float = 2.0,
    rounds: int = 6,
) -> Subject:
    """The product as it is shipped, on a small plan."""
    threshold = 2 * hospitals // 3 + 1
    cohort = Cohort(
        sites=tuple(Site(name=f"h{i}", index=i, identity=f"{i:064x}") for i in range(1, hospitals + 1)),
        threshold=threshold,
        colluders=max(0, min(1, 2 * threshold - hospitals - 1, threshold - 2)),
    )
    blank = Encoded(dim=1, clip=1.0, bound=64.0, scale=1, sigma=1.0)
    tasks: list[RiskTask | SegmentTask] = []
    if risk:
        tasks.append(
            RiskTask(
                label="outcome",
                label_sha256="0" * 64,
                model=model,
                hidden=6,
                rate=0.2,
                share=0.7,
                encoded=blank,
            )
        )
    if segment:
        tasks.append(SegmentTask(clusters=3, temperature=1.0, rate=0.1, share=0.3, encoded=blank))
    shares = [Share(name=task.name, rounds=rounds + 1, weight=task.share) for task in tasks]
    sigmas = calibrate(epsilon, DELTA, shares)
    plan = RunPlan(
        name="small",
        seed=1,
        data=DataTerms(catalogue="made-up", catalogue_sha256="0" * 64, holdout=0.2),
        cohort=cohort,
        privacy=PrivacyTerms(mode="distributed", epsilon=epsilon, delta=DELTA, population=200),
        training=Training(rounds=rounds, spare=1),
        tasks=tuple(task.model_copy(update={"encoded": _encoded(task, cohort, sigmas[task.name])}) for task in tasks),
    )
    random = np.random.default_rng(3)
    people = [
        patients_of(
            random.uniform(-1, 1, (20, FEATURES)).astype(np.float32), random.integers(0, 2, 20).astype(float), plan
        )
        for _ in range(hospitals)
    ]
    return subject_of(plan, FEATURES, people)


def _encoded(task: RiskTask | SegmentTask, cohort: Cohort, sigma: float) -> Encoded:
    dim, n, t, c = parameter_count(task, FEATURES), len(cohort.sites), cohort.threshold, cohort.colluders
    scale = largest_scale(dim=dim, clip=1.0, bound=64.0, sigma=sigma, n=n, t=t, c=c)
    return Encoded(dim=dim, clip=1.0, bound=64.0, scale=scale, sigma=sigma)
