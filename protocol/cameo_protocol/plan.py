"""The run plan: what will be done, frozen, with one canonical form, one hash (the plan id) and one signature.

A plan is declarative: hospitals run only code they installed; a plan names tasks, models and numbers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from cameo_protocol.errors import Reject
from cameo_protocol.faults import faults
from cameo_protocol.groups import Groups
from cameo_protocol.layout import LARGEST_SCALE, Block, Layout, RoundKind

MAX_PLAN_BYTES = 1 << 20
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """Base of every part of a plan."""


class Encoded(_Frozen):
    """The numbers with which a task's block enters the secure sum; see `layout.Block`."""

    dim: int = Field(ge=1, le=1 << 24)
    clip: Positive
    bound: Positive
    scale: int = Field(ge=1, le=LARGEST_SCALE)
    sigma: Positive


class RiskTask(_Frozen):
    """Train a risk model for one label. rate: Adam's step; average_from: share of rounds before averaging begins."""

    kind: Literal["risk"] = "risk"
    name: Name = "risk"
    label: Name
    label_sha256: Hex32
    model: Literal["logistic", "mlp"] = "logistic"
    hidden: int = Field(default=8, ge=1, le=1024)
    rate: Positive
    average_from: float = Field(default=0.5, ge=0, lt=1)
    share: Positive
    encoded: Encoded


class SegmentTask(_Frozen):
    """Train a mixture of K prototypes. temperature: of the soft assignment; rate: Adam's step."""

    kind: Literal["segment"] = "segment"
    name: Name = "segment"
    clusters: int = Field(ge=2, le=64)
    temperature: Positive
    rate: Positive
    average_from: float = Field(default=0.5, ge=0, lt=1)
    share: Positive
    encoded: Encoded


class HistogramTask(_Frozen):
    """Count scores by class in the bins of `score_bins`; one patient adds 1 to one lane of groups x 2 x bins.

    "recalibration" counts training patients once, after training: two numbers are fitted from it, so its patients
    must not be those on whom the corrected model is judged. "evaluation" counts held-out patients once, after that.
    by: counts each group apart (evaluation only); every task has noise and a cost of its own.
    """

    kind: Literal["evaluation", "recalibration"]
    name: Name
    of: Name = "risk"
    by: Groups | None = None
    bins: int = Field(ge=4, le=200)
    share: Positive
    encoded: Encoded

    @property
    def lanes(self) -> int:
        """Lanes of its block."""
        return (len(self.by) if self.by else 1) * 2 * self.bins

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.encoded.dim != self.lanes:
            raise ValueError(f"task {self.name} counts in {self.lanes} lanes, its block has {self.encoded.dim}")
        if self.by is not None and self.kind != "evaluation":
            raise ValueError(f"task {self.name}: only an evaluation counts by group")
        return self


Task = Annotated[RiskTask | SegmentTask | HistogramTask, Field(discriminator="kind")]


class Site(_Frozen):
    """One hospital of the roster. index: its Shamir abscissa; identity: its Ed25519 public key, hex."""

    name: Name
    index: int = Field(ge=1, le=255)
    identity: Hex32


