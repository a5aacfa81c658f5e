"""Commands that touch patients' tags, in the hospital only: dry-run, apply, explain, queue, approve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from cameo_client.consent.records import Use
from cameo_client.consent.store import ConsentStore
from cameo_client.tags import explain as explaining
from cameo_client.tags.apply import Outcome, apply, counts
from cameo_client.tags.author import SCHEMA_VERSION, checked_pack, load_rules
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.drift import judged, remember
from cameo_client.tags.engine import PSEUDONYM
from cameo_client.tags.fairness import alerts
from cameo_client.tags.guards import unobservable
from cameo_client.tags.incremental import affected, load, marks
from cameo_client.tags.pack import SCOPE_OF, Rule, Scope
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.record import write
from cameo_client.tags.rehearsal import changed_by_model, disparity, overlaps, reach
from cameo_client.tags.schema import LeftOut, ModelInfo, Schema
from cameo_client.tags.store import StoredTag, TagStore
from cameo_client.tags.world import Circumstances, Quality
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue


@dataclass(frozen=True, kw_only=True)
class Ward:
    """What the node brings to an evaluation: the patients' facts with model columns, and what they came with.

    facts: `pseudonym`, the catalogue's columns, and `risk_<label>`, `segment`, `segment_strength` where there is a
    model. models: who filled these columns. left_out: stored models that do not serve. now: timezone-aware.
    """

    facts: pl.DataFrame
    catalogue: Catalogue
    snapshot: date | None
    quality: Quality
    models: Sequence[ModelInfo]
    consents: ConsentStore
    policy: TagPolicy
    now: datetime
    left_out: Sequence[LeftOut] = ()


def quality_of(score: float, hard: bool, pseudonyms: Sequence[str], records: pl.Series, floor: float) -> Quality:
    """The quality gate's report as guard 3 reads it. hard: a fault that forbids use at any score."""
    poor = [name for name, points in zip(pseudonyms, records.to_list(), strict=True) if not points >= floor]
    return Quality(0.0 if hard else score, frozenset(poor))


def evaluate(paths: Sequence[Path], ward: Ward, store: TagStore, *, trial: bool = False) -> Outcome:
    """Derive and guard, writing nothing. trial: as if this content of the packs were approved already."""
    schema, rules, given = _inputs(paths, ward, store)
    if trial:
        given = replace(given, approved_packs=frozenset(item.pack_sha256 for item in rules))
    return apply(ward.facts, rules, schema, given)


def _inputs(paths: Sequence[Path], ward: Ward, store: TagStore) -> tuple[Schema, list[BoundRule], Circumstances]:
    schema, _, rules = load_rules(paths, ward.catalogue, today=ward.now.date())
    given = Circumstances(
        policy=ward.policy,
        consent=ward.consents,
        quality=ward.quality,
        models=judged(ward.models, ward.facts, store),
        left_out=ward.left_out,
        approved_packs=store.approved_packs(),
        approved_at=store.approved_at() if any(model.changed for model in ward.models) else {},
        now=ward.now,
        snapshot=ward.snapshot,
        memory=store.memory(ward.policy, ward.now),
    )
    return schema, rules, given


def dry_run(paths: Sequence[Path], ward: Ward, store: TagStore) -> dict[str, Any]:
    """What `apply` would do: tallies, reach of each rule, overlaps, disparity, and how many tags would come and go.

    It is told as if the packs were approved, since it is what one looks at before approving them; `not_approved` names
    those that are not. Writes nothing, logs no use.
    """
    outcome, approved = evaluate(paths, ward, store, trial=True), store.approved_packs()
    wanted = {(one.pseudonym, one.rule.rule.tag.name): one.state for one in outcome.decisions(("stored", "waiting"))}
    keys = {item.key for item in outcome.world.rules}
    present = {(one.pseudonym, one.tag): one.state for one in store.tags(ward.now) if one.rule in keys}
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "dry-run",
        **_models(outcome),
        "not_approved": sorted({one.pack_id for one in outcome.world.rules if one.pack_sha256 not in approved}),
        "tags": [tally.as_dict() for tally in counts(outcome)],
        "reach": reach(outcome),
        "overlaps": overlaps(outcome),
        "disparity": disparity(outcome),
        "fairness": [alert.text() for alert in alerts(outcome)],
        "added": len(wanted.keys() - present.keys()),
        "removed": len(present.keys() - wanted.keys()),
        "changed": sum(present[key] != wanted[key] for key in present.keys() & wanted.keys()),
        "situations_not_observable": list(unobservable(outcome.world)),
    }


