"""What only a lab sees that can read every hospital's folder: clear figures and non-private references.

None of this exists in a real federation: no coordinator, and no hospital, has all four folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cameo_client.consent.store import ConsentStore
from cameo_client.home import NodeHome
from cameo_client.node.study import load_local, open_study
from cameo_models.bundle import parse_bundle
from cameo_models.scoring import risk_scores, segment_of
from cameo_protocol.evaluation import adjusted_rand, auc, calibration_error
from cameo_protocol.plan import RiskTask, RunPlan, SegmentTask

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Pool:
    """All hospitals' rows together. train, held_out: (N,) masks of the patients a run may use."""

    features: npt.NDArray[np.float32]
    outcome: Floats
    train: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClearFigures:
    """auc, error: held-out AUC and calibration error of the published risk model; error_raw: before recalibration.

    auc_by_step: held-out AUC of the averaged model after each opened round. sizes: patients nearest to each
    prototype. segment_parameters: the published prototypes, flat.
    """

    auc: float | None
    auc_pooled: float | None
    auc_by_step: dict[int, float]
    error: float | None
    error_raw: float | None
    ari: float
    sizes: tuple[int, ...]
    segment_parameters: Floats


def read_pool(homes: Sequence[Path], plan: RunPlan) -> Pool:
    """Read every hospital's folder as its own node does, and put the rows together."""
    risk = _risk(plan)
    parts = []
    for root in homes:
        home = NodeHome(root)
        with ConsentStore.open(home.consent) as consents:
            study = open_study(home, plan, load_local(home), consents, lambda: datetime.now(UTC))
            patients, allowed = study.patients, study.patients.allowed()
        parts.append((patients.features, patients.outcomes[risk.label], allowed, patients.held_out))
    features, outcome, allowed, held_out = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Pool(features, outcome, allowed & ~held_out, allowed & held_out)


def clear_figures(pool: Pool, plan: RunPlan, folder: Path) -> ClearFigures:
    """Score the published model, and each round's, on the pooled held-out rows. folder: runs/ID of the coordinator."""
    risk, segment = _risk(plan), _segment(plan)
    spans = plan.parameter_spans()
    steps = {int(path.stem.split("-")[1]): _parameters(path) for path in sorted(folder.glob("model-*.npz"))}
    known = pool.held_out & ~np.isnan(pool.outcome)
    width = pool.features.shape[1]

    def held_out_scores(parameters: Floats) -> Floats:
        return risk_scores(risk, width, parameters[spans[risk.name]], pool.features[known])

    by_step = {step: auc(held_out_scores(values), pool.outcome[known]) for step, values in steps.items()}
    final = steps[max(steps)]
    released = parse_bundle((folder / f"{risk.name}.safetensors").read_bytes())
    scores = risk_scores(risk, width, released.parameters, pool.features[known])
    prototypes = parse_bundle((folder / f"{segment.name}.safetensors").read_bytes()).parameters
    groups = segment_of(segment, width, prototypes, pool.features)
    chosen = pool.train | pool.held_out
    return ClearFigures(
        auc=auc(scores, pool.outcome[known]),
        auc_pooled=_pooled_auc(pool, known),
        auc_by_step={step: value for step, value in by_step.items() if value is not None},
        error=calibration_error(scores, pool.outcome[known]),
        error_raw=calibration_error(held_out_scores(final), pool.outcome[known]),
        ari=_ari(pool, groups, segment.clusters),
        sizes=tuple(int(size) for size in np.bincount(groups[chosen], minlength=segment.clusters)),
        segment_parameters=prototypes,
    )


def _pooled_auc(pool: Pool, known: npt.NDArray[np.bool_]) -> float | None:
    """Logistic regression on everybody's training rows together, without privacy."""
    from sklearn.linear_model import LogisticRegression

    train = pool.train & ~np.isnan(pool.outcome)
    model = LogisticRegression(max_iter=2000).fit(pool.features[train], pool.outcome[train])
    return auc(model.predict_proba(pool.features[known])[:, 1], pool.outcome[known])


def _ari(pool: Pool, groups: npt.NDArray[np.int64], clusters: int) -> float:
    """Agreement with k-means on everybody's training rows together, without privacy, over all usable patients."""
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters=clusters, n_init=10, random_state=0).fit(pool.features[pool.train])
    chosen = pool.train | pool.held_out
    return float(adjusted_rand(groups[chosen], model.predict(pool.features[chosen])))


def _parameters(path: Path) -> Floats:
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["parameters"], dtype=np.float64)


def _risk(plan: RunPlan) -> RiskTask:
    return next(task for task in plan.tasks if isinstance(task, RiskTask))


def _segment(plan: RunPlan) -> SegmentTask:
    return next(task for task in plan.tasks if isinstance(task, SegmentTask))
