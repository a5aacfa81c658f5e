"""The columns a predicate may name: the facts of the catalogue and the outputs of models."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cameo_client.tags.finding import Fault
from cameo_client.tags.rfa import MOST, PARTS, RFA, Part
from cameo_protocol.facts import Catalogue, Fact, Purpose, Sensitivity

Kind = Literal["number", "bool", "enum"]
SENSITIVITY_ORDER: tuple[Sensitivity, ...] = ("normal", "health", "inferred_health", "mental", "genetic")
ALL_PURPOSES: tuple[Purpose, ...] = (
    "care_management", "service_reminder", "health_education", "marketing", "research",
)  # fmt: skip
MAX_SEGMENTS = 64
SEGMENT = "segment"  # the column, and the name of the model that fills it


@dataclass(frozen=True, kw_only=True)
class Column:
    """One readable column. low, high: plausible range of a number, inclusive. model: "" for a fact, else the
    name of the model that fills it. purposes: what the column may be read for. score: made up of points for these
    facts, where the frame does not hold it.
    """

    name: str
    kind: Kind
    whole: bool = False
    unit: str = ""
    values: tuple[str, ...] = ()
    low: float = float("-inf")
    high: float = float("inf")
    sensitivity: Sensitivity
    purposes: tuple[Purpose, ...]
    model: str = ""
    score: tuple[Part, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A released model whose outputs stand in the frame. name: "segment", or the risk column it fills.

    released: when it was published, timezone-aware. model_id: hash or id of the bundle. run: the run that trained it.
    audited: the recipe's privacy audit passed, as the signed card says. changed: segments whose number means something
    else than in the model before, and since when. calibrated, drifted, within_budget: what the hospital's checks say.
    """

    name: str
    version: int
    model_id: str
    released: datetime
    run: str = ""
    round: int = 0
    audited: bool = False
    calibrated: bool = False
    drifted: bool = False
    within_budget: bool = True
    changed: tuple[tuple[int, datetime], ...] = ()


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A stored model that does not serve. name: of the model, "" where not even that can be read. reason: a code."""

    run: str
    name: str
    reason: str
    what: str


@dataclass(frozen=True)
class Schema:
    """All columns by name, and the id of the catalogue they come from ("heart@1")."""

    id: str
    columns: Mapping[str, Column]

    def column(self, name: str) -> Column:
        """The column of that name. A risk column needs no model at hand: risk_<label> is a number in [0, 1].

        Unknown: `Fault("column-unknown")` with the nearest names.
        """
        if name in self.columns:
            return self.columns[name]
        if name.startswith("risk_") and len(name) > len("risk_"):
            return _risk(name)
        near = difflib.get_close_matches(name.lower(), self.columns, n=3, cutoff=0.6)
        do = f"did you mean {' or '.join(near)}?" if near else f"use a column of the catalogue {self.id}"
        raise Fault("column-unknown", f"the facts have no column {name!r}", do.rstrip("?"))

    def strictest(self, names: Iterable[str]) -> Sensitivity:
        """The highest sensitivity of the named columns; none named: "normal"."""
        ranks = [SENSITIVITY_ORDER.index(self.column(name).sensitivity) for name in names]
        return SENSITIVITY_ORDER[max(ranks, default=0)]


def schema_of(catalogue: Catalogue) -> Schema:
    """The columns of a catalogue plus `segment` (1..K), `segment_strength` (0..1) and, with its facts, `rfa_score`."""
    columns = {fact.name: _fact(fact) for fact in catalogue.facts}
    if all(part.fact in columns for part in PARTS):
        columns.setdefault(RFA, _rfa([columns[part.fact] for part in PARTS]))
    for column in (_segment(), _strength()):
        columns.setdefault(column.name, column)
    return Schema(f"{catalogue.id}@{catalogue.version}", columns)


def _fact(fact: Fact) -> Column:
    kind: Kind = "number" if fact.type in ("float", "int") else "bool" if fact.type == "bool" else "enum"
    low, high = fact.plausible or (float("-inf"), float("inf"))
    return Column(
        name=fact.name,
        kind=kind,
        whole=fact.type == "int",
        unit=fact.unit,
        values=fact.values,
        low=low,
        high=high,
        sensitivity=fact.sensitivity,
        purposes=fact.purposes,
    )


def _rfa(facts: list[Column]) -> Column:
    """As sensitive as its most sensitive fact, and for such purposes only as all of them allow."""
    return Column(
        name=RFA,
        kind="number",
        whole=True,
        unit="points",
        low=0,
        high=MOST,
        sensitivity=max((fact.sensitivity for fact in facts), key=SENSITIVITY_ORDER.index),
        purposes=tuple(purpose for purpose in ALL_PURPOSES if all(purpose in fact.purposes for fact in facts)),
        score=PARTS,
    )


def _risk(name: str) -> Column:
    return Column(
        name=name, kind="number", low=0.0, high=1.0, sensitivity="inferred_health", purposes=ALL_PURPOSES, model=name
    )


def _segment() -> Column:
    return Column(
        name=SEGMENT,
        kind="number",
        whole=True,
        low=1,
        high=MAX_SEGMENTS,
        sensitivity="inferred_health",
        purposes=ALL_PURPOSES,
        model=SEGMENT,
    )


def _strength() -> Column:
    return Column(
        name="segment_strength",
        kind="number",
        low=0.0,
        high=1.0,
        sensitivity="inferred_health",
        purposes=ALL_PURPOSES,
        model=SEGMENT,
    )
