"""What is true of a made-up patient: a latent segment, and facts and outcomes that follow from it.

The order is causal and each step reads only earlier ones: segment -> age, sex, body mass, habits -> blood pressure,
lipids, kidneys -> diabetes and glycaemia -> treatment -> behaviour -> care -> outcomes. The outcomes are logits of
facts plus chance, set so that a good model of the recorded facts reaches an AUC of about .80 to .85, no more:
`t2d_within_12m` about one in ten (a clinic population, not the general one), driven by HbA1c, fasting glucose, body
mass, age, family, blood pressure and activity. Numbers follow textbook means and spreads; they are made up and no
data set was read. HbA1c and mean glucose are tied by ADAG (mmol/L = 1.59 HbA1c - 2.59).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cameo_lab.generate.sites import SEGMENTS, SiteEffect

Values = npt.NDArray[Any]
Truth = dict[str, Values]

_AGE = np.array([37.0, 50.0, 68.0, 61.0])
_BMI = np.array([24.0, 31.5, 27.5, 31.0])
_SBP = np.array([118.0, 130.0, 144.0, 138.0])
_T2D = np.array([0.01, 0.08, 0.10, 0.96])
_HTN = np.array([0.05, 0.35, 0.85, 0.65])
_GLYCAEMIA = np.array([-0.7, 0.55, 0.1, 0.6])


def draw_patients(rng: np.random.Generator, count: int, site: SiteEffect) -> Truth:
    """`count` patients of one hospital: name -> array of shape (count,), complete and free of errors.

    Keys: the facts of the catalogue `cardiometabolic`, `segment` (latent index) and the three outcomes.
    """
    truth: Truth = {"segment": rng.choice(len(SEGMENTS), size=count, p=np.array(site.mix))}
    for step in (_person, _vitals, _diabetes, _treatment, _behaviour, _care, _wearables, _guarded, _outcomes):
        truth |= step(rng, truth, site)
    return truth


def chance(rng: np.random.Generator, probability: Values) -> npt.NDArray[np.bool_]:
    """True with the given probability, elementwise."""
    return rng.random(probability.shape) < probability


def logistic(logit: Values) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-logit))."""
    return 1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=np.float64)))


def _flat(truth: Truth, value: float) -> Values:
    return np.full(truth["segment"].shape, value)


def _person(rng: np.random.Generator, truth: Truth, site: SiteEffect) -> Truth:
    segment = truth["segment"]
    size = segment.shape
    age = np.clip(rng.normal(_AGE[segment] + site.age_shift, 9.5), 18.0, 96.0)
    return {
        "age": np.round(age, 1),
        "sex": rng.choice(["female", "male"], size=size, p=[0.52, 0.48]),
        "region": rng.choice(["urban", "suburban", "rural"], size=size, p=[0.5, 0.3, 0.2]),
        "insurance": rng.choice(["public", "private", "none"], size=size, p=[0.8, 0.17, 0.03]),
        "bmi": np.round(np.clip(rng.normal(_BMI[segment], 3.8), 15.5, 62.0), 1),
        "family_hx_t2d": chance(rng, np.array([0.15, 0.32, 0.22, 0.5])[segment]),
        "family_hx_cvd": chance(rng, _flat(truth, 0.18)),
        "family_hx_lung": chance(rng, _flat(truth, 0.05)),
        "smoker": chance(rng, np.array([0.2, 0.26, 0.15, 0.18])[segment]),
    }


def _vitals(rng: np.random.Generator, truth: Truth, site: SiteEffect) -> Truth:
    segment, age = truth["segment"], truth["age"]
    male = truth["sex"] == "male"
    sbp = np.clip(rng.normal(_SBP[segment] + 0.25 * (age - _AGE[segment]) + site.sbp_bias, 12.0), 84.0, 225.0)
    dbp = np.clip(rng.normal(48.0 + 0.26 * sbp - 0.1 * (age - 50.0), 7.0), 42.0, sbp - 15.0)
    egfr = np.clip(rng.normal(112.0 - 0.75 * (age - 25.0), 13.0), 8.0, 140.0)
    dx_htn = chance(rng, np.clip(_HTN[segment] + (sbp > 150.0) * 0.15, 0.0, 0.97))
    stages = np.array(["none", "g2", "g3", "g4", "g5"])
    return {
        "sbp": np.round(sbp),
        "dbp": np.round(dbp),
        "ldl": np.round(np.clip(rng.normal(np.array([2.8, 3.5, 3.1, 2.9])[segment], 0.8), 0.6, 9.0), 2),
        "hdl": np.round(np.clip(rng.normal(1.48 - 0.2 * male - 0.015 * (truth["bmi"] - 27.0), 0.28), 0.5, 3.2), 2),
        "tg": np.round(np.clip(np.exp(rng.normal(0.1 + 0.04 * (truth["bmi"] - 26.0), 0.42)), 0.3, 18.0), 2),
        "egfr": np.round(egfr),
        "ckd_stage": stages[np.digitize(-egfr, [-90.0, -60.0, -30.0, -15.0])],
        "dx_htn": dx_htn,
        "dx_htn_years": np.round(np.minimum(rng.exponential(7.0, age.shape), age - 17.0), 1),
        "dx_cvd": chance(rng, logistic(-4.6 + 0.055 * (age - 45.0) + 0.5 * male + 0.6 * truth["smoker"])),
    }


