"""From published models to tags: score this hospital's own patients, then let the rule layer decide.

The second of three places that handle patient rows (training, scoring, tags). Nothing here leaves the hospital.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.consent.store import ConsentStore
from cameo_client.data.columns import outcome_column
from cameo_client.home import NodeHome
from cameo_client.membership import load_federation
from cameo_client.node.study import LocalData
from cameo_client.serving import Choice, Serving, choose, runs_until
from cameo_client.tags.apply import Outcome
from cameo_client.tags.desk import Ward, apply_packs, quality_of
from cameo_client.tags.policy import TagPolicy, laxer, load_policy
from cameo_client.tags.schema import ModelInfo
from cameo_client.tags.store import TagStore
from cameo_models.bundle import ModelBundle
from cameo_models.numbering import Numbering
from cameo_models.scoring import risk_scores, segment_memberships
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue
from cameo_protocol.plan import RiskTask

MODEL_VERSION = 1
LEAST = 200  # patients; a prevalence is then known to 0.07 or better, with 95 % confidence
GAP = 0.1  # a tenth: the width of the bands in which a probability is said
OWN_PACKS, OWN_POLICY = "packs", "tags-policy.yaml"


def tag_patients(home: NodeHome, local: LocalData, consents: ConsentStore, run: str | None, now: datetime) -> Outcome:
    """Score everybody with the models that serve, apply the packs in force, and write the tags.

    run: the newest whose models count, as they served when it was published; None takes all. Without any model, only
    rules on facts can fire. Every fault is an `OperatorError`, and then no tag has changed.
    """
    ward = open_ward(home, local, consents, run, now)
    with TagStore(home.tags) as store:
        outcome, _ = apply_packs(pack_paths(home, local.catalogue.id), ward, store)
    return outcome


def open_ward(home: NodeHome, local: LocalData, consents: ConsentStore, run: str | None, now: datetime) -> Ward:
    """What the rule layer evaluates: facts with model columns, and the circumstances they came with."""
    policy = tag_policy(home)
    choice = serving_models(home, local.catalogue, policy, run)
    columns, models = model_columns(choice.serving, local)
    quality = local.data.quality
    return Ward(
        facts=local.data.facts.with_columns(pl.Series(name, values) for name, values in columns.items()),
        catalogue=local.catalogue,
        snapshot=local.data.snapshot,
        quality=quality_of(quality.score, bool(quality.hard), local.pseudonyms, quality.records, policy.quality_floor),
        models=models,
        left_out=choice.left_out,
        consents=consents,
        policy=policy,
        now=now,
    )


def serving_models(home: NodeHome, catalogue: Catalogue, policy: TagPolicy, run: str | None = None) -> Choice:
    """The models that serve on this catalogue; run: the newest that counts, an error where its models are not here."""
    runs: tuple[str, ...] = () if run is None else (run,)
    if home.models.exists():
        from cameo_client.node.service import open_ledger

        with open_ledger(home) as ledger:
            runs = runs_until(home.models, ledger.runs(), run)
    if not runs:
        return Choice()
    coordinator = bytes.fromhex(load_federation(home).coordinator)
    return choose(home.models, runs, coordinator, catalogue, policy.withdrawn_models)


def model_columns(serving: Sequence[Serving], local: LocalData) -> tuple[dict[str, Any], list[ModelInfo]]:
    """risk_<label> in [0, 1], segment (1..K) and segment_strength (0..1), rows in the order of the facts."""
    columns: dict[str, Any] = {}
    models = []
    features = local.features.shape[1]
    for one in serving:
        bundle, fit = one.bundle, False  # whether it is calibrated is asked of risk models only
        if isinstance(bundle.task, RiskTask):
            columns[one.name] = risk_scores(bundle.task, features, bundle.parameters, local.features)
            fit = _calibrated(bundle, one.card, columns[one.name], local)
        else:
            memberships = segment_memberships(bundle.task, features, bundle.parameters, local.features)
            columns[one.name] = memberships.argmax(axis=1).astype(np.int64) + 1
            columns["segment_strength"] = memberships.max(axis=1, initial=0.0)
        models.append(
            ModelInfo(
                name=one.name,
                version=MODEL_VERSION,
                model_id=bundle.sha256(),
                released=one.released,
                run=one.run,
                round=bundle.facts.round,
                audited=audited(one.card),
                calibrated=fit,
                changed=_changed(one.numbering),
            )
        )
    return columns, models


def _changed(numbering: Numbering | None) -> tuple[tuple[int, datetime], ...]:
    """Segments whose number has come to mean something else, and since when."""
    numbers = numbering.numbers if numbering else ()
    return tuple((one.number, one.changed) for one in numbers if one.changed is not None)


def _calibrated(bundle: ModelBundle, card: Mapping[str, Any], scores: npt.NDArray[Any], local: LocalData) -> bool:
    """Whether a risk model is calibrated: this hospital's outcomes say so, or, where they are too few, the card."""
    task = bundle.facts.task
    if isinstance(task, RiskTask) and task.label in local.data.outcomes.columns:
        here = calibrated_here(scores, outcome_column(local.data, task.label))
        if here is not None:
            return here
    return bundle.facts.recalibrated or calibrated(card, task.name)


