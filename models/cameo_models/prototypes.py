"""What a segment looks like, in clinical units, so that people can name it."""

from __future__ import annotations

import numpy as np

from cameo_models.shapes import Parameters, unflatten
from cameo_protocol.facts import Catalogue, Fact, feature_names
from cameo_protocol.plan import SegmentTask

Described = dict[str, float | str | None]

# Above this share of missing values the rest says nothing about the segment.
MOSTLY_MISSING = 0.8


def describe_prototypes(catalogue: Catalogue, task: SegmentTask, params: Parameters) -> list[Described]:
    """For each of the K prototypes, fact name -> its value; only the facts that models read.

    A number: its mean where it is known, in the fact's unit, within its public scale. A bool: the share of true,
    in [0, 1]. An enum: its most frequent value. None: mostly missing in this segment.
    Reads the released parameters only, so it costs no privacy; noise shows in it.
    """
    centres = unflatten(task, len(feature_names(catalogue)), params)["prototypes.centres"]
    return [_describe(catalogue, centre) for centre in centres]


def _describe(catalogue: Catalogue, centre: Parameters) -> Described:
    described: Described = {}
    at = 0
    for fact in catalogue.facts:
        if not fact.model:
            continue
        width = len(fact.values) or 1
        missing = float(np.clip(centre[at + width], 0.0, 1.0)) if fact.missing else 0.0
        described[fact.name] = None if missing > MOSTLY_MISSING else _value(fact, centre[at : at + width], missing)
        at += width + int(fact.missing)
    return described


def _value(fact: Fact, features: Parameters, missing: float) -> float | str:
    """A missing value counts as 0 in the mean of a feature, so the mean of the known ones is larger by 1 / known."""
    if fact.type == "enum":
        return fact.values[int(features.argmax())]
    low, high = (0.0, 1.0) if fact.scale is None else fact.scale
    known = float(np.clip(features[0] / (1.0 - missing), -1.0, 1.0))
    return low + (known + 1.0) / 2.0 * (high - low)
