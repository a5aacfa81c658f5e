"""Have a model's scores drifted in this hospital since it was first applied? Then rules that ask for it are stopped.

The population stability index compares how patients spread over ten score bands (or the segments) then and now; above
0.25 the population is another one. Source: Siddiqi, Credit Risk Scorecards (2006), chapter 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from cameo_client.tags.schema import MAX_SEGMENTS, SEGMENT, ModelInfo
from cameo_client.tags.store import TagStore

BANDS = 10
LIMIT = 0.25
LEAST = 200  # patients; below, chance alone passes the limit too often


def spread(values: pl.Series, *, segment: bool) -> tuple[int, ...]:
    """How many patients stand in each score band [0, .1), …, [.9, 1], or in each segment; nulls are left out."""
    known = values.drop_nulls().to_numpy()
    if segment:
        return tuple(np.bincount(known.astype(np.int64), minlength=MAX_SEGMENTS + 1)[1:].tolist())
    return tuple(np.histogram(known, bins=BANDS, range=(0.0, 1.0))[0].tolist())


def stability(before: Sequence[int], now: Sequence[int]) -> float | None:
    """The index, >= 0; None where either side has fewer than `LEAST` patients. An empty band counts as half a one."""
    if min(sum(before), sum(now)) < LEAST or len(before) != len(now):
        return None
    pairs = [(one, other) for one, other in zip(before, now, strict=True) if one or other]
    shares = [(max(one, 0.5) / sum(before), max(other, 0.5) / sum(now)) for one, other in pairs]
    return math.fsum((new - old) * math.log(new / old) for old, new in shares)


def judged(models: Sequence[ModelInfo], facts: pl.DataFrame, store: TagStore) -> tuple[ModelInfo, ...]:
    """The models with `drifted` set from these facts and from the spread that the store keeps of each.

    A model that is already known to have drifted stays so, whatever fewer facts would say.
    """
    known = store.spreads() if models else {}
    return tuple(replace(model, drifted=model.drifted or _drifted(model, facts, known)) for model in models)


def remember(models: Sequence[ModelInfo], facts: pl.DataFrame, store: TagStore) -> None:
    """Keep each model's spread when it is applied for the first time; spreads of models no longer in use go."""
    store.keep_spreads({model.model_id: _spread(model, facts) for model in models if model.name in facts.columns})


def _spread(model: ModelInfo, facts: pl.DataFrame) -> tuple[int, ...]:
    return spread(facts[model.name], segment=model.name == SEGMENT)


def _drifted(model: ModelInfo, facts: pl.DataFrame, known: Mapping[str, Sequence[int]]) -> bool:
    before = known.get(model.model_id)
    if before is None or model.name not in facts.columns:
        return False
    index = stability(before, _spread(model, facts))
    return index is not None and index > LIMIT
