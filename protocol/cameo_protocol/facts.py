"""The facts catalogue: what a patient row may hold, and the public constants with which models read it.

Pure data model. A catalogue is public, versioned and hashed into every plan, so that every hospital scales
its features with the same constants and nothing about a model's input is derived from private rows.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

FactType = Literal["float", "int", "bool", "enum"]
Group = Literal["static", "dynamic", "behaviour", "need"]
Sensitivity = Literal["normal", "health", "inferred_health", "mental", "genetic"]
Purpose = Literal["care_management", "service_reminder", "health_education", "marketing", "research"]


class Code(BaseModel, frozen=True, extra="forbid"):
    """One code of a public code system (LOINC, SNOMED, ICD-10, ATC, OMOP concept id)."""

    system: str
    code: str


class Fact(BaseModel, frozen=True, extra="forbid"):
    """One column of the facts table.

    plausible: [low, high] in `unit`; a value outside is a data error.
    scale: [low, high] public clinical reference range that models map to [-1, 1]; values beyond are clipped.
    model: whether models read this fact. missing: whether it may be null (then models get an indicator).
    zero_is_missing: the source writes 0 for "not measured".
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    meaning: str = Field(min_length=3, max_length=300)
    type: FactType
    group: Group
    unit: str = ""
    values: tuple[str, ...] = ()
    codes: tuple[Code, ...] = ()
    plausible: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    model: bool = False
    missing: bool = True
    zero_is_missing: bool = False
    required: bool = False
    sensitivity: Sensitivity = "health"
    purposes: tuple[Purpose, ...] = ("care_management",)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.type == "enum") != bool(self.values):
            raise ValueError(f"{self.name}: exactly the enum facts list their values")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"{self.name}: a value is listed twice")
        numeric = self.type in ("float", "int")
        if numeric and self.plausible is None:
            raise ValueError(f"{self.name}: a number needs its plausible range")
        if numeric and self.model and self.scale is None:
            raise ValueError(f"{self.name}: a model reads this number, so it needs its public scale")
        for label, pair in (("plausible", self.plausible), ("scale", self.scale)):
            if pair is not None and not (numeric and pair[0] < pair[1]):
                raise ValueError(f"{self.name}: {label} is [low, high] with low < high, for numbers only")
        return self


class Catalogue(BaseModel, frozen=True, extra="forbid"):
    """A facts catalogue: an id, a version, and its facts in column order."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    title: str
    source: str = ""
    synthetic: bool = False
    facts: tuple[Fact, ...] = Field(min_length=1, max_length=500)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [fact.name for fact in self.facts]
        if len(set(names)) != len(names):
            raise ValueError("a fact is defined twice")
        return self

    def fact(self, name: str) -> Fact:
        """The fact of that name; KeyError when the catalogue has none."""
        for fact in self.facts:
            if fact.name == name:
                return fact
        raise KeyError(name)

    def sha256(self) -> str:
        """Hash of the canonical JSON of the whole catalogue, hex."""
        return content_hash(self)


class LabelDefinition(BaseModel, frozen=True, extra="forbid"):
    """What a risk model predicts: the outcome, its window, and who is left out.

    outcome: name of the outcome column in the source (a `table` source maps it); positive: a source value above
    this number counts as 1. window_days: prediction window after the index date; 0 = at the index date.
    exclude: facts whose being true leaves the patient out.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    meaning: str
    catalogue: str
    outcome: str
    positive_above: float = 0.0
    window_days: int = Field(default=0, ge=0)
    exclude: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Hash of the canonical JSON of the definition, hex."""
        return content_hash(self)


def content_hash(model: BaseModel) -> str:
    """SHA-256, hex, of a model's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def feature_names(catalogue: Catalogue) -> tuple[str, ...]:
    """Names of the model inputs in order; the length is the number of features of every model on this catalogue.

    A number or bool gives one feature, an enum one per value ("name=value"); a fact that may be missing adds
    "name?" (1 when missing).
    """
    names: list[str] = []
    for fact in catalogue.facts:
        if not fact.model:
            continue
        names += [f"{fact.name}={value}" for value in fact.values] if fact.type == "enum" else [fact.name]
        if fact.missing:
            names.append(f"{fact.name}?")
    return tuple(names)
