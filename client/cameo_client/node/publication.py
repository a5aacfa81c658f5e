"""Published models in the hospital: checked, stored, and handed to whoever applies them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cameo_client.data.catalogue import load_catalogue
from cameo_client.home import write_file
from cameo_client.ledger import Ledger
from cameo_models.bundle import ModelBundle, check_bundle, parse_bundle
from cameo_models.numbering import Former, Numbering, centres_of, check_numbering, read_numberings
from cameo_protocol import canonical
from cameo_protocol.errors import CameoError, OperatorError, Reject
from cameo_protocol.facts import Catalogue, feature_names
from cameo_protocol.plan import RunPlan, SegmentTask
from cameo_protocol.privacy.plan_check import RELATIVE_TOLERANCE
from cameo_protocol.recipe import recipe_of
from cameo_protocol.stages import Publication

CARD = "card.json"
SIGNED = "publication.cbor"


@dataclass(frozen=True, eq=False)
class PublishedModels:
    """The models of one run with their card; models: task name -> bundle.

    numberings: segment task -> how its segments were numbered; empty where the card does not say.
    """

    run: str
    folder: Path
    plan: RunPlan
    models: dict[str, ModelBundle]
    card: dict[str, Any]
    numberings: dict[str, Numbering]


@dataclass(frozen=True)
class Library:
    """Stores what the coordinator publishes. published: told the run's id after everything is on disk."""

    folder: Path
    coordinator: bytes
    ledger: Ledger
    published: Callable[[str], None]

    def store(self, body: bytes) -> tuple[str, bytes]:
        """Check a publication and keep it; the run's unused reserve is free again. Returns the run, the answer's body.

        A signature, a card or a model that does not fit, and a run in which this hospital took no part or in which it
        followed another plan, is a `Reject`; nothing is stored then. What is stored already is left as it is, and
        `published` is told of it only when no later run has models here: telling an old one again changes no tags.
        """
        message = Publication.open(body, self.coordinator)
        if not plain_name(message.run):
            raise Reject("run-name", what="a run whose name is not letters, digits and hyphens")
        if self.ledger.plan_of(message.run) != message.plan_id.hex():
            raise Reject("card-foreign", what="the models are of another plan than the one this hospital followed")
        self._check_numbers(read_publication(self.folder / message.run, message))
        stored = self.folder / message.run / SIGNED
        known = stored.exists() and stored.read_bytes() == body
        if not known:
            write_file(stored, body)
        self.ledger.close(message.run)
        if not known or newest(self.folder, self.ledger.runs()) == message.run:
            self.published(message.run)
        return message.run, canonical.encode({"run": message.run, "stored": True})

    def _check_numbers(self, published: PublishedModels) -> None:
        """Segments whose numbers are not what the card says are a `Reject`.

        A former model that is not here, or not sound, cannot be held against them: then the signature has to do.
        """
        for name, entry in published.numberings.items():
            former = None
            if entry.former is not None:
                former = self._former(name, entry.former)
                if former is None:
                    continue
            check_numbering(entry, centres_of(published.models[name]), former)

    def _former(self, task: str, named: Former) -> npt.NDArray[np.float64] | None:
        """The centres of a former model that is stored here; one with another id than the card names is a `Reject`."""
        try:
            bundle = parse_bundle(load_message(self.folder, named.run, self.coordinator).models[task])
        except (CameoError, KeyError):
            return None
        if bundle.sha256() != named.model or not isinstance(bundle.task, SegmentTask):
            raise Reject("card-segments", what="the former model that the card names is not the one of that run")
        return centres_of(bundle)


def load_published(folder: Path, run: str, coordinator: bytes) -> PublishedModels:
    """The models of a run as stored; the signature is checked again, so a changed file is refused."""
    return read_publication(folder / run, load_message(folder, run, coordinator))


def load_message(folder: Path, run: str, coordinator: bytes) -> Publication:
    """A run's publication as stored, its signature checked again; what it holds is not looked into."""
    try:
        body = (folder / run / SIGNED).read_bytes()
    except OSError:
        raise OperatorError(
            "model-missing", what=f"no models of run {run} are stored here", do="ls the models folder of this home"
        ) from None
    return Publication.open(body, coordinator)


def newest(folder: Path, runs: Sequence[str]) -> str | None:
    """The latest of these runs, in order of admission, whose models are stored; None when there are none."""
    return next((run for run in reversed(runs) if (folder / run / SIGNED).exists()), None)


def read_card(message: Publication) -> tuple[dict[str, Any], RunPlan]:
    """The card of a publication and the plan that it names; another run's or plan's card is a `Reject`."""
    try:
        card = json.loads(message.card)
        plan = RunPlan.model_validate(card["plan"])
        dict(card["models"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Reject("card-malformed", what="the model card is not one of ours") from None
    if bytes.fromhex(plan.plan_id()) != message.plan_id or card.get("run") != message.run:
        raise Reject("card-foreign", what="the model card belongs to another run or plan")
    return card, plan


def read_publication(folder: Path, message: Publication, catalogue: Catalogue | None = None) -> PublishedModels:
    """The parsed content of a publication; anything that does not fit together is a `Reject`.

    catalogue: the installed one, where the caller has read it. A plan on another catalogue than the installed one is
    an `OperatorError`: its models cannot be applied here.
    """
    card, plan = read_card(message)
    hashes = card["models"]
    if not _audited(card, plan):
        raise Reject("card-unaudited", what="the model card holds no audit that passed and bears out the plan's claim")
    if set(message.models) != {task.name for task in plan.trained()}:
        raise Reject("models-incomplete", what="not one model for each trained task of the plan")
    models = {name: parse_bundle(raw) for name, raw in message.models.items()}
    features = _features(plan, catalogue or load_catalogue(plan.data.catalogue))
    for name, bundle in models.items():
        check_bundle(bundle, plan, features)
        if bundle.facts.task.name != name or hashes.get(name) != bundle.sha256():
            raise Reject("model-foreign", what=f"the model of task {name} is not the one on the card")
    return PublishedModels(message.run, folder, plan, models, card, read_numberings(card, plan))


def _features(plan: RunPlan, catalogue: Catalogue) -> int:
    """How many features a model on the plan's catalogue has: the installed catalogue says so, not the model."""
    if catalogue.sha256() != plan.data.catalogue_sha256:
        raise OperatorError(
            "model-catalogue",
            what=f"a model on another version of the facts catalogue {plan.data.catalogue} than the one installed here",
            do="install the catalogue's version of that run, or take part in a new run with the present one",
        )
    return len(feature_names(catalogue))


def _audited(card: dict[str, Any], plan: RunPlan) -> bool:
    """Whether the card says that an audit of this plan's recipe passed and bears out the plan's own claim.

    The gate itself is the coordinator's; this catches a card that speaks of another recipe or of another claim.
    """
    audit = card.get("audit")
    if not isinstance(audit, dict) or audit.get("passed") is not True or audit.get("recipe") != recipe_of(plan):
        return False
    bound, claim = audit.get("lower_bound"), audit.get("claim")
    if not isinstance(bound, int | float) or not isinstance(claim, int | float):
        return False
    # The claim is what the releases compose to: calibration leaves it a little below the plan's epsilon, never above.
    return 0 <= bound <= claim <= plan.privacy.epsilon * (1 + RELATIVE_TOLERANCE)


def plain_name(name: str) -> bool:
    """Whether a run's name may name a folder: letters, digits and hyphens."""
    return 1 <= len(name) <= 64 and name.isascii() and name.replace("-", "").isalnum()
