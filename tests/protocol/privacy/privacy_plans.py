"""Small sound plans for the privacy tests, and shorthand for releases."""

from __future__ import annotations

import os
from typing import Any

from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.calibration import Share, calibrate
from cameo_protocol.privacy.releases import Release
from cameo_protocol.privacy.statements import delta_for

FULL = os.environ.get("CAMEO_FULL") == "1"


def release(sigma: float, count: int, q: float = 1.0) -> Release:
    return Release(sigma=sigma, q=q, count=count)


def make_plan(
    *,
    n: int = 4,
    t: int = 3,
    c: int = 1,
    mode: str = "distributed",
    epsilon: float = 3.0,
    rounds: int = 30,
    spare: int = 3,
    population: int = 900,
    delta: float | None = None,
    sigmas: dict[str, float] | None = None,
    count_terms: dict[str, Any] | None = None,
    bound: float = 4096.0,
) -> RunPlan:
    """A plan with a risk, a segment and an evaluation task, calibrated to epsilon unless sigmas says otherwise."""
    delta = delta_for(population) if delta is None else delta
    shares = [
        Share(name="risk", rounds=rounds + spare, weight=0.6),
        Share(name="segment", rounds=rounds + spare, weight=0.2),
        Share(name="evaluation", rounds=1, weight=0.1),
    ]
    sigma = calibrate(epsilon, delta, shares) | (sigmas or {})
    block = {"clip": 1.0, "bound": bound, "scale": 1 << 14}
    counts = {"dim": 40, "clip": 1.0, "bound": float(population), "scale": 1} | (count_terms or {})
    trained = {"rate": 0.1, "share": 0.5}
    return RunPlan.model_validate(
        {
            "name": "test",
            "seed": 1,
            "data": {"catalogue": "demo", "catalogue_sha256": "0" * 64, "holdout": 0.2},
            "cohort": {
                "sites": [{"name": f"site-{i}", "index": i, "identity": f"{i:064x}"} for i in range(1, n + 1)],
                "threshold": t,
                "colluders": c,
            },
            "privacy": {"mode": mode, "epsilon": epsilon, "delta": delta, "population": population},
            "training": {"rounds": rounds, "spare": spare},
            "tasks": [
                {
                    "kind": "risk",
                    "label": "event",
                    "label_sha256": "0" * 64,
                    "encoded": block | {"dim": 21, "sigma": sigma["risk"]},
                    **trained,
                },
                {
                    "kind": "segment",
                    "clusters": 3,
                    "temperature": 1.0,
                    "encoded": block | {"dim": 60, "sigma": sigma["segment"]},
                    **trained,
                },
                {
                    "kind": "evaluation",
                    "name": "evaluation",
                    "bins": 20,
                    "share": 0.1,
                    "encoded": counts | {"sigma": sigma["evaluation"]},
                },
            ],
        }
    )
