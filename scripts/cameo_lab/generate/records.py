"""What a hospital would have written down of the truth: gaps, and a few planted errors.

Gaps depend on who the patient is (HbA1c is measured where diabetes is known), as in real records. The errors are the
common ones (units mixed up, a digit too many, two values swapped), few enough that the quality score stays well
above 90; each lies outside the catalogue's plausible range or contradicts another fact, so that the explicit cleaning
of the `table` source finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_lab.generate.population import Truth, chance
from cameo_lab.generate.sites import SiteEffect

SNAPSHOT = date(2026, 6, 30)
Mask = npt.NDArray[np.bool_]
_LABS = (("fpg", 0.25), ("ldl", 0.18), ("hdl", 0.2), ("tg", 0.2), ("egfr", 0.18))
_HISTORY = (
    ("family_hx_t2d", 0.1),
    ("family_hx_cvd", 0.15),
    ("family_hx_lung", 0.12),
    ("smoker", 0.07),
    ("region", 0.02),
)
_ERRORS: tuple[tuple[str, float, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]], ...] = (
    ("ldl", 0.003, lambda value: value * 38.67),  # mg/dL
    ("hba1c", 0.003, lambda value: (value - 2.15) * 10.93),  # mmol/mol
    ("bmi", 0.001, lambda value: value * 10.0),  # a decimal point lost
    ("sbp", 0.001, lambda value: value * 10.0),  # a digit too many
    ("age", 0.0005, lambda value: value * 0.0 + 999.0),  # "unknown" in an old system
)


def observe(rng: np.random.Generator, truth: Truth, site: SiteEffect, first: int, prefix: str) -> pl.DataFrame:
    """What is on record: `person_id`, the facts of the catalogue and the outcomes, null where there is a gap.

    first: number of the first patient; prefix: of the person ids, which say that they are synthetic. Bools are 0 / 1.
    """
    size = truth["age"].shape[0]
    gaps = _gaps(rng, truth, site)
    values = {name: column for name, column in truth.items() if name not in ("segment", "adherence")}
    swapped = chance(rng, np.full(size, 0.002 * site.errors))
    values["sbp"], values["dbp"] = (
        np.where(swapped, truth["dbp"], truth["sbp"]),
        np.where(swapped, truth["sbp"], truth["dbp"]),
    )
    for name, rate, spoil in _ERRORS:
        wrong = chance(rng, np.full(size, rate * site.errors))
        values[name] = np.where(wrong, np.round(spoil(values[name].astype(np.float64)), 1), values[name])
    frame = pl.DataFrame({name: _column(column, gaps.get(name)) for name, column in values.items()})
    ids = [f"{prefix}{number:07d}" for number in range(first, first + size)]
    return frame.insert_column(0, pl.Series("person_id", ids))


def as_table(observed: pl.DataFrame) -> pl.DataFrame:
    """The flat export, as conf/sources/cardiometabolic.yaml maps it: letter codes for sex, dates for durations."""
    start = pl.lit(SNAPSHOT)
    return observed.select(
        "person_id",
        pl.lit(1, dtype=pl.Int8).alias("synthetic"),
        pl.all().exclude("person_id", "sex", "days_since_visit", "dx_t2d_years", "dx_htn_years"),
        pl.col("sex").replace_strict({"female": "F", "male": "M"}).alias("sex"),
        (start - pl.duration(days=pl.col("days_since_visit"))).cast(pl.Date).alias("last_visit"),
        *(
            (start - pl.duration(days=(pl.col(f"{name}_years") * 365.25).round())).cast(pl.Date).alias(f"{name}_since")
            for name in ("dx_t2d", "dx_htn")
        ),
    )


def _gaps(rng: np.random.Generator, truth: Truth, site: SiteEffect) -> dict[str, Mask]:
    """Fact -> (N,) bool, True where the record lacks it."""
    t2d, htn = truth["dx_t2d"], truth["dx_htn"]
    size = t2d.shape

    def missing(rate: float | npt.NDArray[np.float64]) -> Mask:
        return chance(rng, np.clip(np.broadcast_to(rate, size) * site.gaps, 0.0, 0.95))

    no_pressure, no_wearable = missing(0.02), missing(0.45)
    gaps = {name: missing(rate) for name, rate in (*_LABS, *_HISTORY)}
    gaps |= dict.fromkeys(("sbp", "dbp"), no_pressure)
    gaps |= dict.fromkeys(("steps_mean_30d", "steps_rate_30d", "hr_rest_7d"), no_wearable)
    return gaps | {
        "bmi": missing(0.02),
        "hba1c": missing(np.where(t2d, 0.04, 0.3)),
        "ppg": ~t2d | missing(0.4),
        "education_share": ~(t2d | htn) | missing(0.3),
        "glu_days_high_streak": ~t2d | missing(0.45),
        "bp_days_high_streak": ~htn | missing(0.5),
        "dx_t2d_years": ~t2d,
        "dx_htn_years": ~htn,
        "ckd_stage": gaps["egfr"],
        "gck_variant": truth["gck_variant"] == "",
        "pcsk9_variant": truth["pcsk9_variant"] == "",
        "t2d_within_12m": missing(0.03),
        "insulin_within_3m": ~t2d | missing(0.02),
        "lapse_within_6m": missing(0.02),
    }


def _column(values: npt.NDArray[np.generic], gap: Mask | None) -> pl.Series:
    series = pl.Series(values.tolist() if values.dtype.kind == "U" else values)
    series = series.cast(pl.Int8) if series.dtype == pl.Boolean else series
    return series if gap is None else series.set(pl.Series(gap), None)