def audited(card: Mapping[str, Any]) -> bool:
    """Whether the signed card names a privacy audit of the recipe that passed."""
    audit = card.get("audit")
    return isinstance(audit, Mapping) and audit.get("passed") is True


def calibrated(card: Mapping[str, Any], task: str) -> bool:
    """Whether the card's evaluation finds prevalence and mean score of a risk task at most `GAP` apart.

    Not evaluated, or drowned in noise: not calibrated, since nobody knows.
    """
    evaluation = card.get("evaluation")
    figures = evaluation.get(task) if isinstance(evaluation, Mapping) else None
    gap = figures.get("gap") if isinstance(figures, Mapping) else None
    value = gap.get("value") if isinstance(gap, Mapping) else None
    return isinstance(value, int | float) and abs(value) <= GAP


def calibrated_here(scores: npt.NDArray[Any], outcomes: npt.NDArray[Any]) -> bool | None:
    """Whether, of this hospital's own patients, prevalence and mean score lie at most `GAP` apart.

    scores: (N,) in [0, 1]. outcomes: (N,) 0, 1 or NaN where not known. None where fewer than `LEAST` are known: then
    the card has to say it. The answer stays in the hospital, like the tags.
    """
    known = np.isfinite(outcomes)
    if known.sum() < LEAST:
        return None
    return bool(abs(float(outcomes[known].mean()) - float(scores[known].mean())) <= GAP)


def pack_paths(home: NodeHome, catalogue: str) -> tuple[Path, ...]:
    """The hospital's own packs (HOME/packs/*.yaml) or, where it has none, the shipped one of its catalogue."""
    own = tuple(sorted((home.root / OWN_PACKS).glob("*.yaml")))
    shipped = conf_dir() / "tags" / f"{catalogue}.yaml"
    if not own and not shipped.is_file():
        raise OperatorError(
            "tag-pack-missing",
            what=f"there is no rule pack for the catalogue {catalogue}",
            do=f"write one into {home.root / OWN_PACKS}; docs/tags.md shows how",
        )
    return own or (shipped,)


def tag_policy(home: NodeHome) -> TagPolicy:
    """The officer's tag policy: HOME/tags-policy.yaml, or the shipped one.

    One that protects less than the shipped one is `OperatorError("tag-policy-laxer")`.
    """
    own, least = home.root / OWN_POLICY, load_policy(conf_dir() / "tags" / "policy" / "guards.yaml")
    if not own.exists():
        return least
    policy = load_policy(own)
    faults = laxer(policy, least)
    if faults:
        raise OperatorError(
            "tag-policy-laxer",
            what=f"{OWN_POLICY} may only be stricter than conf/tags/policy/guards.yaml, but {'; '.join(faults)}",
            do=f"correct {own} and run the command again",
            exit=ExitCode.POLICY,
        )
    return policy