def _diabetes(rng: np.random.Generator, truth: Truth, site: SiteEffect) -> Truth:
    segment, age = truth["segment"], truth["age"]
    dx_t2d = chance(rng, _T2D[segment])
    years = np.minimum(
        np.where(chance(rng, _flat(truth, 0.12)), rng.random(age.shape), rng.exponential(8.0, age.shape)), age - 17.0
    )
    drive = rng.normal(_GLYCAEMIA[segment] + 0.03 * (truth["bmi"] - 28.0) + 0.012 * (age - 50.0), 0.9)
    hba1c = np.where(dx_t2d, 7.2 + 0.85 * drive + 0.02 * years, 5.45 + 0.24 * drive)
    hba1c = np.clip(hba1c + site.hba1c_bias, 4.0, 15.0)
    glucose = 1.59 * hba1c - 2.59
    return {
        "dx_t2d": dx_t2d,
        "dx_t2d_years": np.round(years, 2),
        "dx_lipid": chance(rng, logistic(-3.0 + 0.9 * (truth["ldl"] - 2.2) + 0.4 * dx_t2d)),
        "hba1c": np.round(hba1c, 1),
        "fpg": np.round(np.clip(rng.normal(0.9 * glucose, 0.45), 2.8, 25.0), 1),
        "ppg": np.round(np.clip(rng.normal(1.28 * glucose, 1.6), 3.0, 32.0), 1),
    }


def _treatment(rng: np.random.Generator, truth: Truth, _: SiteEffect) -> Truth:
    t2d, htn = truth["dx_t2d"], truth["dx_htn"]
    adherence = rng.beta(5.0, 2.0, t2d.shape)
    insulin = t2d & chance(rng, logistic(-3.6 + 0.09 * truth["dx_t2d_years"] + 0.5 * (truth["hba1c"] - 7.0)))
    statin = chance(rng, np.clip(0.05 + 0.45 * truth["dx_lipid"] + 0.25 * t2d + 0.3 * truth["dx_cvd"], 0.0, 0.95))
    pressure = htn & chance(rng, _flat(truth, 0.8))
    drugs = (t2d * 1.2 + insulin + statin + pressure * 1.3).astype(np.float64)
    refills = rng.poisson(2.6 * drugs * adherence)
    return {
        "adherence": adherence,
        "metformin_fills_90d": np.where(t2d & chance(rng, _flat(truth, 0.75)), rng.binomial(3, adherence), 0),
        "insulin": insulin,
        "statin": statin,
        "antihypertensive": pressure,
        "refills_90d": refills,
        "refills_30d": rng.binomial(refills, 1.0 / 3.0),
    }


def _behaviour(rng: np.random.Generator, truth: Truth, _: SiteEffect) -> Truth:
    age, adherence = truth["age"], truth["adherence"]
    steps = np.clip(rng.normal(8600.0 - 55.0 * (age - 40.0) - 130.0 * (truth["bmi"] - 26.0), 2300.0), 300.0, 24000.0)
    portal = rng.poisson(np.exp(0.6 + 0.9 * adherence - 0.02 * (age - 50.0)))
    return {
        "steps_mean_30d": np.round(steps),
        "steps_rate_30d": np.round(rng.binomial(30, logistic((steps - 7000.0) / 1500.0)) / 30.0, 3),
        "portal_logins_30d": portal,
        "education_share": np.round(rng.binomial(8, np.clip(0.15 + 0.6 * adherence, 0.0, 1.0)) / 8.0, 3),
    }