class Cohort(_Frozen):
    """Who takes part: n sites, any t of which can open a sum, with up to c colluding with the coordinator."""

    sites: tuple[Site, ...] = Field(min_length=3, max_length=255)
    threshold: int = Field(ge=2)
    colluders: int = Field(ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        n, t, c = len(self.sites), self.threshold, self.colluders
        if not (t <= n and 2 * t > n + c and t > c):
            raise ValueError(f"a cohort of n={n} needs a threshold t with 2t > n + c and c < t <= n; t={t}, c={c}")
        for field in ("name", "index", "identity"):
            if len({getattr(site, field) for site in self.sites}) != n:
                raise ValueError(f"two sites have the same {field}")
        return self


class PrivacyTerms(_Frozen):
    """The claim: (epsilon, delta) for everything the plan releases, spare rounds included.

    mode "distributed": each hospital adds noise of variance sigma^2 Δ^2 / (t - c); "local": sigma^2 Δ^2.
    population: the federation's declared public number of patients.
    """

    mode: Literal["distributed", "local"]
    epsilon: float = Field(gt=0, le=20, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=0.1)
    population: int = Field(ge=1)
    unit: Literal["patient"] = "patient"


class DataTerms(_Frozen):
    """Which facts are read. holdout: share of patients kept out of training, chosen by a keyed hash."""

    catalogue: Name
    catalogue_sha256: Hex32
    holdout: float = Field(gt=0, lt=0.9)


class Deadlines(_Frozen):
    """Seconds the coordinator waits for the answers of one stage.

    regroup: and for hospitals to come back, when too few are left for a round; 0: the run is stopped at once.
    """

    admit: float = Field(default=120, gt=0, le=3600)
    setup: float = Field(default=60, gt=0, le=3600)
    stage: float = Field(default=15, gt=0, le=3600)
    regroup: float = Field(default=120, ge=0, le=86_400)


class Training(_Frozen):
    """Rounds of full-batch steps; spare: further rounds reserved for void ones."""

    rounds: int = Field(ge=1, le=2000)
    spare: int = Field(ge=0, le=500)


class RunPlan(_Frozen):
    """A whole run. seed covers model initialisation only, never noise, rounding, sampling or masks."""

    version: Literal[1] = 1
    name: Name
    seed: int = Field(ge=0, le=2**31 - 1)
    data: DataTerms
    cohort: Cohort
    privacy: PrivacyTerms
    training: Training
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=8)
    deadlines: Deadlines = Deadlines()

    @model_validator(mode="after")
    def _tasks_fit(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        risks = {task.name for task in self.tasks if isinstance(task, RiskTask)}
        for task in self.tasks:
            if isinstance(task, HistogramTask) and task.of not in risks:
                raise ValueError(f"task {task.name} scores {task.of!r}, which is no risk task of this plan")
        counted = [(t.kind, t.of, t.by and t.by.fact) for t in self.tasks if isinstance(t, HistogramTask)]
        if len(set(counted)) != len(counted):
            raise ValueError("two tasks count the same scores")
        if self.cohort.threshold - self.cohort.colluders < 2 and self.privacy.mode == "distributed":
            raise ValueError("distributed noise needs t - c >= 2; use privacy=local")
        return self

    def layout(self, kind: RoundKind) -> Layout:
        """The layout of a kind of round; it has no blocks when the plan has no task of that kind."""
        wanted = {
            "train": ("risk", "segment"),
            "evaluate": ("evaluation",),
            "recalibrate": ("recalibration",),
        }[kind]
        blocks = tuple(
            Block(name=task.name, counts=isinstance(task, HistogramTask), **task.encoded.model_dump())
            for task in self.tasks
            if task.kind in wanted
        )
        return Layout(kind=kind, blocks=blocks)

    def trained(self) -> tuple[RiskTask | SegmentTask, ...]:
        """The tasks whose parameters travel with every round, in plan order."""
        return tuple(task for task in self.tasks if isinstance(task, RiskTask | SegmentTask))

    def counted(self, kind: RoundKind) -> tuple[HistogramTask, ...]:
        """The tasks whose counts a round of that kind sums, in plan order."""
        names = set(self.layout(kind).spans())
        return tuple(task for task in self.tasks if isinstance(task, HistogramTask) and task.name in names)

    def parameter_spans(self) -> dict[str, slice]:
        """Task name -> its slice of the joint parameter vector of a round."""
        spans: dict[str, slice] = {}
        start = 0
        for task in self.trained():
            spans[task.name] = slice(start, start + task.encoded.dim)
            start += task.encoded.dim
        return spans

    def rounds_of(self, kind: RoundKind) -> int:
        """How many rounds of a kind the plan makes, spare ones left out."""
        if not self.layout(kind).blocks:
            return 0
        return self.training.rounds if kind == "train" else 1

    def canonical(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8. What is hashed, signed and sent."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def plan_id(self) -> str:
        """SHA-256 of the canonical form, hex."""
        return hashlib.sha256(self.canonical()).hexdigest()


def parse_plan(raw: bytes) -> RunPlan:
    """Read a plan from its canonical bytes; anything else, also a non-canonical form of a plan, is a `Reject`."""
    if len(raw) > MAX_PLAN_BYTES:
        raise Reject("plan-invalid", what=f"a plan of {len(raw)} bytes; at most {MAX_PLAN_BYTES} are read")
    try:
        plan = RunPlan.model_validate_json(raw)
    except (ValidationError, ValueError, RecursionError) as error:
        why = faults(error, RunPlan) if isinstance(error, ValidationError) else "it cannot be read"
        raise Reject("plan-invalid", what=f"not a plan of version 1: {why}") from None
    if plan.canonical() != raw:
        raise Reject("plan-invalid", what="the plan is not in its canonical form")
    return plan
