"""What the opened histograms of a run say: how good the risk models are, and how to correct them. Post-processing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cameo_models.shapes import recalibrated
from cameo_protocol.evaluation import Evaluation, evaluate, evaluate_groups
from cameo_protocol.groups import Groups
from cameo_protocol.layout import RoundKind
from cameo_protocol.plan import HistogramTask, RiskTask, RunPlan
from cameo_protocol.privacy.noise import opened_sd
from cameo_protocol.privacy.releases import plan_releases
from cameo_protocol.recalibration import IDENTITY, SLOPE_RANGE, Recalibration, fit_recalibration
from cameo_protocol.secagg.encoding import decode
from cameo_server.run.round import Opened

_Z95 = 1.96
VOID = "the round was void: too few hospitals finished it"
DROWNED = "too noisy to say"


@dataclass(frozen=True)
class Counted:
    """One opened histogram. sd: of the noise in each lane."""

    task: HistogramTask
    counts: npt.NDArray[Any]
    sd: float


def counted(plan: RunPlan, kind: RoundKind, opened: Opened) -> tuple[Counted, ...]:
    """The histograms in an opened sum of that kind, in plan order."""
    layout, cohort = plan.layout(kind), plan.cohort
    blocks = {block.name: block for block in layout.blocks}
    sums = decode(layout, opened.total)
    terms = len(opened.survivors), plan.privacy.mode, cohort.threshold, cohort.colluders
    return tuple(Counted(t, sums[t.name], opened_sd(blocks[t.name], *terms)) for t in plan.counted(kind))


# --- recalibration -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Correction:
    """What became of one recalibration task. fit: what the model got; the identity where nothing was applied."""

    task: HistogramTask
    fit: Recalibration
    note: str


def corrections(plan: RunPlan, opened: Opened | None) -> dict[str, Correction]:
    """Risk task -> its correction; opened: the recalibration round, None when it was void."""
    if opened is None:
        return {task.of: Correction(task, IDENTITY, f"not applied: {VOID}") for task in plan.counted("recalibrate")}
    found = {}
    for one in counted(plan, "recalibrate", opened):
        fit = fit_recalibration(one.counts, one.sd)
        note = "" if fit != IDENTITY else "not applied: the noise leaves slope and intercept too uncertain"
        found[one.task.of] = Correction(one.task, fit, note)
    return found


def corrected(plan: RunPlan, features: int, parameters: bytes, found: Mapping[str, Correction]) -> bytes:
    """The joint parameters (little-endian float32, plan order) with each risk model's correction taken in."""
    joint = np.frombuffer(parameters, dtype="<f4").astype(np.float64)
    for task in plan.trained():
        fit = found[task.name].fit if task.name in found else IDENTITY
        if isinstance(task, RiskTask) and fit != IDENTITY:
            span = plan.parameter_spans()[task.name]
            joint[span] = recalibrated(task, features, joint[span], fit.slope, fit.intercept)
    return joint.astype("<f4").tobytes()


def corrections_card(found: Mapping[str, Correction]) -> dict[str, Any]:
    """Risk task -> what the card says of its recalibration."""
    return {
        name: {
            "applied": one.fit != IDENTITY,
            "patients": "training",
            "release": one.task.name,
            "slope": _interval(one.fit.slope, one.fit.slope_sd, SLOPE_RANGE[0]),
            "intercept": _interval(one.fit.intercept, one.fit.intercept_sd, -math.inf),
            "note": one.note,
        }
        for name, one in found.items()
    }


def _interval(value: float, sd: float, lowest: float) -> dict[str, float]:
    return {"value": value, "low": min(value, max(value - _Z95 * sd, lowest)), "high": value + _Z95 * sd}


# --- evaluation ----------------------------------------------------------------------------------------------------


def findings(plan: RunPlan, opened: Opened | None) -> dict[str, Any]:
    """Risk task -> figures of its noisy score histograms; a figure is null where the noise drowns it.

    opened: the evaluation round; None when it was void: then every figure is null and the note says so.
    `groups` has one entry for each fact by which the plan counts apart; each entry names its release.
    """
    found: dict[str, Any] = {}
    histograms = {one.task.name: one for one in counted(plan, "evaluate", opened)} if opened is not None else {}
    for task in plan.counted("evaluate"):
        figures = found.setdefault(task.of, {**_nothing("no evaluation task"), "groups": []})
        one = histograms.get(task.name)
        if task.by is not None:
            figures["groups"].append(_by_group(task, task.by, one))
        elif one is None:
            figures |= {"release": task.name, "note": VOID}
        else:
            figures |= {"release": task.name, **_figures(evaluate(one.counts, one.sd)), "noise_sd": one.sd}
    return found


def _by_group(task: HistogramTask, by: Groups, one: Counted | None) -> dict[str, Any]:
    head = {"fact": by.fact, "release": task.name, "noise_sd": one.sd if one else None}
    if one is None:
        rows = [{"group": name, "size": "not known", "hidden": False, **_nothing(VOID)} for name in by.names]
        return head | {"rows": rows}
    rows = []
    for name, group in zip(by.names, evaluate_groups(one.counts, len(by), one.sd), strict=True):
        figures = _nothing("fewer than 11 patients, as far as the noise lets one see") if group.hidden else {}
        rows.append({"group": name, "size": group.size, "hidden": group.hidden, **(figures or _figures(group.figures))})
    return head | {"rows": rows}


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    single = {name: getattr(evaluation, name) for name in ("auc", "brier", "prevalence", "gap")}
    missing = [name for name, estimate in single.items() if estimate is None]
    return {
        **{name: asdict(estimate) if estimate else None for name, estimate in single.items()},
        "curve": [
            {"low": point.low, "high": point.high, "observed": asdict(point.observed)}
            for point in evaluation.curve
            if point.observed is not None
        ],
        "note": f"{DROWNED}: {', '.join(missing)}" if missing else "",
    }


def _nothing(note: str) -> dict[str, Any]:
    return {"auc": None, "brier": None, "prevalence": None, "gap": None, "curve": [], "noise_sd": None, "note": note}


# --- what it cost --------------------------------------------------------------------------------------------------


def costs(plan: RunPlan) -> list[dict[str, Any]]:
    """For each release of the plan: its noise, how often, and its share of the privacy loss.

    The privacy loss of Gaussian sums of full batches is that of one with 1 / sigma^2 = sum of count / sigma^2, so a
    release's share of that sum is its share of the loss, exactly; epsilon values themselves do not add up.
    """
    weight = {name: release.count / release.sigma**2 for name, release in plan_releases(plan)}
    total = math.fsum(weight.values())
    kinds = {task.name: task.kind for task in plan.tasks}
    return [
        {
            "release": name,
            "purpose": kinds[name],
            "sigma": release.sigma,
            "count": release.count,
            "share": weight[name] / total,
        }
        for name, release in plan_releases(plan)
    ]
