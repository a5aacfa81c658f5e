"""What the hospital's officer decides about tags: legal bases, sensitive situations, review, contact, fairness."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from cameo_client.tags.finding import Fault
from cameo_client.tags.pack import ColumnName, Id, Scope, Text, read_text
from cameo_client.tags.predicate import Tree, parse
from cameo_client.tags.schema import Schema
from cameo_client.tags.typecheck import check
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Purpose
from cameo_protocol.plan import Hex32
from cameo_protocol.strict_yaml import parse_model

Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """Base of every part of the policy."""


class Situation(_Frozen):
    """A time in a patient's life in which some purposes stop. when: a predicate over the facts."""

    name: Id
    when: str
    stops: tuple[Purpose, ...] = Field(min_length=1)

    @field_validator("when")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            parse(value)
        except Fault as fault:
            raise ValueError(f"{fault.what}; {fault.do}") from None
        return value

    def tree(self, schema: Schema) -> Tree | None:
        """The predicate on these facts; None when they have not all of its columns, so that it cannot be observed.

        A predicate that contradicts the catalogue (such as an unlisted value) is `OperatorError`: it would protect
        nobody.
        """
        tree = parse(self.when)
        for fault in check(tree, schema):
            if fault.code == "column-unknown":
                return None
            raise OperatorError(
                "tag-policy-invalid",
                what=f"sensitive situation {self.name}: {fault.what}",
                do=f"correct the tag policy: {fault.do}",
                exit=ExitCode.POLICY,
            )
        return tree


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone of this machine, such as Europe/Berlin") from None
    return value


Zone = Annotated[str, AfterValidator(_zone)]


class QuietHours(_Frozen):
    """No messages from `start` until `end` in the patient's zone; the span may pass midnight.

    zone: that of the hospital, and of every patient of whom no other is known. column, zones: a fact such as `region`
    and the zone that each of its values means.
    """

    start: Clock
    end: Clock
    zone: Zone
    column: ColumnName | None = None
    zones: dict[str, Zone] = {}

    def covers(self, at: time) -> bool:
        """Whether a local time lies in the quiet span; the end itself does not."""
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        return start <= at < end if start <= end else at >= start or at < end


class Fairness(_Frozen):
    """Groups whose tag rates are compared; alert below `ratio`, or above its inverse, times the overall rate."""

    columns: tuple[ColumnName, ...] = ("sex", "region", "insurance")
    age_bands: tuple[int, ...] = (18, 40, 65, 80)
    ratio: float = Field(default=0.8, gt=0, lt=1)


class Exports(_Frozen):
    """How many rows may leave the store within 24 hours, by everybody and by one person; may be lowered."""

    rows_per_day: int = Field(default=100_000, ge=0, le=100_000)
    rows_per_person: int = Field(default=50_000, ge=0, le=100_000)


class TagPolicy(_Frozen):
    """The officer's decisions. legal_basis: purposes that rest on another basis than consent, with its text.

    Only care may; marketing, education, reminders and research always need consent.
    double_confirmed: scopes for which only a doubly confirmed grant counts.
    age_column: tells minors, who need a guardian's decision; a patient whose age is null counts as one.
    flags: yes/no facts that stop every tag of a patient. quality_floor may be raised, not lowered.
    max_snapshot_age_days: None leaves the age of the facts to the quality score.
    withdrawn_models: ids of models that must not serve; the next older one of the same column takes their place.
    """

    version: Literal[1]
    legal_basis: dict[Purpose, Text] = {}
    double_confirmed: tuple[Scope, ...] = ("marketing",)
    age_column: ColumnName = "age"
    quality_floor: float = Field(default=90, ge=90, le=100)
    max_snapshot_age_days: int | None = Field(default=None, ge=1)
    flags: dict[Literal["objected", "deceased", "record_locked"], ColumnName] = {
        "objected": "objected",
        "deceased": "deceased",
        "record_locked": "record_locked",
    }
    situations: tuple[Situation, ...]
    review_sample: float = Field(default=0.05, ge=0.01, le=1)
    contacts_per_day: int = Field(default=2, ge=0, le=2)
    quiet: QuietHours
    fairness: Fairness = Fairness()
    exports: Exports = Exports()
    withdrawn_models: tuple[Hex32, ...] = ()

    @model_validator(mode="after")
    def _care_only(self) -> Self:
        other = set(self.legal_basis) - {"care_management"}
        if other:
            raise ValueError(f"{min(other)} always needs consent; only care_management may rest on another basis")
        return self


def laxer(own: TagPolicy, least: TagPolicy) -> tuple[str, ...]:
    """Where a hospital's policy protects less than the one that Cameo ships: one phrase a place; none: it may be used.

    A situation protects as much only under its name with the very same predicate.
    """
    kept = {(one.name, one.when): set(one.stops) for one in own.situations}
    minutes = [time(minute // 60, minute % 60) for minute in range(24 * 60)]
    faults = {
        f"the situation {one.name} must stop {', '.join(one.stops)} when {one.when}": (
            not set(one.stops) <= kept.get((one.name, one.when), set())
        )
        for one in least.situations
    }
    faults |= {
        "legal_basis names more purposes": not set(own.legal_basis) <= set(least.legal_basis),
        "double_confirmed leaves a scope out": not set(least.double_confirmed) <= set(own.double_confirmed),
        "flags leave one out": not set(least.flags) <= set(own.flags),
        "review_sample is smaller": own.review_sample < least.review_sample,
        "quiet hours are shorter": any(least.quiet.covers(at) and not own.quiet.covers(at) for at in minutes),
        "withdrawn_models leaves one out": not set(least.withdrawn_models) <= set(own.withdrawn_models),
        "fairness looks at fewer facts": not set(least.fairness.columns) <= set(own.fairness.columns),
        "fairness alerts later": own.fairness.ratio < least.fairness.ratio,
    }
    return tuple(what for what, found in faults.items() if found)


def load_policy(path: Path) -> TagPolicy:
    """Read the policy file; anything wrong with it is an `OperatorError`."""
    return parse_model(read_text(path).encode(), TagPolicy, name=str(path))
