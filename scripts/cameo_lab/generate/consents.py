"""Made-up consent decisions of made-up patients, in the shape that `cameo-node consent import` reads."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from cameo_client.consent.exchange import FIELDS
from cameo_client.consent.records import MADE_UP_NOTICE, SCOPES
from cameo_lab.generate.records import SNAPSHOT

# Share of patients who grant, deny, or grant and later withdraw; the rest were never asked.
RATES = {
    "care": (0.97, 0.01, 0.01),
    "health_education": (0.80, 0.08, 0.04),
    "service_reminder": (0.76, 0.08, 0.04),
    "marketing": (0.25, 0.40, 0.08),
    "model_training": (0.88, 0.05, 0.03),
    "research": (0.62, 0.14, 0.04),
}
_EXPIRES = datetime(SNAPSHOT.year + 20, 1, 1, tzinfo=UTC).isoformat()


def draw_consents(rng: np.random.Generator, person_ids: pl.Series) -> pl.DataFrame:
    """Decisions of these people, oldest first within a person; columns `person_id` and `exchange.FIELDS`."""
    frames = []
    for scope in SCOPES:
        grant, deny, withdraw = RATES[scope]
        draw = rng.random(person_ids.len())
        asked = pl.Series(rng.integers(200, 1400, person_ids.len()))
        left = pl.Series(rng.integers(1, 190, person_ids.len()))
        denied = pl.Series((draw >= grant + withdraw) & (draw < grant + withdraw + deny))
        granted, gone = pl.Series(draw < grant + withdraw), pl.Series((draw >= grant) & (draw < grant + withdraw))
        for status, mask, days in (("granted", granted, asked), ("denied", denied, asked), ("withdrawn", gone, left)):
            frames.append(_decisions(person_ids.filter(mask), days.filter(mask), scope, status))
    return pl.concat(frames).sort("person_id", "at", maintain_order=True)


def _decisions(person_ids: pl.Series, days: pl.Series, scope: str, status: str) -> pl.DataFrame:
    noon = pl.lit(SNAPSHOT) - pl.duration(days=pl.col("days"))
    frame = pl.DataFrame({"person_id": person_ids, "days": days}).with_columns(
        scope=pl.lit(scope),
        status=pl.lit(status),
        notice_version=pl.lit(MADE_UP_NOTICE.version),
        notice_sha256=pl.lit(MADE_UP_NOTICE.sha256),
        method=pl.lit("made_up"),
        at=noon.dt.strftime("%Y-%m-%dT12:00:00+00:00"),
        expires=pl.lit(_EXPIRES if status == "granted" else None, dtype=pl.String),
        guardian=pl.lit(None, dtype=pl.String),
        fictional=pl.lit(1, dtype=pl.Int8),
    )
    return frame.select("person_id", *FIELDS)
