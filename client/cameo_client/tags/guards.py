"""Guards 1 to 9, each a small unit: which rows of a rule's candidates fail, and for what reason.

A guard yields (rule key, reason code, rows that fail). The pipeline runs the guards in the order of `GUARDS` and
keeps the first failure of each (patient, rule).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import numpy as np

from cameo_client.consent.uses import minors
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.compile import compile_tree
from cameo_client.tags.pack import SCOPE_OF, Scope
from cameo_client.tags.schema import SEGMENT, ModelInfo
from cameo_client.tags.world import Mask, World

Failure = tuple[str, str, Mask]
Alive = Mapping[str, Mask]
Guard = Callable[[World, Alive], Iterator[Failure]]


def pack_in_force(world: World, _: Alive) -> Iterator[Failure]:
    """1: the pack's very content is approved; the rule is active, in its dates, its evidence not expired."""
    today = world.given.now.date()
    for item in world.rules:
        rule = item.rule
        late = rule.effective.until is not None and today > rule.effective.until
        checks = {
            "pack-not-approved": item.pack_sha256 not in world.given.approved_packs,
            "rule-not-active": rule.status != "active",
            "rule-out-of-dates": today < rule.effective.from_ or late,
            "evidence-expired": today > rule.review_by,
        }
        yield from _whole(world, item, checks)


def patient_may_be_tagged(world: World, _: Alive) -> Iterator[Failure]:
    """2: the patient has not objected, is alive, and the record is open. A flag that is null does not stop."""
    reasons = {"objected": "patient-objected", "deceased": "patient-deceased", "record_locked": "record-locked"}
    for flag, reason in reasons.items():
        column = world.given.policy.flags.get(flag)  # type: ignore[call-overload]
        if column is None or column not in world.frame.columns:
            continue
        rows = np.asarray(world.frame[column].fill_null(False).to_numpy(), dtype=bool)
        for item in world.rules:
            yield item.key, reason, rows


def data_quality(world: World, _: Alive) -> Iterator[Failure]:
    """3: data set and record score at least the floor; the snapshot is fresh enough."""
    given = world.given
    limit = given.policy.max_snapshot_age_days
    stale = limit is not None and (given.snapshot is None or given.now.date() - given.snapshot > timedelta(days=limit))
    poor = world.members(given.quality.poor)
    for item in world.rules:
        low = not given.quality.score >= given.policy.quality_floor
        yield from _whole(world, item, {"quality-below-floor": low})
        yield item.key, "record-quality-below-floor", poor
        yield from _whole(world, item, {"facts-stale": stale})


def model_is_good(world: World, _: Alive) -> Iterator[Failure]:
    """4: the model a rule reads is released, recent and audited, a risk model calibrated; and what the rule asks."""
    models = {model.name: model for model in world.given.models}
    for item in world.rules:
        for name in item.models:
            yield from _whole(world, item, _model_faults(world, item, models.get(name)))


def purpose_fits(world: World, _: Alive) -> Iterator[Failure]:
    """5: every column read allows the rule's purpose; genetic facts stay with the care team."""
    for item in world.rules:
        allowed = all(item.rule.purpose in world.schema.column(name).purposes for name in item.columns)
        genetic = item.sensitivity == "genetic" and item.rule.purpose != "care_management"
        yield from _whole(world, item, {"purpose-forbids-column": not allowed, "genetic-care-only": genetic})


def consent_given(world: World, _: Alive) -> Iterator[Failure]:
    """6: every scope the rule needs is granted today; no answer is a no.

    Where the policy names another basis for care, only those who said no are left out.
    """
    answers: dict[Scope, tuple[Mask, Mask, Mask]] = {}
    young = minors(world.frame, world.given.policy.age_column)
    for item in world.rules:
        own = SCOPE_OF[item.rule.purpose]
        for scope in item.rule.scopes():
            if scope not in answers:
                answers[scope] = _consent(world, scope, young)
            refused, guardian, granted = answers[scope]
            yield item.key, "consent-withdrawn", refused
            if scope == own and item.rule.purpose in world.given.policy.legal_basis:
                continue
            yield item.key, "consent-no-guardian", guardian
            yield item.key, "consent-missing", ~granted


def no_sensitive_situation(world: World, _: Alive) -> Iterator[Failure]:
    """7: no situation holds that stops the purpose; for marketing an unknown answer stops too."""
    trees = [(situation, situation.tree(world.schema)) for situation in world.given.policy.situations]
    seen = [(situation, compile_tree(tree)) for situation, tree in trees if tree]  # `unobservable` lists the others
    masks = world.rows([expr.fill_null(False) for _, expr in seen] + [expr.is_null() for _, expr in seen])
    for number, (situation, _expr) in enumerate(seen):
        holds, unclear = masks[number], masks[number + len(seen)]
        for item in world.rules:
            if item.rule.purpose not in situation.stops:
                continue
            yield item.key, "sensitive-situation", holds
            if item.rule.purpose == "marketing":
                yield item.key, "sensitive-unknown", unclear


