"""Made-up patients on any facts catalogue: an audit never reads a hospital's data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.subject import patients_of
from cameo_models.features import feature_matrix
from cameo_protocol.facts import Catalogue, Fact
from cameo_protocol.plan import RunPlan

MISSING = 0.1
OUTCOME_SPREAD = 2.0


def made_up(plan: RunPlan, catalogue: Catalogue, size: int, random: np.random.Generator) -> Patients:
    """`size` patients whose facts fill the catalogue's public scales, with an outcome that follows from them.

    One fact in ten is missing where the catalogue lets it be. random: a lab generator; nothing here is private.
    """
    columns = {fact.name: _column(fact, size, random) for fact in catalogue.facts if fact.model}
    features = feature_matrix(catalogue, columns)
    logit = features @ random.normal(0.0, OUTCOME_SPREAD / np.sqrt(features.shape[1]), features.shape[1])
    outcome = (random.random(size) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)
    return patients_of(features, outcome, plan)


def nobody(plan: RunPlan, features: int) -> Patients:
    """A hospital without a patient."""
    return patients_of(np.zeros((0, features), dtype=np.float32), np.zeros(0), plan)


def _column(fact: Fact, size: int, random: np.random.Generator) -> npt.NDArray[np.generic]:
    missing = (random.random(size) < MISSING) & fact.missing
    if fact.type == "enum":
        return np.where(missing, -1, random.integers(0, len(fact.values), size))
    if fact.type == "bool":
        return np.where(missing, np.nan, random.integers(0, 2, size).astype(np.float64))
    low, high = fact.scale or (0.0, 1.0)
    return np.where(missing, np.nan, random.uniform(low, high, size))
