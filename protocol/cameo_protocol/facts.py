"""The facts catalogue: what a patient row may hold, and the public constants with which models read it.

Pure data model. A catalogue is public, versioned and hashed into every plan, so that every hospital scales
its features with the same constants and nothing about a model's input is derived from private rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from cameo_protocol import strict_yaml
from cameo_protocol.errors import OperatorError

FactType = Literal["float", "int", "bool", "enum"]
Group = Literal["static", "dynamic", "behaviour", "need"]
Sensitivity = Literal["normal", "health", "inferred_health", "mental", "genetic"]
Purpose = Literal["care_management", "service_reminder", "health_education", "marketing", "research"]
How = Literal["given", "last", "mean", "count", "share", "streak", "ever", "days_since", "years_since"]


class Code(BaseModel, frozen=True, extra="forbid"):
    """One code of a public code system (LOINC, SNOMED, ICD-10, ATC, OMOP concept id)."""

    system: str
    code: str


class Derivation(BaseModel, frozen=True, extra="forbid"):
    """How a fact follows from dated events before the index date.

    lookback_days: the window opens that many days before the index date; None = the whole history.
    until_days: the window closes that many days before the index date. It cannot be negative, so no fact looks
    past the index date into the time that a label predicts.
    """

    how: How = "given"
    lookback_days: int | None = Field(default=None, ge=1, le=36525)
    until_days: int = Field(default=0, ge=0, le=36525)

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.lookback_days is not None and self.until_days >= self.lookback_days:
            raise ValueError("the look-back window is empty: until_days must be below lookback_days")
        return self


class Fact(BaseModel, frozen=True, extra="forbid"):
    """One column of the facts table.

    plausible: [low, high] in `unit`; a value outside is a data error.
    scale: [low, high] public clinical reference range that models map to [-1, 1]; values beyond are clipped.
    model: whether models read this fact. missing: whether it may be null (then models get an indicator).
    zero_is_missing: the source writes 0 for "not measured".
    required: the quality gate takes points for a null here; required facts may still be null.
    derive: the window and the way in which a source of dated events computes it.
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
    derive: Derivation = Derivation()

    @property
    def title(self) -> str:
        """`meaning` up to its first aside: what charts and tables call the fact."""
        return re.split(r"[,;(]", self.meaning, maxsplit=1)[0].strip()

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


class Consistency(BaseModel, frozen=True, extra="forbid"):
    """Two facts of one patient that must agree; unknown when either is null.

    "below": the number `fact` < the number `other`. "at_most": <=.
    "only_if": where `fact` is true, or is a number above 0, the bool `other` is true.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    kind: Literal["below", "at_most", "only_if"]
    fact: str
    other: str


class Catalogue(BaseModel, frozen=True, extra="forbid"):
    """A facts catalogue: an id, a version, its facts in column order, and the rules between them.

    synthetic: no real patient is behind it; whoever shows results says so.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    title: str
    source: str = ""
    synthetic: bool = False
    facts: tuple[Fact, ...] = Field(min_length=1, max_length=500)
    consistency: tuple[Consistency, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [fact.name for fact in self.facts]
        if len(set(names)) != len(names):
            raise ValueError("a fact is defined twice")
        if len({rule.id for rule in self.consistency}) != len(self.consistency):
            raise ValueError("a consistency rule is defined twice")
        kinds = {fact.name: fact.type for fact in self.facts}
        for rule in self.consistency:
            _check_rule(rule, kinds)
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


def _check_rule(rule: Consistency, kinds: dict[str, FactType]) -> None:
    """Refuse a consistency rule whose facts are unknown or of a type it cannot compare."""
    one, other = kinds.get(rule.fact), kinds.get(rule.other)
    numbers = ("float", "int")
    if rule.kind == "only_if":
        sound = one in (*numbers, "bool") and other == "bool"
    else:
        sound = one in numbers and other in numbers
    if not sound:
        raise ValueError(f"{rule.id}: {rule.kind} does not apply to {rule.fact} and {rule.other}")


class LabelDefinition(BaseModel, frozen=True, extra="forbid"):
    """What a risk model predicts: the outcome, its window, and who is left out.

    outcome: name of the outcome column in the source (a `table` source maps it); positive: a source value above
    this number counts as 1. window_days: prediction window after the index date; 0 = at the index date.
    exclude, require: bool facts that leave the patient out by being true, or by being anything but true; unknown
    leaves out either way. The index date is the snapshot date of the facts.
    codes: the outcome's concept set in public code systems.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    meaning: str
    catalogue: str
    outcome: str
    positive_above: float = 0.0
    window_days: int = Field(default=0, ge=0)
    exclude: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    codes: tuple[Code, ...] = ()

    def sha256(self) -> str:
        """Hash of the canonical JSON of the definition, hex."""
        return content_hash(self)


def parse_catalogue(raw: bytes, *, name: str) -> Catalogue:
    """A catalogue from its YAML text; anything else is an `OperatorError`. name: what the error calls it."""
    return strict_yaml.parse_model(raw, Catalogue, name=name)


def parse_label(raw: bytes, *, name: str) -> LabelDefinition:
    """A label definition from its YAML text; anything else is an `OperatorError`."""
    return strict_yaml.parse_model(raw, LabelDefinition, name=name)


def check_label(label: LabelDefinition, catalogue: Catalogue) -> None:
    """Refuse a label that does not belong to the catalogue or leaks into it: its outcome must not be a fact."""
    kinds = {fact.name: fact.type for fact in catalogue.facts}
    problem = ""
    if label.catalogue != catalogue.id:
        problem = f"it is written for the catalogue {label.catalogue}"
    elif label.outcome in kinds:
        problem = f"its outcome {label.outcome} is also a fact, so a model would read what it predicts"
    elif wrong := [name for name in (*label.exclude, *label.require) if kinds.get(name) != "bool"]:
        problem = f"it chooses patients by {wrong[0]}, which is no bool fact"
    if problem:
        raise OperatorError(
            "label-mismatch",
            what=f"label {label.id} does not fit catalogue {catalogue.id}: {problem}",
            do=f"correct conf/labels/{label.id}.yaml or choose another label",
        )


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