def diff_models(paths: Sequence[Path], old: Ward, new: Ward, store: TagStore) -> dict[str, Any]:
    """Which tags would change by the model update alone: the same facts, rules and history with either model."""
    before, after = evaluate(paths, old, store), evaluate(paths, new, store)
    rows = changed_by_model(before, after)
    sides = {"before": _models(before), "after": _models(after)}
    return {"schema_version": SCHEMA_VERSION, "command": "diff-models", **sides, "tags": rows}


def _models(outcome: Outcome) -> dict[str, Any]:
    """Which model fills each column of scores, of which run, and which stored models do not serve."""
    given = outcome.world.given
    serving = [
        {
            "name": one.name,
            "run": one.run,
            "model_id": one.model_id,
            "released": one.released.isoformat(),
            "segments_changed": {str(number): since.isoformat() for number, since in one.changed},
        }
        for one in given.models
    ]
    return {"models": serving, "models_left_out": [asdict(one) for one in given.left_out]}


def apply_packs(
    paths: Sequence[Path], ward: Ward, store: TagStore, *, changed_only: bool = False
) -> tuple[Outcome, dict[str, Any]]:
    """Evaluate, log the use in the consent store, then write the tags.

    changed_only: evaluate those patients only for whom something changed since the last evaluation; the tags are the
    same as after one of everybody, the tallies and the outcome are those of the evaluated.
    Nothing is written, and earlier tags stay until they expire, when the data set's quality is below the floor
    ("quality-too-low", exit code QUALITY) or a pack's content is not approved ("pack-not-approved").
    """
    _require_quality(ward)
    schema, rules, given = _inputs(paths, ward, store)
    found = marks(ward.facts, rules, schema, given)
    only = affected(load(store), found, rules, given) if changed_only else None
    facts = ward.facts if only is None else ward.facts.filter(pl.col(PSEUDONYM).is_in(sorted(only)))
    outcome = apply(facts, rules, schema, given)
    _require_approved(outcome)
    _log_use(outcome, ward)
    remember(ward.models, ward.facts, store)
    changes = write(store, outcome, only=only, marks=found)
    return outcome, {
        "schema_version": SCHEMA_VERSION,
        "command": "apply",
        **changes,
        **_models(outcome),
        "evaluated": facts.height,
        "patients": ward.facts.height,
        "tags": [tally.as_dict() for tally in counts(outcome)],
        "fairness": [alert.text() for alert in alerts(outcome)] if only is None else [],
        "situations_not_observable": list(unobservable(outcome.world)),
    }


def explain(paths: Sequence[Path], ward: Ward, store: TagStore, pseudonym: str, tag: str) -> dict[str, Any]:
    """Why, or why not, from today's facts of this one patient, with the stored tag and its history if there is one.

    A decision depends on the patient's own row only, so evaluating that row alone gives the same answer as `apply`.
    """
    one = ward.facts.filter(pl.col(PSEUDONYM) == pseudonym)
    alone = Ward(**{**vars(ward), "facts": one, "models": judged(ward.models, ward.facts, store)})
    found = explaining.explain(evaluate(paths, alone, store), pseudonym, tag)
    stored = next((row for row in store.tags(ward.now, pseudonym=pseudonym) if row.tag == tag), None)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "explain",
        **vars(found),
        "stored": vars(stored) if stored else None,
        "history": [row for row in store.history(pseudonym) if row["tag"] == tag],
    }


