"""A run as the demo would record it: four hospitals, one lost, synthetic patients."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cameo_lab.report import ReportRecord

HOSPITALS = ["North General", "Riverside Clinic", "St. Bartholomew's University Hospital", "West Bay"]
TAGS = [
    ("bp-elevated-any", "care_management", 310),
    ("metformin-adherence-medium", "care_management", 182),
    ("t2d-newly-diagnosed", "health_education", 41),
    ("glucose-3d-off-target", "care_management", 96),
    ("t2d-risk-high", "health_education", 74),
    ("insulin-need-3m", "marketing", 3),
    ("follow-up-lapse", "service_reminder", 133),
]
SCALES = [
    ("Age", "years", 18, 95),
    ("Systolic blood pressure", "mmHg", 80, 220),
    ("HbA1c", "%", 4, 14),
    ("LDL cholesterol", "mmol/L", 0.5, 8),
    ("Body mass index", "kg/m²", 15, 55),
    ("Visits in 12 months", "", 0, 30),
]
PROTOTYPES = [
    ("Well controlled", "1000-2500", (52, 124, 5.6, 2.9, 25.1, 3)),
    ("Hypertension, rarely seen", "500-1000", (67, 158, 6.1, 3.6, 28.7, 1)),
    ("Diabetes, off target", "250-500", (61, 141, 9.2, 3.3, 33.4, 11)),
]


def _rounds() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(40):
        lost = number >= 26
        rows.append(
            {
                "number": number,
                "survivors": 0 if number == 31 else 3 if lost else 4,
                "void": number == 31,
                "norm": None if number == 31 else 900 * math.exp(-number / 9) + 260 + 40 * math.sin(number * 2.1),
                "auc_clear": 0.86 - 0.31 * math.exp(-number / 5) + 0.006 * math.sin(number * 1.7),
            }
        )
    rows.append({"number": 40, "kind": "evaluate", "survivors": 3})
    return rows


def _tags() -> list[dict[str, Any]]:
    counts = []
    for place, hospital in enumerate(HOSPITALS):
        for tag, purpose, size in TAGS:
            base = int(size * (1.0, 0.72, 1.41, 0.55)[place])
            blocked = [{"reason": "consent-missing", "count": base // 3}, {"reason": "exclusive-group", "count": 7}]
            waiting = [{"reason": "review-always", "count": base // 6}] if purpose != "care_management" else []
            counts.append(
                {"hospital": hospital, "tag": tag, "purpose": purpose, "stored": base}
                | {"blocked": blocked, "waiting": waiting}
            )
    return counts


def _around(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _group(name: str, size: str, *figures: tuple[float, float] | None) -> dict[str, Any]:
    names = ("prevalence", "gap", "brier", "auc")
    found = {key: _around(*one) if one else None for key, one in zip(names, figures, strict=True)}
    return {"group": name, "size": size, **found}


def _histogram(name: str, kind: str, share: float) -> dict[str, Any]:
    return {"name": name, "kind": kind, "clip": None, "rate": 1.0, "rounds": 1, "sigma": 14.5, "share": share}


def _curve(end: float, releases: int) -> list[dict[str, Any]]:
    """A ledger that fills with the square root of the releases."""
    return [
        {"epsilon": end * math.sqrt(at / releases), "purpose": "train" if at <= 41 else "evaluation"}
        for at in range(1, releases + 1)
    ]


def _content() -> dict[str, Any]:
    return {
        "name": "Diabetes risk and segments",
        "plan_id": "4f1c9b" + "a07e3d5" * 8 + "90",
        "run_id": "20261124-0814-demo",
        "created": datetime(2026, 11, 24, 8, 14, tzinfo=UTC),
        "data": "synthetic cardiometabolic patients, 4 × 1000, seed 7",
        "synthetic": True,
        "fictional_consents": True,
        "hospitals": [
            {
                "name": name,
                "status": "lost" if place == 3 else "took part",
                "lost_at_round": 26 if place == 3 else None,
                "account": {"spent": (0.93, 0.93, 1.88, 0.71)[place], "planned": (1, 1, 1.94, 1)[place]}
                | {
                    "cap": (8, 8, 3, 8)[place],
                    "curve": _curve((0.93, 0.93, 1.88, 0.71)[place], 26 if place == 3 else 44),
                },
            }
            for place, name in enumerate(HOSPITALS)
        ],
        "threshold": 3,
        "colluders": 1,
        "mode": "distributed",
        "tasks": [
            {"name": "risk", "kind": "risk", "clip": 1.0, "rate": 1.0, "rounds": 44, "sigma": 41.2} | {"share": 0.545},
            {"name": "segment", "kind": "segment", "clip": 1.0, "rate": 1.0, "rounds": 44, "sigma": 71.4}
            | {"share": 0.182},
            _histogram("recalibration", "recalibration", 0.091),
            _histogram("evaluation", "evaluation", 0.091),
            _histogram("evaluation-sex", "evaluation", 0.0455),
            _histogram("evaluation-age", "evaluation", 0.0455),
        ],
        "statements": [
            {"toward": "coordinator", "epsilon": 1.0, "delta": 1e-5},
            {"toward": "model", "epsilon": 0.8, "delta": 1e-5},
            {"toward": "bare", "epsilon": 1.47, "delta": 1e-5},
        ],
        "rounds": _rounds(),
        "uploads": {"masked": 147, "clear": 0, "total_bytes": 412_000},
        "timing": {
            "setup": 1.8,
            "round_median": 0.94,
            "total": 97.2,
            "stages": [
                {"stage": "upload", "median": 0.46},
                {"stage": "acknowledge", "median": 0.21},
                {"stage": "reveal", "median": 0.22},
                {"stage": "open and step", "median": 0.05},
            ],
        },
        "quality": {
            "label": "type 2 diabetes within 12 months",
            "auc_dp": {"value": 0.85, "low": 0.80, "high": 0.90},
            "auc_clear": 0.861,
            "auc_pooled": 0.874,
            "calibration": [
                {"predicted": p, "observed": o, "low": max(0.0, o - w), "high": o + w}
                for p, o, w in [(0.06, 0.05, 0.02), (0.18, 0.2, 0.05), (0.33, 0.29, 0.08), (0.55, 0.6, 0.12)]
            ],
            "prevalence": _around(0.091, 0.016),
            "gap": _around(0.004, 0.018),
            "brier": _around(0.073, 0.012),
            "groups": [
                {
                    "fact": "sex",
                    "release": "evaluation-sex",
                    "rows": [
                        _group("female", "500 to 1,000", (0.078, 0.024), (-0.012, 0.03), (0.066, 0.02), None),
                        _group("male", "500 to 1,000", (0.103, 0.026), (0.021, 0.03), (0.081, 0.022), (0.83, 0.09)),
                    ],
                },
                {
                    "fact": "age",
                    "release": "evaluation-age",
                    "rows": [
                        {"group": "below 45", "size": "fewer than 11", "hidden": True},
                        _group("45 to 65", "500 to 1,000", (0.084, 0.024), (0.002, 0.03), (0.07, 0.02), None),
                        _group("65 and more", "250 to 1,000", (0.142, 0.05), None, (0.11, 0.04), None),
                    ],
                },
            ],
            "recalibration": {
                "applied": True,
                "slope": _around(0.93, 0.1),
                "intercept": _around(0.42, 0.25),
                "release": "recalibration",
                "error_before": 0.0358,
                "error_after": 0.0104,
            },
        },
        "segments": {
            "ari_reference": 0.69,
            "segments": [
                {
                    "name": name,
                    "size_band": band,
                    "traits": [
                        {"name": trait, "value": value, "unit": unit, "low": low, "high": high}
                        for (trait, unit, low, high), value in zip(SCALES, values, strict=True)
                    ],
                }
                for name, band, values in PROTOTYPES
            ],
        },
        "audit": {
            "effort": "quick",
            "lower_bound": 0.57,
            "claim": 1.0,
            "checks": [
                {"name": "noise-distribution", "limit": "p > 0.0005", "passed": True, "control": False},
                {"name": "gradient-inversion", "limit": "0 of 5 reconstructed", "passed": True, "control": True},
                {"name": "membership-inference", "limit": "AUC <= 0.583", "passed": False, "control": True},
            ],
        },
        "tags": _tags(),
        "versions": [("cameo-fl", "0.1.0"), ("flwr", "1.41.0"), ("torch", "2.13.0"), ("opacus", "1.6.0")],
    }


def make_record(**changed: Any) -> ReportRecord:
    """The sample run with some fields changed."""
    return ReportRecord.model_validate(_content() | changed)


@pytest.fixture
def make() -> Callable[..., ReportRecord]:
    """Makes the sample run; keyword arguments replace its fields."""
    return make_record
