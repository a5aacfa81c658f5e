"""A hospital's facts in a table for its own people: which facts there are and, in coarse steps, how complete."""

from __future__ import annotations

from dataclasses import dataclass

from cameo_client.data.hospital import HospitalData
from cameo_protocol.facts import Catalogue

STEP = 5


@dataclass(frozen=True)
class FactLine:
    """One fact. known: percent of patients for whom it is known, rounded to 5, so that few rows do not show."""

    name: str
    meaning: str
    type: str
    unit: str
    known: int
    read_by_models: bool
    sensitivity: str


def describe(data: HospitalData, catalogue: Catalogue) -> tuple[FactLine, ...]:
    """One line a fact, in catalogue order. Holds no value and no exact count."""
    height = data.facts.height
    return tuple(
        FactLine(
            fact.name,
            fact.meaning,
            fact.type,
            fact.unit,
            STEP * round(100 * (height - data.facts[fact.name].null_count()) / height / STEP),
            fact.model,
            fact.sensitivity,
        )
        for fact in catalogue.facts
    )
