"""The officer's policy: what a hospital agrees to, and the check of a run plan against it. Pure.

The policy never depends on patient data, so a refusal that follows from it may be told to the coordinator as
`declined-policy`. Reading `policy.yaml`, with its line numbers, is the client's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from cameo_protocol.envelope import fingerprint
from cameo_protocol.plan import Cohort, Name, RiskTask, RunPlan

Fingerprint = Annotated[str, Field(pattern=r"^([0-9a-f]{4}-){9}[0-9a-f]{4}$")]
TaskKind = Literal["risk", "segment", "evaluation", "recalibration"]
ModelKind = Literal["logistic", "mlp"]
PrivacyMode = Literal["distributed", "local"]
Scope = Literal["model_training", "research"]


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """Base of every part of a policy."""


class Floors(_Frozen):
    """The least that every plan must have.

    hospitals: size of the cohort. threshold: how many must answer to open a sum (besides, always more than two
    thirds of the cohort). colluders: how many hospitals colluding with the coordinator the noise covers.
    sigma: noise multiplier of every task, relative to one patient's share.
    """

    hospitals: int = Field(default=3, ge=3, le=255)
    threshold: int = Field(default=3, ge=2, le=255)
    colluders: int = Field(default=1, ge=0, le=254)
    sigma: float = Field(default=0.5, gt=0, allow_inf_nan=False)


class Caps(_Frozen):
    """The most privacy loss, as epsilon of everything composed: ever for one data set, and in any one year."""

    epsilon_per_data_set: float = Field(default=8, gt=0, allow_inf_nan=False)
    epsilon_per_year: float = Field(default=3, gt=0, allow_inf_nan=False)


class Allowed(_Frozen):
    """What plans may name. Whatever is not listed is refused."""

    tasks: tuple[TaskKind, ...]
    models: tuple[ModelKind, ...]
    privacy: tuple[PrivacyMode, ...]
    catalogues: tuple[Name, ...]
    labels: tuple[Name, ...]


class Policy(_Frozen):
    """One hospital's policy.

    coordinator: fingerprint of the key that signs plans. peers: name -> identity fingerprint of every hospital that
    the officer has approved, this one included. legal_basis: scope -> the law that allows this use without a
    patient's consent; a scope that is not named needs consent. (Tags have their own bases: tags policy.)
    """

    version: Literal[1]
    coordinator: Fingerprint
    peers: dict[Name, Fingerprint] = Field(max_length=255)
    floors: Floors = Floors()
    caps: Caps = Caps()
    allowed: Allowed
    legal_basis: dict[Scope, Annotated[str, Field(min_length=3, max_length=200)]] = {}


@dataclass(frozen=True)
class Refusal:
    """Why a plan is refused. code: stable; field: the policy's field that says so; what: both values, for people."""

    code: str
    field: str
    what: str


def check_coordinator(policy: Policy, key: bytes) -> list[Refusal]:
    """Whether the officer has approved this plan-signing key (32-byte Ed25519 public key). Empty = yes."""
    found = fingerprint(key)
    if found == policy.coordinator:
        return []
    what = f"the plan is signed by {found}; this policy trusts the coordinator {policy.coordinator}"
    return [Refusal("coordinator-not-approved", "coordinator", what)]


def check(policy: Policy, plan: RunPlan, cohort: Cohort) -> list[Refusal]:
    """Everything in a plan that the policy refuses, in the order of the policy's fields; empty = accepted.

    cohort: the hospitals that really take part; at admission the plan's own, later what set-up left of it. Its
    threshold and colluders are held against the floors, its keys against the approved peers.
    """
    return [
        *_peers(policy, cohort),
        *_floors(policy.floors, plan, cohort),
        *_caps(policy.caps, plan),
        *_allowed(policy.allowed, plan),
    ]


def _peers(policy: Policy, cohort: Cohort) -> Iterator[Refusal]:
    for site in cohort.sites:
        found = fingerprint(bytes.fromhex(site.identity))
        approved = policy.peers.get(site.name)
        if approved is None:
            yield Refusal("peer-not-approved", "peers", f"hospital {site.name} with key {found} is not approved")
        elif approved != found:
            what = f"hospital {site.name} comes with key {found}; approved is {approved}"
            yield Refusal("peer-key-changed", f"peers.{site.name}", what)


def _floors(floors: Floors, plan: RunPlan, cohort: Cohort) -> Iterator[Refusal]:
    n, t, c = len(cohort.sites), cohort.threshold, cohort.colluders
    if n < floors.hospitals:
        yield Refusal(
            "cohort-too-small", "floors.hospitals", f"{n} hospitals; at least {floors.hospitals} are asked for"
        )
    if t < floors.threshold or 3 * t <= 2 * n:
        what = f"threshold {t} of {n}; at least {floors.threshold}, and more than two thirds, are asked for"
        yield Refusal("threshold-too-low", "floors.threshold", what)
    if c < floors.colluders:
        what = f"{c} colluding hospitals are covered; at least {floors.colluders} are asked for"
        yield Refusal("colluders-too-few", "floors.colluders", what)
    for task in plan.tasks:
        if task.encoded.sigma < floors.sigma:
            what = f"task {task.name} has sigma {task.encoded.sigma:g}; at least {floors.sigma:g} is asked for"
            yield Refusal("sigma-too-low", "floors.sigma", what)


def _caps(caps: Caps, plan: RunPlan) -> Iterator[Refusal]:
    for field, cap in (
        ("epsilon_per_data_set", caps.epsilon_per_data_set),
        ("epsilon_per_year", caps.epsilon_per_year),
    ):
        if plan.privacy.epsilon > cap:
            what = f"the plan alone costs epsilon {plan.privacy.epsilon:g}; the cap is {cap:g}"
            yield Refusal("epsilon-over-cap", f"caps.{field}", what)


def _allowed(allowed: Allowed, plan: RunPlan) -> Iterator[Refusal]:
    if plan.privacy.mode not in allowed.privacy:
        yield Refusal("privacy-not-allowed", "allowed.privacy", f"privacy mode {plan.privacy.mode} is not allowed")
    if plan.data.catalogue not in allowed.catalogues:
        what = f"facts catalogue {plan.data.catalogue} is not allowed"
        yield Refusal("catalogue-not-allowed", "allowed.catalogues", what)
    for task in plan.tasks:
        if task.kind not in allowed.tasks:
            what = f"task {task.name} is of kind {task.kind}, which is not allowed"
            yield Refusal("task-not-allowed", "allowed.tasks", what)
        if isinstance(task, RiskTask):
            if task.model not in allowed.models:
                what = f"task {task.name} trains a {task.model} model, which is not allowed"
                yield Refusal("model-not-allowed", "allowed.models", what)
            if task.label not in allowed.labels:
                what = f"task {task.name} predicts {task.label}, which is not allowed"
                yield Refusal("label-not-allowed", "allowed.labels", what)