def patients_part(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What of an explanation the patient desk sees: what the patient may be told, and nothing that it rests on."""
    told = {"verdict", "reason", "patient", "pseudonym", "tag", "rule", "rule_version", "pack", "schema_version"}
    history = [{name: row[name] for name in ("at", "change", "state", "why")} for row in answer["history"]]
    return {"command": "explain-to-patient", **{key: answer[key] for key in sorted(told)}, "history": history}


def queue(store: TagStore, now: datetime) -> dict[str, Any]:
    """Tags that wait for a person, oldest first, and how many there are of each."""
    rows = sorted(store.tags(now, state="waiting"), key=lambda row: (row.since, row.pseudonym, row.tag))
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "queue",
        "by_tag": dict(sorted(Counter(row.tag for row in rows).items())),
        "waiting": [
            {
                "pseudonym": row.pseudonym,
                "tag": row.tag,
                "reason": row.reason,
                "because": list(row.because),
                "model": row.model,
                "model_run": row.model_run,
                "since": row.since,
                "approvals": store.approvals(row.pseudonym, row.rule, row.rule_version),
            }
            for row in rows
        ],
    }


def approve(
    store: TagStore,
    pseudonym: str,
    tag: str,
    person: str,
    now: datetime,
    *,
    reject: bool = False,
    owns: Sequence[str] = (),
) -> dict[str, Any]:
    """Record one person's verdict on a waiting tag. An approval takes effect at the next apply, after all guards.

    owns: the owners of rules for whom the person stands; nobody decides about what is theirs.
    """
    named(person)
    store.review(pseudonym, tag, person, "rejected" if reject else "approved", now, owns)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "approve",
        "pseudonym": pseudonym,
        "tag": tag,
        "verdict": "rejected" if reject else "approved",
        "do": "" if reject else "run: cameo-node tags apply --as NAME",
    }


def approve_pack(
    store: TagStore, path: Path, catalogue: Catalogue, person: str, now: datetime, *, owns: Sequence[str] = ()
) -> dict[str, Any]:
    """Put a pack in force after lint and tests; four eyes: the person owns none of its rules."""
    named(person)
    pack = checked_pack(path, catalogue, store, today=now.date())
    store.approve_pack(pack, person, now, owns)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "approve-pack",
        "pack": pack.pack.id,
        "version": pack.pack.version,
        "sha256": pack.sha256(),
        "do": "run: cameo-node tags apply --as NAME",
    }


def enforce_consent(store: TagStore, consents: ConsentStore, policy: TagPolicy, now: datetime) -> dict[str, Any]:
    """Remove at once the tags whose consent has been withdrawn or has run out, without waiting for the next apply."""
    needed: dict[Scope, list[StoredTag]] = {}
    rules: dict[tuple[str, str], Rule | None] = {}
    for row in store.tags(now):
        key = (row.pack_sha256, row.rule)
        if key not in rules:
            rules[key] = store.rule(*key)
        rule = rules[key]
        for scope in rule.scopes() if rule else ():
            needed.setdefault(scope, []).append(row)
    gone: set[tuple[str, str]] = set()
    for scope, rows in needed.items():
        gone |= _without_consent(rows, scope, consents, policy, now)
    removed = store.remove(sorted(gone), "consent-gone", now)
    return {"schema_version": SCHEMA_VERSION, "command": "enforce-consent", "removed": removed}


def _without_consent(
    rows: Sequence[StoredTag], scope: Scope, consents: ConsentStore, policy: TagPolicy, now: datetime
) -> set[tuple[str, str]]:
    """Rows that this scope no longer allows. Where care rests on another basis, only a no counts."""
    refused = consents.withdrawn(scope, now)
    double = scope in policy.double_confirmed
    granted = consents.granted([row.pseudonym for row in rows], scope, now, double_confirmed=double)
    return {
        (row.pseudonym, row.tag)
        for row, yes in zip(rows, granted.tolist(), strict=True)
        if row.pseudonym in refused or not (yes or (scope == "care" and row.purpose in policy.legal_basis))
    }


def _require_quality(ward: Ward) -> None:
    if not ward.quality.score >= ward.policy.quality_floor:
        raise OperatorError(
            "quality-too-low",
            what=f"data quality {ward.quality.score:.1f}, {ward.policy.quality_floor:g} is needed; no tag was written",
            do="run: cameo-node data check",
            exit=ExitCode.QUALITY,
        )


def _require_approved(outcome: Outcome) -> None:
    for item in outcome.world.rules:
        if item.pack_sha256 not in outcome.world.given.approved_packs:
            raise OperatorError(
                "pack-not-approved",
                what=f"nobody has approved this content of the pack {item.pack_id} {item.pack_version}",
                do="have a second person run: cameo-node tags approve-pack --as NAME",
                exit=ExitCode.POLICY,
            )


def named(person: str) -> None:
    """A verdict or an export needs a person's name; anything else is `OperatorError("reviewer-unnamed")`."""
    if not 3 <= len(person.strip()) <= 60 or not person.isprintable():
        raise OperatorError(
            "reviewer-unnamed", what="a verdict without a person", do="say who decides: --as NAME", exit=ExitCode.USAGE
        )


def _log_use(outcome: Outcome, ward: Ward) -> None:
    """One use a purpose, for the patients whose tags come to be kept or wait, before anything is written."""
    by_purpose: dict[str, set[str]] = {}
    for one in outcome.decisions(("stored", "waiting")):
        by_purpose.setdefault(one.rule.rule.purpose, set()).add(one.pseudonym)
    packs = ", ".join(dict.fromkeys(f"{item.pack_id} {item.pack_version}" for item in outcome.world.rules))
    for purpose, names in sorted(by_purpose.items()):
        scope = next(scope for key, scope in SCOPE_OF.items() if key == purpose)
        ground = next((text for key, text in ward.policy.legal_basis.items() if key == purpose), "consent")
        use = Use(at=ward.now, scope=scope, action="tags evaluated", reference=packs, ground=ground)
        ward.consents.log_use(use, sorted(names))
