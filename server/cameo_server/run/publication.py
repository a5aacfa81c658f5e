"""What a run publishes: the models, and a card that says what they are, how good, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from cameo_models.bundle import BundleFacts, ModelBundle
from cameo_models.numbering import Numbering
from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.statements import statements
from cameo_protocol.recalibration import IDENTITY
from cameo_protocol.stages import Publication
from cameo_server.run.findings import Correction, corrections_card, costs

CARD_VERSION = 1


def publication(
    plan: RunPlan,
    run: str,
    features: int,
    parameters: bytes,
    figures: Mapping[str, Any],
    versions: Mapping[str, str],
    corrections: Mapping[str, Correction] | None = None,
    audit: Mapping[str, Any] | None = None,
    segments: Mapping[str, Numbering] | None = None,
) -> Publication:
    """The models of a run with their card.

    parameters: all trained tasks in plan order, little-endian float32, corrections taken in, segments in the order of
    their numbers. figures: from `findings`. corrections: from `findings.corrections`, by risk task. audit: what an
    audit of this model found, for card["audit"]; None = not audited. segments: how they were numbered, by segment
    task, for card["segments"]; None: nobody numbered them, and the card does not speak of it. Every figure of the
    card names its release, and `costs` says what that cost.
    """
    applied = corrections or {}
    models = _bundles(plan, features, parameters, applied)
    card: dict[str, Any] = {
        "schema_version": CARD_VERSION,
        "run": run,
        "plan_id": plan.plan_id(),
        "plan": plan.model_dump(mode="json"),
        "models": {name: bundle.sha256() for name, bundle in models.items()},
        "epsilon": statements(plan).as_dict(),
        "costs": costs(plan),
        "evaluation": dict(figures),
        "recalibration": corrections_card(applied),
        "audit": None if audit is None else dict(audit),
        "versions": dict(versions),
    }
    if segments is not None:
        card["segments"] = {name: entry.model_dump(mode="json") for name, entry in segments.items()}
    return Publication(
        run=run,
        plan_id=bytes.fromhex(plan.plan_id()),
        models={name: bundle.to_bytes() for name, bundle in models.items()},
        card=json.dumps(card, sort_keys=True, allow_nan=False).encode(),
    )


def _bundles(
    plan: RunPlan, features: int, parameters: bytes, applied: Mapping[str, Correction]
) -> dict[str, ModelBundle]:
    joint = np.frombuffer(parameters, dtype="<f4").astype(np.float64)
    spans = plan.parameter_spans()
    models = {}
    for task in plan.trained():
        fit = applied[task.name].fit if task.name in applied else IDENTITY
        facts = BundleFacts(
            plan_id=plan.plan_id(),
            catalogue_sha256=plan.data.catalogue_sha256,
            features=features,
            round=plan.training.rounds,
            slope=fit.slope,
            intercept=fit.intercept,
            task=task,
        )
        models[task.name] = ModelBundle(facts, joint[spans[task.name]])
    return models
