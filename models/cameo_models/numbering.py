"""Segment numbers that keep their meaning from run to run.

Training leaves the prototypes in an order that noise decides. Here they get their numbers: those that an earlier
model's prototypes have in the same places, or, in a first model, by their own order. Both read released centres only,
so it costs no privacy (post-processing; docs/decisions/0016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator

from cameo_models.bundle import ModelBundle
from cameo_models.shapes import Parameters, flatten, unflatten
from cameo_protocol.errors import Reject
from cameo_protocol.plan import Hex32, RunPlan, SegmentTask

CARRIED: Final = 0.5
_CENTRES: Final = "prototypes.centres"
_DIGITS: Final = 6


@dataclass(frozen=True)
class Numbered:
    """order: number i + 1 is row order[i] of the centres, each row once.

    moved: by number, how far the centre lies from the former centre of that number, as a share of that one's distance
    to the nearest other former centre; None where there was none, or where two former ones coincide.
    """

    order: tuple[int, ...]
    moved: tuple[float | None, ...]


class SegmentNumber(BaseModel, frozen=True, extra="forbid"):
    """One number on the model card.

    carried: it means what it meant in the former model. since: the run that gave it its present meaning. changed: when
    it came to mean something else than before; None where it never did.
    """

    number: int = Field(ge=1, le=64)
    moved: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    carried: bool = False
    since: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    changed: AwareDatetime | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.carried != is_carried(self.moved):
            raise ValueError("a number is carried exactly where its centre stayed near")
        return self


class Former(BaseModel, frozen=True, extra="forbid"):
    """The earlier model whose numbers are carried on: its run and its id."""

    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    model: Hex32


class Numbering(BaseModel, frozen=True, extra="forbid"):
    """How the segments of one model were numbered: card["segments"][task]. former: None in a first model."""

    former: Former | None = None
    numbers: tuple[SegmentNumber, ...] = Field(min_length=2, max_length=64)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if [one.number for one in self.numbers] != list(range(1, len(self.numbers) + 1)):
            raise ValueError("the numbers are 1 to K, in order")
        return self


def is_carried(moved: float | None) -> bool:
    """Whether a centre that moved so far is still the same: no other former centre can be nearer to where it was.

    Within half the distance to the nearest other former centre, it is nearer to its own than to any other.
    """
    return moved is not None and moved < CARRIED


def number(centres: Parameters, former: Parameters | None = None) -> Numbered:
    """Numbers for the rows of centres (K, F); former: the centres (K', F) of the earlier model by their numbers.

    Without a former model, rows are in ascending order of their first feature, ties by the next: the first fact of
    the catalogue decides. With one, a former number goes to the nearest row that is carried (see `is_carried`), which
    is settled for each number alone, so that a segment that comes or goes takes no number from another. What is left
    is paired so that the sum of squared distances is smallest (exact), the rest gets the free numbers in ascending
    order. The order of the rows given does not matter, unless two are the same.
    """
    rows = np.lexsort(centres.T[::-1])
    if former is None:
        return Numbered(tuple(rows.tolist()), (None,) * len(rows))
    kept = min(len(rows), len(former))  # a number beyond K cannot be kept
    slots: dict[int, int] = {}
    for slot in range(kept):
        nearest = min(rows.tolist(), key=lambda row: _square(centres[row], former[slot]))
        if is_carried(_moved(centres[nearest], former, slot)):
            slots[slot] = nearest
    rest = [row for row in rows.tolist() if row not in slots.values()]
    free = [slot for slot in range(kept) if slot not in slots]
    slots |= {free[old]: rest[new] for new, old in _pairs(centres[rest], former[free])}
    more = iter([row for row in rest if row not in slots.values()])
    order = tuple(slots[slot] if slot in slots else next(more) for slot in range(len(rows)))
    moved = tuple(_moved(centres[row], former, slot) if slot < kept else None for slot, row in enumerate(order))
    return Numbered(order, moved)


def centres_of(bundle: ModelBundle) -> Parameters:
    """The prototypes of a segment model by number, (K, F)."""
    return unflatten(bundle.task, bundle.facts.features, bundle.parameters)[_CENTRES]


def reordered(task: SegmentTask, features: int, params: Parameters, order: Sequence[int]) -> Parameters:
    """The parameters (d,) with the centres in another order."""
    return flatten(task, features, {_CENTRES: unflatten(task, features, params)[_CENTRES][list(order)]})


def card_entry(
    found: Numbered, run: str, former: Former | None, known: Numbering | None, now: datetime, *, first: bool
) -> Numbering:
    """What the card says. known: of the former model, where its card has it. first: no number had a meaning before."""
    numbers = []
    for slot, moved in enumerate(found.moved):
        carried = is_carried(moved)
        before = known.numbers[slot] if known is not None and slot < len(known.numbers) else None
        since = (before.since if before else former.run) if carried and former else run
        changed = (before.changed if before else None) if carried else None if first else now
        numbers.append(SegmentNumber(number=slot + 1, moved=moved, carried=carried, since=since, changed=changed))
    return Numbering(former=former, numbers=tuple(numbers))


def said(entry: Numbering, number: int) -> str:
    """What became of a number, in a sentence for people."""
    one, former = entry.numbers[number - 1], entry.former
    if one.carried and former:
        way = f"moved {one.moved:.0%} of the way to the nearest other"
        since = f"; the same since run {one.since}" if one.since != former.run else ""
        return f"As in run {former.run}, {way}{since}."
    if one.changed is None:
        return "This run gave it its number."
    before = f": not segment {number} of run {former.run}" if former and one.moved is not None else ""
    return f"New meaning in this run{before}. Rules that name it wait until their pack is approved again."


def read_numberings(card: Mapping[str, Any], plan: RunPlan) -> dict[str, Numbering]:
    """card["segments"] by task; empty in the card of a version that did not number. Unsound: `Reject`."""
    raw = card.get("segments")
    if raw is None:
        return {}
    tasks = {task.name: task.clusters for task in plan.tasks if isinstance(task, SegmentTask)}
    try:
        found = {name: Numbering.model_validate(entry) for name, entry in dict(raw).items()}
    except (ValidationError, ValueError, TypeError):
        raise Reject("card-segments", what="the model card numbers its segments in a way that is not ours") from None
    if {name: len(entry.numbers) for name, entry in found.items()} != tasks:
        raise Reject("card-segments", what="the model card numbers other segments than those of the plan")
    return found


def check_numbering(entry: Numbering, centres: Parameters, former: Parameters | None) -> None:
    """Refuse (`Reject`) centres (K, F) that are not in the order that the card claims. former: by their numbers."""
    found = number(centres, former)
    same = all(
        (told.moved is None) == (moved is None) and (moved is None or abs(moved - (told.moved or 0.0)) <= 1e-3)
        for told, moved in zip(entry.numbers, found.moved, strict=True)
    )
    if not np.array_equal(centres[list(found.order)], centres) or not same:
        raise Reject("card-segments", what="the segments are not numbered as the model card says")


def _pairs(centres: Parameters, former: Parameters) -> list[tuple[int, int]]:
    """Rows of the one and of the other, as many as the fewer of them (Kuhn 1955)."""
    from scipy.optimize import linear_sum_assignment

    if not len(centres) or not len(former):
        return []
    new, old = linear_sum_assignment(np.array([[_square(row, other) for other in former] for row in centres]))
    return list(zip(new.tolist(), old.tolist(), strict=True))


def _moved(centre: Parameters, former: Parameters, slot: int) -> float | None:
    gap = math.sqrt(min(_square(other, former[slot]) for at, other in enumerate(former) if at != slot))
    if gap == 0.0:
        return None
    return round(math.sqrt(_square(centre, former[slot])) / gap, _DIGITS)


def _square(one: Parameters, other: Parameters) -> float:
    return float(np.square(one - other).sum())
