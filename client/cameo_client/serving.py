"""Which stored models serve: for each risk label, and for the segments, the newest one that is permitted and fits.

Runs with different labels make models that are needed side by side, so each column of scores has its own newest model.
A model that may not or cannot serve is left out and named with its reason; the next older one of its column takes its
place, or none does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cameo_client.node.publication import SIGNED, load_message, read_card, read_publication
from cameo_client.tags.schema import SEGMENT, LeftOut
from cameo_models.bundle import ModelBundle
from cameo_models.numbering import Numbering
from cameo_protocol.errors import CameoError
from cameo_protocol.facts import Catalogue
from cameo_protocol.plan import RiskTask, RunPlan, SegmentTask
from cameo_protocol.stages import Publication

OTHER_CATALOGUE: Final = "model-catalogue"
WITHDRAWN: Final = "model-withdrawn"
UNREADABLE: Final = "model-unreadable"


@dataclass(frozen=True, eq=False, kw_only=True)
class Serving:
    """A model that fills a column of scores. card: of its run. released: when this hospital stored it.

    numbering: of a segment model, where its card says how its segments were numbered.
    """

    name: str
    run: str
    bundle: ModelBundle
    card: Mapping[str, Any]
    released: datetime
    numbering: Numbering | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """The models that serve, newest run first, and those that would if nothing stood against them."""

    serving: tuple[Serving, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def column_of(task: RiskTask | SegmentTask) -> str:
    """The column of scores that a task's model fills."""
    return f"risk_{task.label}" if isinstance(task, RiskTask) else SEGMENT


def runs_until(folder: Path, runs: Sequence[str], run: str | None) -> tuple[str, ...]:
    """Runs whose models are stored here, newest first. runs: in order of admission. run: the newest that counts.

    A run that is asked for by name comes first in any case, so that it is an error where its models are not here.
    """
    if run is None:
        return tuple(one for one in reversed(runs) if (folder / one / SIGNED).exists())
    before = runs[: runs.index(run)] if run in runs else ()
    return (run, *runs_until(folder, before, None))


def choose(
    folder: Path, runs: Sequence[str], coordinator: bytes, catalogue: Catalogue, withdrawn: Collection[str] = ()
) -> Choice:
    """One model a column out of the runs' stored publications.

    runs: newest first. catalogue: that of this hospital's facts. withdrawn: ids (hex) of models that the officer does
    not let serve. The first run's publication must be sound: a changed file is the error it always was. An older one
    that is not is left out.
    """
    serving: dict[str, Serving] = {}
    left_out: list[LeftOut] = []
    for run in runs:
        try:
            message = load_message(folder, run, coordinator)
            plan = read_card(message)[1]
            wanted = {column_of(task) for task in plan.trained()} - serving.keys()
            if not wanted:
                continue
            found, missed = _of_run(folder, message, plan, catalogue, withdrawn)
        except CameoError as error:
            if run == runs[0]:
                raise
            left_out.append(LeftOut(run=run, name="", reason=UNREADABLE, what=f"{error.code}: {error.what}"))
            continue
        serving |= {one.name: one for one in found if one.name in wanted}
        left_out += [one for one in missed if one.name in wanted]
    return Choice(tuple(serving.values()), tuple(left_out))


def _of_run(
    folder: Path, message: Publication, plan: RunPlan, catalogue: Catalogue, withdrawn: Collection[str]
) -> tuple[list[Serving], list[LeftOut]]:
    """The models of one run that may serve, and those that may not."""
    if plan.data.catalogue_sha256 != catalogue.sha256():
        what = f"it was trained on facts of {plan.data.catalogue}, not of this version of {catalogue.id}"
        names = dict.fromkeys(column_of(task) for task in plan.trained())
        return [], [LeftOut(run=message.run, name=name, reason=OTHER_CATALOGUE, what=what) for name in names]
    published = read_publication(folder / message.run, message, catalogue)
    released = datetime.fromtimestamp((folder / message.run / SIGNED).stat().st_mtime, UTC)
    found, missed = [], []
    for task, bundle in published.models.items():
        name = column_of(bundle.task)
        if bundle.sha256() in withdrawn:
            what = "the officer's tag policy withdraws it"
            missed.append(LeftOut(run=message.run, name=name, reason=WITHDRAWN, what=what))
            continue
        found.append(
            Serving(
                name=name,
                run=message.run,
                bundle=bundle,
                card=published.card,
                released=released,
                numbering=published.numberings.get(task),
            )
        )
    return found, missed
