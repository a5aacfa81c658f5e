"""What a report is made from. Every field is checked here; `render` only lays it out.

Two kinds of content. What the coordinator knows: plan, statements, rounds, norms, timings. What only a lab sees
that reads every hospital's folder (`cameo demo`): figures in clear, segment sizes, tag counts; these are None or
empty in a real federation. Numbers are finite; names are free text and are escaped when laid out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

Text = Annotated[str, Field(min_length=1, max_length=200)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """Base of every part of the record."""


class Spent(_Frozen):
    """ε of everything released up to and with one release; purpose: what that release was for."""

    epsilon: NotNegative
    purpose: str = Field(default="", max_length=64)


class Account(_Frozen):
    """One hospital's privacy account for the data set, in ε at the ledger's δ.

    spent: everything released so far; planned: what this plan was allowed to bring it to, spare rounds included;
    cap: the officer's limit. curve: what was spent after each release (or some of them), in order.
    """

    spent: NotNegative
    planned: NotNegative
    cap: Positive
    curve: tuple[Spent, ...] = ()


class Hospital(_Frozen):
    """One hospital of the roster. lost_at_round: the first round without it, if status is "lost".

    account: None where the reader may not see it (a real coordinator never does).
    """

    name: Text
    status: Literal["took part", "lost", "declined"]
    lost_at_round: int | None = Field(default=None, ge=0)
    account: Account | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.status == "lost") != (self.lost_at_round is not None):
            raise ValueError(f"{self.name}: lost_at_round goes with the status lost, and only with it")
        return self


class TaskRow(_Frozen):
    """One task of the plan. clip C: bound on one patient's gradient norm (None for counts); rate q: share of the
    patients in a round (1 = all); rounds T, spare ones included; sigma σ: noise multiplier; share: of the privacy loss
    of the whole plan (Σ T / σ²)."""

    name: Text
    kind: Literal["risk", "segment", "evaluation", "recalibration"]
    clip: Positive | None
    rate: Annotated[float, Field(gt=0, le=1)]
    rounds: int = Field(ge=1)
    sigma: Positive
    share: Share | None = None


class Statement(_Frozen):
    """(ε, δ) toward one observer: the coordinator with c hospitals, a holder of the model, or all masks fallen."""

    toward: Literal["coordinator", "model", "bare"]
    epsilon: NotNegative
    delta: Positive


class RoundRow(_Frozen):
    """One round. survivors: hospitals in the sum (0 if void); norm: L2 norm of the noisy sum, in units of the plan;
    auc_clear: held-out AUC without noise, which only a lab that reads every hospital's folder can compute."""

    number: Count
    kind: Literal["train", "evaluate", "recalibrate"] = "train"
    survivors: Count
    void: bool = False
    norm: NotNegative | None = None
    auc_clear: Share | None = None


class Estimate(_Frozen):
    """A noised value with its 95 % interval."""

    value: Share
    low: Share
    high: Share

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("an interval needs low <= value <= high")
        return self


class Interval(_Frozen):
    """A noised number of any sign with its 95 % interval."""

    value: Finite
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("an interval needs low <= value <= high")
        return self


class Recalibration(_Frozen):
    """How the risk model's probabilities were corrected after training; not applied: slope 1, intercept 0, and why.

    error_before, error_after: held-out calibration error in clear, lab only.
    """

    applied: bool
    slope: Interval
    intercept: Interval
    release: Text
    note: str = Field(default="", max_length=200)
    error_before: Share | None = None
    error_after: Share | None = None


class GroupRow(_Frozen):
    """One group's figures from noised counts; None: too noisy to say. size: a band. hidden: fewer than 11 patients.

    gap: share with the outcome minus mean predicted risk.
    """

    group: Text
    size: Text
    hidden: bool = False
    prevalence: Estimate | None = None
    gap: Interval | None = None
    brier: Estimate | None = None
    auc: Estimate | None = None


class GroupTable(_Frozen):
    """The risk model judged for each group by one fact."""

    fact: Text
    release: Text
    rows: tuple[GroupRow, ...] = Field(min_length=1)


class CalibrationPoint(_Frozen):
    """One band of scores: the mean predicted risk, and the share of patients who had the outcome."""

    predicted: Share
    observed: Share
    low: Share | None = None
    high: Share | None = None


