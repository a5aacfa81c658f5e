"""Which number each segment of a run gets: settled once, where the models are published, so that hospitals agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cameo_models.bundle import ModelBundle, parse_bundle
from cameo_models.numbering import Former, Numbering, card_entry, centres_of, number, read_numberings, reordered
from cameo_models.shapes import unflatten
from cameo_protocol.errors import CameoError
from cameo_protocol.plan import RunPlan, SegmentTask, parse_plan
from cameo_server.run.store import PLAN, RunStore

CARD = "card.json"


@dataclass(frozen=True, eq=False)
class Earlier:
    """A segment model that this coordinator has published. numbering: on its card; None where its card has none."""

    run: str
    bundle: ModelBundle
    numbering: Numbering | None


@dataclass(frozen=True)
class Renumbering:
    """Numbers for a run. orders: by segment task, the trained row of each number. card: card["segments"]."""

    orders: Mapping[str, tuple[int, ...]]
    card: Mapping[str, Numbering]

    def as_event(self) -> dict[str, Any]:
        """The fields of the event "numbered"."""
        card = {name: entry.model_dump(mode="json") for name, entry in self.card.items()}
        return {"orders": {name: list(order) for name, order in self.orders.items()}, "segments": card}


def settle_numbers(store: RunStore, plan: RunPlan, features: int, parameters: bytes, now: datetime) -> Renumbering:
    """The numbers of a run's segments, kept as its event "numbered" before anybody is told.

    Once: a run that died while it published goes on with the numbers it had. parameters: all trained tasks in plan
    order, little-endian float32. The run's siblings in the coordinator's folder are the earlier runs.
    """
    kept = next((event for event in store.events() if event["event"] == "numbered"), None)
    if kept is not None:
        orders = {name: tuple(order) for name, order in kept["orders"].items()}
        return Renumbering(orders, read_numberings(kept, plan))
    found = _numbers(store, plan, features, parameters, now)
    if found.orders:
        store.event("numbered", **found.as_event())
    return found


def _numbers(store: RunStore, plan: RunPlan, features: int, parameters: bytes, now: datetime) -> Renumbering:
    spans, joint = plan.parameter_spans(), np.frombuffer(parameters, dtype="<f4").astype(np.float64)
    orders, card = {}, {}
    for task in plan.trained():
        if not isinstance(task, SegmentTask):
            continue
        centres = unflatten(task, features, joint[spans[task.name]])["prototypes.centres"]
        before = _newest(store, plan, task)
        alike = before is not None and _alike(before.bundle, plan, features)
        former = Former(run=before.run, model=before.bundle.sha256()) if before and alike else None
        found = number(centres, centres_of(before.bundle) if before and alike else None)
        known = before.numbering if before and alike else None
        orders[task.name] = found.order
        card[task.name] = card_entry(found, store.folder.name, former, known, now, first=before is None)
    return Renumbering(orders, card)


def in_order(plan: RunPlan, features: int, parameters: bytes, orders: Mapping[str, tuple[int, ...]]) -> bytes:
    """The parameters (little-endian float32) with the segments in the order of their numbers."""
    joint = np.frombuffer(parameters, dtype="<f4").astype(np.float64)
    spans = plan.parameter_spans()
    for task in plan.trained():
        if isinstance(task, SegmentTask):
            joint[spans[task.name]] = reordered(task, features, joint[spans[task.name]], orders[task.name])
    return joint.astype("<f4").tobytes()


def _newest(store: RunStore, plan: RunPlan, task: SegmentTask) -> Earlier | None:
    """The segment model of that name that was published last on a catalogue of that id."""
    found = sorted(_published(store.folder, plan.data.catalogue), key=lambda one: one[0], reverse=True)
    for _, folder in found:
        earlier = _read(folder, task.name)
        if earlier is not None:
            return earlier
    return None


def _published(folder: Path, catalogue: str) -> Iterator[tuple[tuple[float, str], Path]]:
    """The other runs that were published on a catalogue, each with when."""
    for other in folder.parent.iterdir():
        if other == folder or not (other / PLAN).is_file() or not (other / CARD).is_file():
            continue
        try:
            plan = parse_plan((other / PLAN).read_bytes())
        except (CameoError, OSError):
            continue  # of a version whose plans are not read any more: its segments cannot be compared
        times = [event["time"] for event in RunStore(other).events() if event["event"] == "published"]
        if times and plan.data.catalogue == catalogue:
            yield (times[-1], other.name), other


def _read(folder: Path, task: str) -> Earlier | None:
    """A run's model of a segment task; None where it has none that can be read."""
    path = folder / f"{task}.safetensors"
    try:
        bundle = parse_bundle(path.read_bytes())
        numbering = read_numberings(json.loads((folder / CARD).read_bytes()), parse_plan((folder / PLAN).read_bytes()))
    except (CameoError, OSError, ValueError):
        return None
    return Earlier(folder.name, bundle, numbering.get(task)) if isinstance(bundle.task, SegmentTask) else None


def _alike(bundle: ModelBundle, plan: RunPlan, features: int) -> bool:
    """Whether the centres of both live in the same space: the very same facts, on the same scales."""
    return (bundle.facts.catalogue_sha256, bundle.facts.features) == (plan.data.catalogue_sha256, features)
