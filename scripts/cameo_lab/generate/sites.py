"""How the made-up hospitals differ: case mix, age, measurement bias, gaps in the records, and error rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEGMENTS = ("young-well", "metabolic", "older-hypertensive", "diabetes")
_MIX = (0.30, 0.28, 0.24, 0.18)
_SIZES = (1.3, 1.0, 0.9, 0.8)


@dataclass(frozen=True)
class SiteEffect:
    """One hospital against the average one.

    mix: share of each latent segment, sums to 1. age_shift: years. sbp_bias mmHg and hba1c_bias %: of its devices.
    risk_shift: logit of every outcome. gaps: factor on every missing rate. errors: factor on every error rate.
    """

    mix: tuple[float, ...]
    age_shift: float
    sbp_bias: float
    hba1c_bias: float
    risk_shift: float
    gaps: float
    errors: float


def site_effect(rng: np.random.Generator) -> SiteEffect:
    """Draw a hospital. Spreads are moderate: sites differ visibly, and one model still serves all of them."""
    mix = rng.dirichlet(np.array(_MIX) * 40.0)
    return SiteEffect(
        mix=tuple(float(share) for share in mix),
        age_shift=float(rng.normal(0.0, 2.0)),
        sbp_bias=float(rng.normal(0.0, 2.0)),
        hba1c_bias=float(rng.normal(0.0, 0.05)),
        risk_shift=float(rng.normal(0.0, 0.2)),
        gaps=float(rng.uniform(0.6, 1.5)),
        errors=float(rng.uniform(0.5, 2.0)),
    )


def site_sizes(sites: int, patients: int) -> tuple[int, ...]:
    """Patients of each hospital: sites * patients in all, shared out unevenly, each at least half the average."""
    weights = np.array([_SIZES[index % len(_SIZES)] for index in range(sites)])
    sizes = np.maximum(1, np.floor(weights / weights.sum() * sites * patients)).astype(int)
    sizes[0] += sites * patients - int(sizes.sum())
    return tuple(int(size) for size in sizes)