def _care(rng: np.random.Generator, truth: Truth, _: SiteEffect) -> Truth:
    t2d = truth["dx_t2d"]
    load = 1.2 + 2.4 * t2d + 1.4 * truth["dx_htn"] + 1.8 * truth["dx_cvd"]
    visits = rng.poisson(load * (0.5 + truth["adherence"]))
    since = np.minimum(rng.exponential(330.0 / (visits + 1.0)), 1500.0)
    since = np.where(visits > 0, np.minimum(since, 364.0), np.maximum(since, 366.0))
    planned = np.where(t2d, 90.0, np.where(truth["dx_htn"], 180.0, 365.0))
    return {
        "visits_12m": visits,
        "days_since_visit": np.round(since).astype(np.int64),
        "followup_overdue_days": np.round(np.maximum(0.0, since - planned)).astype(np.int64),
        "care_gap_hba1c": t2d & ((since > 180.0) | chance(rng, _flat(truth, 0.12))),
        "care_gap_eye": t2d & chance(rng, np.clip(0.55 - 0.4 * truth["adherence"], 0.0, 1.0)),
    }


def _wearables(rng: np.random.Generator, truth: Truth, _: SiteEffect) -> Truth:
    high_glucose = logistic(1.1 * (truth["hba1c"] - 8.0))
    high_pressure = logistic(0.09 * (truth["sbp"] - 142.0))
    return {
        "glu_days_high_streak": np.minimum(rng.geometric(1.0 - 0.85 * high_glucose) - 1, 30),
        "bp_days_high_streak": np.minimum(rng.geometric(1.0 - 0.85 * high_pressure) - 1, 30),
        "hr_rest_7d": np.round(
            np.clip(rng.normal(69.0 + 0.25 * (truth["bmi"] - 26.0) + 2.0 * truth["smoker"], 8.0), 42.0, 118.0)
        ),
    }


def _guarded(rng: np.random.Generator, truth: Truth, _: SiteEffect) -> Truth:
    """What stops a tag: rare, and independent of the rest but for the obvious."""
    fertile = (truth["sex"] == "female") & (truth["age"] < 46.0)
    rates = {
        "deceased": 0.003, "record_locked": 0.002, "objected": 0.01, "bereavement": 0.012, "mental_acute": 0.006,
        "surgery_30d": 0.015, "end_of_life": 0.004, "abuse": 0.003, "hiv_sti": 0.005, "dx_depression": 0.11,
    }  # fmt: skip
    found: Truth = {name: chance(rng, _flat(truth, rate)) for name, rate in rates.items()}
    found["pregnancy_loss"] = fertile & chance(rng, _flat(truth, 0.01))
    for name, rate in (("gck_variant", 0.02), ("pcsk9_variant", 0.03)):
        result = rng.choice(["not_found", "benign", "pathogenic"], size=fertile.shape, p=[0.8, 0.12, 0.08])
        found[name] = np.where(chance(rng, _flat(truth, rate)), result, "")
    return found


def _outcomes(rng: np.random.Generator, truth: Truth, site: SiteEffect) -> Truth:
    """The three outcomes; every coefficient is a log odds ratio for the unit named by the catalogue."""
    t2d = (
        -2.95
        + site.risk_shift
        + 3.9 * (truth["hba1c"] - 5.6)
        + 0.55 * (truth["fpg"] - 5.7)
        + 0.09 * (truth["bmi"] - 28.0)
        + 0.024 * (truth["age"] - 50.0)
        + 0.8 * truth["family_hx_t2d"]
        + 0.3 * truth["dx_htn"]
        + 0.25 * truth["smoker"]
        - 0.5 * (truth["hdl"] - 1.3)
        - 0.00008 * (truth["steps_mean_30d"] - 7500.0)
    )
    insulin = -3.2 + site.risk_shift + 0.95 * (truth["hba1c"] - 7.0) + 0.06 * truth["dx_t2d_years"]
    lapse = (
        -2.3
        + site.risk_shift
        + 0.008 * np.minimum(truth["days_since_visit"], 400)
        - 3.5 * (truth["adherence"] - 0.7)
        - 0.02 * (truth["age"] - 50.0)
        + 0.4 * (truth["region"] == "rural")
    )
    return {
        "t2d_within_12m": chance(rng, logistic(t2d)) & ~truth["dx_t2d"],
        "insulin_within_3m": chance(rng, logistic(insulin)) & truth["dx_t2d"] & ~truth["insulin"],
        "lapse_within_6m": chance(rng, logistic(lapse)),
    }