def no_conflict(world: World, alive: Alive) -> Iterator[Failure]:
    """8: within an exclusive group only the highest priority among those that passed so far is kept."""
    groups: dict[str, list[BoundRule]] = {}
    for item in world.rules:
        if item.rule.exclusive_group is not None:
            groups.setdefault(item.rule.exclusive_group, []).append(item)
    for members in groups.values():
        taken = np.zeros(len(world.pseudonyms), dtype=bool)
        for item in sorted(members, key=lambda member: (-member.rule.priority, member.key)):
            yield item.key, "exclusive-group", taken.copy()
            taken |= alive[item.key]


def reviewed(world: World, alive: Alive) -> Iterator[Failure]:
    """9: whatever needs a person's approval waits for it; a rejection blocks."""
    rejected = {key for _, key, _ in world.given.memory.rejections}
    for item in world.rules:
        asked = alive[item.key]
        if item.rule.review == "none" and item.key not in rejected:
            asked = asked & world.unknown[item.key]
        rows = np.flatnonzero(asked)
        by_reason: dict[str, Mask] = {}
        for row in rows.tolist():
            reason = _review(world, item, row)
            if reason:
                by_reason.setdefault(reason, np.zeros(len(world.pseudonyms), dtype=bool))[row] = True
        for reason, mask in by_reason.items():
            yield item.key, reason, mask


GUARDS: tuple[tuple[int, Guard], ...] = (
    (1, pack_in_force),
    (2, patient_may_be_tagged),
    (3, data_quality),
    (4, model_is_good),
    (5, purpose_fits),
    (6, consent_given),
    (7, no_sensitive_situation),
    (8, no_conflict),
    (9, reviewed),
)


def unobservable(world: World) -> tuple[str, ...]:
    """Names of the policy's sensitive situations that these facts cannot show."""
    situations = world.given.policy.situations
    return tuple(situation.name for situation in situations if situation.tree(world.schema) is None)


def sampled(pseudonym: str, key: str, version: int, share: float) -> bool:
    """Whether a decision is in the review sample: the same answer every time, for about `share` of the patients."""
    digest = hashlib.sha256(f"{key}\0{version}\0{pseudonym}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _consent(world: World, scope: Scope, young: frozenset[str]) -> tuple[Mask, Mask, Mask]:
    """Rows that said no; that only lack a guardian's decision; that granted. young: who needs a guardian."""
    given = world.given
    double = scope in given.policy.double_confirmed
    alone = given.consent.granted(world.pseudonyms, scope, given.now, double_confirmed=double)
    granted = given.consent.granted(world.pseudonyms, scope, given.now, minors=young, double_confirmed=double)
    return world.members(given.consent.withdrawn(scope, given.now)), alone & ~granted, granted


def _whole(world: World, item: BoundRule, checks: Mapping[str, bool]) -> Iterator[Failure]:
    """Failures of the rule as a whole, for every row."""
    for reason, fails in checks.items():
        if fails:
            yield item.key, reason, np.ones(len(world.pseudonyms), dtype=bool)


def _model_faults(world: World, item: BoundRule, model: ModelInfo | None) -> dict[str, bool]:
    need = item.rule.model
    if model is None or need is None:
        return {"model-missing": True}
    age = world.given.now - model.released
    return {
        "model-version": model.version < need.min_version,
        "model-too-old": age > timedelta(days=need.max_age_days),
        "model-not-audited": not model.audited,
        "model-not-calibrated": (model.name != SEGMENT or "calibrated" in need.require) and not model.calibrated,
        "model-drifted": "no_drift" in need.require and model.drifted,
        "model-over-budget": "within_budget" in need.require and not model.within_budget,
        "model-segment-changed": _means_another(world, item, model),
    }


def _means_another(world: World, item: BoundRule, model: ModelInfo) -> bool:
    """Whether a number that the rule names stands for other patients than when people approved its pack."""
    approved = world.given.approved_at.get(item.pack_sha256)
    named = item.segments
    return approved is not None and any(
        approved < since for segment, since in model.changed if named is None or segment in named
    )


def _review(world: World, item: BoundRule, row: int) -> str:
    pseudonym, rule, memory = world.pseudonyms[row], item.rule, world.given.memory
    case = (pseudonym, item.key, rule.version)
    if case in memory.rejections:
        return "review-rejected"
    needed, reason = {
        "none": (0, ""),
        "sample": (1, "review-sample"),
        "always": (1, "review-always"),
        "two_person": (2, "review-two-person"),
    }[rule.review]
    if rule.review == "sample" and not sampled(*case, world.given.policy.review_sample):
        needed, reason = 0, ""
    if needed == 0 and bool(world.unknown[item.key][row]):
        needed, reason = 1, "review-unknown"
    return reason if memory.approvals.get(case, 0) < needed else ""
