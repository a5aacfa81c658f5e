"""Published models in a hospital's home without a training run: made-up parameters, the true card and signature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cameo_client.ledger import Caps
from cameo_client.node.publication import SIGNED
from cameo_models.shapes import parameter_count
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import RiskTask, RunPlan, SegmentTask
from cameo_protocol.privacy.releases import plan_releases
from cameo_protocol.stages import Publication
from cameo_server.definitions import read_catalogue
from cameo_server.home import load_ed25519
from cameo_server.run.publication import publication
from passed_audit import passed_audit


def plan_of(plan: RunPlan, label: str, *, segments: bool = False, **data: Any) -> RunPlan:
    """A plan like the one given, for another label, without segments unless asked, on other data terms if need be."""
    tasks = []
    for task in plan.tasks:
        if isinstance(task, RiskTask):
            tasks.append(task.model_copy(update={"label": label}))
        elif segments or not isinstance(task, SegmentTask):
            tasks.append(task)
    terms = plan.data.model_copy(update=data)
    return RunPlan.model_validate(plan.model_copy(update={"tasks": tuple(tasks), "data": terms}).model_dump())


def made(
    plan: RunPlan, run: str, seed: int = 0, centres: Mapping[str, Any] | None = None, segments: Any = None
) -> Publication:
    """What a coordinator would publish, with parameters drawn from the seed, or centres given; segments: their card."""
    features = len(feature_names(read_catalogue(plan.data.catalogue)))
    size = sum(parameter_count(task, features) for task in plan.trained())
    joint = np.random.default_rng(seed).normal(0, 0.3, size).astype("<f4")
    for name, rows in (centres or {}).items():
        joint[plan.parameter_spans()[name]] = rows.ravel()
    audit = passed_audit(plan).card()
    return publication(plan, run, features, joint.tobytes(), {}, {}, audit=audit, segments=segments)


def admit(world: Any, run: str, plan: RunPlan) -> None:
    """Hospital 1 took part in the run."""
    world.first.ledger.reserve(run, plan.plan_id(), plan_releases(plan), Caps(dataset=1e3, year=1e3))


def sealed(world: Any, message: Publication) -> bytes:
    """Signed by the coordinator of the world."""
    return message.seal(load_ed25519(world.coordinator.plan_key))


def put(world: Any, folder: Path, message: Publication) -> None:
    """As hospital 1 stores it."""
    (folder / message.run).mkdir(parents=True)
    (folder / message.run / SIGNED).write_bytes(sealed(world, message))
