"""The rule-pack format: one strict YAML file, validated once, frozen, and hashed.

`read_pack` gives the pack and the findings about its form; what the predicates mean is checked in `lint.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator

from cameo_client.tags.finding import Finding, refuse
from cameo_client.tags.strict_yaml import MAX_BYTES, Document, YamlFault, read
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Purpose, Sensitivity, content_hash
from cameo_protocol.faults import KeyFault, all_faults

Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=60)]
Semver = Annotated[str, Field(pattern=r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$")]
Text = Annotated[str, Field(min_length=3, max_length=600)]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9 -]{2,59}$")]
Days = Annotated[StrictInt, Field(ge=1, le=3660)]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Scope = Literal["care", "health_education", "service_reminder", "marketing", "research"]
Status = Literal["draft", "reviewed", "active", "retired"]
Review = Literal["none", "sample", "always", "two_person"]
Require = Literal["calibrated", "no_drift", "within_budget"]
MAX_FINDINGS = 50
Given = StrictBool | StrictInt | StrictFloat | str | None

SCOPE_OF: Mapping[Purpose, Scope] = {
    "care_management": "care",
    "service_reminder": "service_reminder",
    "health_education": "health_education",
    "marketing": "marketing",
    "research": "research",
}
REVIEW_ORDER: tuple[Review, ...] = ("none", "sample", "always", "two_person")


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """Base of every part of a pack: unknown keys are refused."""


class TagSpec(_Frozen):
    """What is said about the patient, and for how long it may be said."""

    name: Id
    dimension: Literal["static", "dynamic", "behaviour", "need"]
    category: Literal["disease", "behaviour", "psychology", "value", "service"]
    ttl_days: Days


class ModelNeed(_Frozen):
    """The model whose output a rule reads. name: "segment", or the column itself, such as risk_heart_disease."""

    name: ColumnName
    min_version: StrictInt = Field(ge=1)
    max_age_days: Days
    require: tuple[Require, ...] = ()


class Hysteresis(_Frozen):
    """A patient enters at `enter` and, once tagged, stays until `exit`: both thresholds of one column in `when`."""

    column: ColumnName
    enter: StrictInt | StrictFloat
    exit: StrictInt | StrictFloat


class Effective(_Frozen):
    """First and last day on which the rule may tag; no `until` means open-ended."""

    from_: date = Field(alias="from")
    until: date | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.until is not None and self.until < self.from_:
            raise ValueError("effective.until lies before effective.from")
        return self


class Case(_Frozen):
    """One worked example: facts (a missing one is null) and the answer. held: the patient has the tag already."""

    given: Mapping[ColumnName, Given]
    expect: Literal["true", "false", "unknown"]
    held: StrictBool = False

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("expect"), bool):
            return {**value, "expect": "true" if value["expect"] else "false"}
        return value


class Rule(_Frozen):
    """One rule: when it is true of a patient's facts, the tag is proposed; the guards decide about the rest.

    consent: further scopes that must be granted besides the purpose's own. funding: "third_party" means that
    somebody outside the hospital pays, which is marketing whatever the text says. contact: whether the tag leads
    to a message to the patient; "safety" messages pass the cap and the quiet hours, and carry no product.
    """

    id: Id
    version: StrictInt = Field(ge=1)
    status: Status
    tag: TagSpec
    when: str
    unless: str = ""
    on_unknown: Literal["skip", "review"] = "skip"
    trigger: Literal["disease", "behaviour", "time", "state"]
    model: ModelNeed | None = None
    hysteresis: Hysteresis | None = None
    priority: StrictInt = Field(ge=0, le=1000)
    exclusive_group: Id | None = None
    cooldown_days: StrictInt = Field(default=0, ge=0, le=3660)
    purpose: Purpose
    consent: tuple[Scope, ...] = ()
    funding: Literal["own", "third_party"] = "own"
    sensitivity: Sensitivity | None = None
    review: Review
    contact: Literal["none", "patient", "safety"] = "none"
    evidence: tuple[Text, ...] = Field(min_length=1, max_length=10)
    review_by: date
    owner: Role
    reviewer: Role
    effective: Effective
    explain: Text
    explain_staff: Text
    tests: tuple[Case, ...] = Field(min_length=2, max_length=50)

    def scopes(self) -> tuple[Scope, ...]:
        """The consent scopes a patient must have granted, the purpose's own first."""
        own = SCOPE_OF[self.purpose]
        return (own, *(scope for scope in self.consent if scope != own))

    def logic_sha256(self) -> str:
        """Hash of what decides whom the rule tags; a change of it needs a new `version`."""
        part = self.model_dump(mode="json", include={"when", "unless", "on_unknown", "model", "hysteresis"})
        text = json.dumps(part, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Header(_Frozen):
    """Identity of a pack. facts_schema: catalogue id and version, as in "heart@1"."""

    id: Id
    version: Semver
    facts_schema: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}@[1-9]\d{0,5}$")
    title: Text


class Pack(_Frozen):
    """A whole pack: its header and its rules in file order."""

    pack: Header
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=500)

    def sha256(self) -> str:
        """Content hash, hex: comments and layout of the file do not count, every value does."""
        return content_hash(self)

    def rule(self, rule_id: str) -> Rule | None:
        """The rule of that id, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)


def parse_pack(text: str, file: str) -> tuple[Pack | None, Document, tuple[Finding, ...]]:
    """Read a pack's form: (pack or None, the document with its lines, findings). Never raises on bad text."""
    try:
        document = read(text)
    except YamlFault as fault:
        finding = Finding(file=file, line=fault.line, code=fault.code, what=fault.what, do=fault.do)
        return None, Document(None, {}), (finding,)
    try:
        return Pack.model_validate(document.value), document, ()
    except ValidationError as error:
        items = all_faults(error, Pack)
        found = tuple(_finding(item, document, file) for item in items if not _echo(item, items))
        return None, document, found[:MAX_FINDINGS]


def _echo(item: KeyFault, items: Sequence[KeyFault]) -> bool:
    """A list "too short" only because its elements are faulty, which other items say already."""
    place = item.place
    inside = (other.place[: len(place)] == place and other is not item for other in items)
    return item.kind == "too_short" and any(inside)


def _finding(item: KeyFault, document: Document, file: str) -> Finding:
    path = item.place
    remedies = {
        "missing": ("pack-field-missing", "add the field; docs/tags.md lists them"),
        "extra_forbidden": ("pack-field-unknown", "remove it or correct its spelling"),
    }
    code, do = remedies.get(item.kind, ("pack-field-invalid", "correct the value; docs/tags.md lists what is allowed"))
    rule = ""
    if len(path) > 1 and path[0] == "rules" and isinstance(path[1], int):
        entry = document.value["rules"][path[1]]
        rule = str(entry.get("id", ""))[:60] if isinstance(entry, dict) else ""
    return Finding(file=file, line=document.line(path), code=code, rule=rule, what=str(item), do=do)


def read_text(path: Path) -> str:
    """The text of a pack file; unreadable or not UTF-8: `OperatorError`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        return raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(
            "tag-pack-unreadable",
            what=f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}",
            do="name a rule pack, a UTF-8 YAML file such as conf/tags/heart.yaml",
            exit=ExitCode.USAGE,
        ) from None


def load_pack(path: Path) -> Pack:
    """Read a pack file whose form must be right; else `OperatorError("tag-pack-invalid")`."""
    pack, _, findings = parse_pack(read_text(path), str(path))
    refuse(findings)
    assert pack is not None
    return pack