class Quality(_Frozen):
    """How well the risk model ranks held-out patients.

    auc_dp: from noised counts; None: too noisy to say.   auc_clear, auc_pooled: lab only; pooled = one model trained
    on everybody's records together, without privacy.   calibration, brier, prevalence, gap, groups: from noised counts.
    """

    label: Text
    auc_dp: Estimate | None = None
    auc_clear: Share | None = None
    auc_pooled: Share | None = None
    calibration: tuple[CalibrationPoint, ...] = ()
    brier: Estimate | None = None
    prevalence: Estimate | None = None
    gap: Interval | None = None
    groups: tuple[GroupTable, ...] = ()
    recalibration: Recalibration | None = None


class Trait(_Frozen):
    """One number of a prototype in clinical units; low, high: the public bounds between which it is drawn."""

    name: Text
    value: Finite
    unit: str = Field(default="", max_length=32)
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"{self.name}: needs low < high")
        return self


class Segment(_Frozen):
    """One segment, described by its prototype. size_band: such as "250-500"; None where nobody may know.

    note: whether its number means what it meant in the run before; None where the card does not say.
    """

    name: Text
    note: Text | None = None
    size_band: Text | None = None
    traits: tuple[Trait, ...] = Field(min_length=1, max_length=40)


class Segments(_Frozen):
    """ari_reference: adjusted Rand index against pooled non-private k-means; lab only."""

    segments: tuple[Segment, ...] = Field(min_length=1, max_length=64)
    ari_reference: Annotated[float, Field(ge=-1, le=1)] | None = None


class ReasonCount(_Frozen):
    """How many (patient, tag) decisions had this reason code."""

    reason: Text
    count: Count


class TagCount(_Frozen):
    """Decisions on one tag in one hospital, exact; `render` hides small cells and rounds the others."""

    hospital: Text
    tag: Text
    purpose: Text
    stored: Count
    blocked: tuple[ReasonCount, ...] = ()
    waiting: tuple[ReasonCount, ...] = ()


class AuditCheck(_Frozen):
    """One check or attack of the audit. limit: what had to hold. control: whether it came with a control that broke."""

    name: Text
    limit: Annotated[str, Field(max_length=300)]
    passed: bool
    control: bool


class Audit(_Frozen):
    """The audit of the plan on made-up patients. lower_bound: on ε, from canaries; claim: what the plan says."""

    effort: Text
    lower_bound: NotNegative
    claim: NotNegative
    checks: tuple[AuditCheck, ...] = Field(min_length=1)


class StageTime(_Frozen):
    """The median time of one stage of a round, in seconds."""

    stage: Text
    median: NotNegative


class Timing(_Frozen):
    """Seconds: the key set-up, the median round, the whole run, and the stages of a round."""

    setup: NotNegative
    round_median: NotNegative
    total: NotNegative
    stages: tuple[StageTime, ...] = ()


class Uploads(_Frozen):
    """Vectors that left the hospitals: masked ones, ones in clear (0, or the run is broken), and all their bytes."""

    masked: Count
    clear: Count
    total_bytes: Count


class ReportRecord(_Frozen):
    """A whole run as a report shows it. created: with its time zone; threshold t, colluders c: see the plan."""

    name: Text
    plan_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    run_id: Text
    created: datetime
    data: Annotated[str, Field(min_length=1, max_length=600)]
    synthetic: bool
    fictional_consents: bool
    hospitals: tuple[Hospital, ...] = Field(min_length=1, max_length=255)
    threshold: int = Field(ge=1)
    colluders: Count
    mode: Literal["distributed", "local"]
    tasks: tuple[TaskRow, ...] = Field(min_length=1)
    statements: tuple[Statement, ...] = Field(min_length=1)
    rounds: tuple[RoundRow, ...]
    uploads: Uploads
    timing: Timing
    quality: Quality | None = None
    segments: Segments | None = None
    audit: Audit | None = None
    tags: tuple[TagCount, ...] = ()
    versions: tuple[tuple[Text, Text], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [hospital.name for hospital in self.hospitals]
        if len(set(names)) != len(names):
            raise ValueError("two hospitals have the same name")
        if len({statement.toward for statement in self.statements}) != len(self.statements):
            raise ValueError("two statements toward the same observer")
        if any(row.survivors > len(names) for row in self.rounds):
            raise ValueError("a round has more survivors than there are hospitals")
        cells = [(cell.hospital, cell.tag) for cell in self.tags]
        if len(set(cells)) != len(cells):
            raise ValueError("two counts of the same tag in the same hospital")
        if not {cell.hospital for cell in self.tags} <= set(names):
            raise ValueError("a tag count of a hospital that is not in the roster")
        if self.created.tzinfo is None:
            raise ValueError("created needs a time zone")
        return self
