"""What a run publishes: the models, and a card that says what they are, how good, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from cameo_models.bundle import BundleFacts, ModelBundle
from cameo_protocol.evaluation import Evaluation, evaluate
from cameo_protocol.plan import HistogramTask, RunPlan
from cameo_protocol.privacy.noise import opened_sd
from cameo_protocol.privacy.statements import statements
from cameo_protocol.secagg.encoding import decode
from cameo_protocol.stages import Publication
from cameo_server.run.round import Opened

CARD_VERSION = 1


def findings(plan: RunPlan, opened: Opened | None) -> dict[str, Any]:
    """Task name -> figures of its noisy score histogram; a figure is null where the noise drowns it.

    opened: the evaluation round; None when it was void: then every figure is null and the note says so.
    """
    found: dict[str, Any] = {}
    layout = plan.layout("evaluate")
    blocks = {block.name: block for block in layout.blocks}
    counts = decode(layout, opened.total) if opened is not None else {}
    for task in plan.tasks:
        if not isinstance(task, HistogramTask) or task.kind != "evaluation":
            continue
        if opened is None:
            found[task.of] = {"auc": None, "brier": None, "curve": [], "note": "the evaluation round was void"}
            continue
        cohort = plan.cohort
        survivors = len(opened.survivors)
        sd = opened_sd(blocks[task.name], survivors, plan.privacy.mode, cohort.threshold, cohort.colluders)
        found[task.of] = _figures(evaluate(counts[task.name], sd), sd)
    return found


def _figures(evaluation: Evaluation, sd: float) -> dict[str, Any]:
    note = "" if evaluation.auc else "too noisy to say: the interval of the AUC would be wider than ±0.1"
    return {
        "auc": asdict(evaluation.auc) if evaluation.auc else None,
        "brier": asdict(evaluation.brier) if evaluation.brier else None,
        "prevalence": asdict(evaluation.prevalence) if evaluation.prevalence else None,
        "curve": [
            {"low": point.low, "high": point.high, "observed": asdict(point.observed)}
            for point in evaluation.curve
            if point.observed is not None
        ],
        "noise_sd": sd,
        "note": note,
    }


def publication(
    plan: RunPlan,
    run: str,
    features: int,
    parameters: bytes,
    figures: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Publication:
    """The models of a run with their card.

    parameters: all trained tasks in plan order, little-endian float32. figures: from `findings`.
    """
    joint = np.frombuffer(parameters, dtype="<f4").astype(np.float64)
    spans = plan.parameter_spans()
    models = {}
    for task in plan.trained():
        facts = BundleFacts(
            plan_id=plan.plan_id(),
            catalogue_sha256=plan.data.catalogue_sha256,
            features=features,
            round=plan.training.rounds,
            task=task,
        )
        models[task.name] = ModelBundle(facts, joint[spans[task.name]])
    card = {
        "schema_version": CARD_VERSION,
        "run": run,
        "plan_id": plan.plan_id(),
        "plan": plan.model_dump(mode="json"),
        "models": {name: bundle.sha256() for name, bundle in models.items()},
        "epsilon": statements(plan).as_dict(),
        "evaluation": dict(figures),
        "versions": dict(versions),
    }
    return Publication(
        run=run,
        plan_id=bytes.fromhex(plan.plan_id()),
        models={name: bundle.to_bytes() for name, bundle in models.items()},
        card=json.dumps(card, sort_keys=True, allow_nan=False).encode(),
    )
