"""Segment numbers: what carries over, what does not, and what the card says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from cameo_models.numbering import (
    Former,
    Numbering,
    card_entry,
    check_numbering,
    number,
    read_numberings,
    said,
)
from cameo_protocol.errors import Reject

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OLD = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.5]])
FORMER = Former(run="r1", model="a" * 64)


def entry(
    new: Any, former: Any = None, known: Numbering | None = None, *, first: bool = True, at: datetime = NOW
) -> Any:
    found = number(np.asarray(new), former)
    return card_entry(found, "r2", FORMER if former is not None else None, known, at, first=first)


def test_a_first_model_is_numbered_by_its_first_fact() -> None:
    assert number(OLD[[2, 0, 1]]).order == (1, 2, 0)
    assert number(np.array([[0.0, 1.0], [0.0, -1.0], [-0.5, 9.0]])).order == (2, 1, 0), "ties by the next fact"
    assert number(OLD).moved == (None, None, None)


def test_numbers_carry_over_to_the_nearest_centres() -> None:
    found = number(OLD[[1, 2, 0]] + 0.05, OLD)
    assert found.order == (2, 0, 1)
    assert all(moved is not None and moved < 0.1 for moved in found.moved)


def test_what_is_not_carried_is_paired_together_and_not_one_after_the_other() -> None:
    """Greedy pairing gives new row 0 to old row 1, its nearest, and leaves old row 0 a far one."""
    old, new = np.array([[0.0], [1.0]]), np.array([[1.6], [2.5]])
    assert number(new, old).order == (0, 1)


def test_a_segment_that_comes_from_far_away_takes_no_number_from_another() -> None:
    """The smallest sum of squares over all would move number 3 to make the far one's way shorter."""
    far = np.array([[-1.0, 0.0], [1.0, 0.5], [9.0, 9.0]])
    found = number(far, OLD)
    assert found.order == (0, 2, 1)
    assert [moved is not None and moved < 0.5 for moved in found.moved] == [True, False, True]


def test_of_two_in_one_place_the_nearer_keeps_the_number() -> None:
    found = number(np.array([[-0.9, 0.0], [-1.05, 0.0], [1.0, 0.5]]), OLD)
    assert found.order == (1, 0, 2)


def test_how_far_is_told_as_a_share_of_the_way_to_the_next_segment() -> None:
    found = number(np.array([[-0.75, 0.0], [0.0, 0.0], [1.0, 0.5]]), OLD)
    assert found.moved == (0.25, 0.0, 0.0)


def test_a_far_centre_takes_the_free_number_and_a_new_meaning() -> None:
    told = entry([[-1.0, 0.0], [0.0, 0.0], [-1.0, 3.0]], OLD, first=False)
    assert [one.carried for one in told.numbers] == [True, True, False]
    assert [one.since for one in told.numbers] == ["r1", "r1", "r2"]
    assert [one.changed for one in told.numbers] == [None, None, NOW]


def test_fewer_and_more_segments_than_before() -> None:
    fewer = number(OLD[[2, 0]], OLD)
    assert fewer.order == (1, 0)
    assert fewer.moved[0] == 0.0
    assert fewer.moved[1] is not None
    assert fewer.moved[1] > 1, "number 3 is gone, so its centre cannot keep it and gives 2 another meaning"
    more = number(np.vstack([[[5.0, 5.0]], OLD]), OLD)
    assert more.order == (1, 2, 3, 0)
    assert more.moved == (0.0, 0.0, 0.0, None)


def test_two_former_centres_in_one_place_carry_nothing() -> None:
    assert number(np.zeros((2, 2)), np.zeros((2, 2))).moved == (None, None)


def test_a_meaning_and_its_date_go_on_from_card_to_card() -> None:
    second = entry([[-1.0, 0.0], [0.0, 0.0], [-1.0, 3.0]], OLD, first=False)
    moved = np.array([[-1.0, 0.0], [0.0, 0.0], [-1.0, 3.0]])
    third = card_entry(number(moved + 0.01, moved), "r3", Former(run="r2", model="b" * 64), second,
                       NOW + timedelta(days=9), first=False)  # fmt: skip
    assert [one.since for one in third.numbers] == ["r1", "r1", "r2"]
    assert [one.changed for one in third.numbers] == [None, None, NOW]


def test_a_first_model_changes_no_meaning_and_one_that_cannot_be_compared_changes_all() -> None:
    assert {one.changed for one in entry(OLD).numbers} == {None}
    assert {one.changed for one in entry(OLD, first=False).numbers} == {NOW}


def test_what_is_said_of_a_number() -> None:
    assert said(entry(OLD), 1) == "This run gave it its number."
    second = entry([[-0.75, 0.0], [0.0, 0.0], [-1.0, 3.0]], OLD, first=False)
    assert said(second, 1) == "As in run r1, moved 25% of the way to the nearest other."
    wait = "Rules that name it wait until their pack is approved again."
    assert said(second, 3) == f"New meaning in this run: not segment 3 of run r1. {wait}"
    assert said(entry(OLD, first=False), 2) == f"New meaning in this run. {wait}"
    third = card_entry(number(OLD, OLD), "r4", Former(run="r3", model="b" * 64), second, NOW, first=False)
    assert said(third, 1) == "As in run r3, moved 0% of the way to the nearest other; the same since run r1."


class _Plan:
    """As much of a plan as is read."""

    def __init__(self, clusters: int) -> None:
        from cameo_protocol.plan import Encoded, SegmentTask

        encoded = Encoded(dim=2 * clusters, clip=1, bound=1, scale=1, sigma=1)
        self.tasks = (SegmentTask(clusters=clusters, temperature=1, rate=0.1, share=1, encoded=encoded),)


def card(**changes: Any) -> dict[str, Any]:
    told = entry(OLD + 0.01, OLD, first=False).model_dump(mode="json")
    return {"segments": {"segment": {**told, **changes}}}


def test_the_card_is_read_back_and_an_old_one_says_nothing() -> None:
    plan: Any = _Plan(3)
    assert read_numberings(card(), plan)["segment"].former == FORMER
    assert read_numberings({}, plan) == {}


def broken() -> dict[str, Any]:
    numbers = card()["segments"]["segment"]["numbers"]

    def first(**changes: Any) -> dict[str, Any]:
        return card(numbers=[{**numbers[0], **changes}, *numbers[1:]])

    return {
        "no object": {"segments": []},
        "text": {"segments": "x"},
        "none for the task": {"segments": {}},
        "another task": {"segments": {**card()["segments"], "more": card()["segments"]["segment"]}},
        "too few": card(numbers=numbers[:2]),
        "out of order": card(numbers=numbers[::-1]),
        "unknown key": card(more=1),
        "run with a path": card(former={"run": "../r1", "model": "a" * 64}),
        "no hash": card(former={"run": "r1", "model": "a"}),
        "carried though far": first(moved=0.9),
        "not carried though near": first(carried=False),
        "moved backwards": first(moved=-1),
        "moved not a number": first(moved=float("nan")),
        "a time without zone": first(changed="2026-01-01T00:00:00"),
        "since nowhere": first(since=""),
    }


@pytest.mark.parametrize("case", broken())
def test_a_card_that_numbers_otherwise_is_refused(case: str) -> None:
    plan: Any = _Plan(3)
    with pytest.raises(Reject, match="card-segments"):
        read_numberings(broken()[case], plan)


def test_centres_that_do_not_bear_the_card_out_are_refused() -> None:
    told = entry(OLD[[1, 2, 0]] + 0.01, OLD)
    check_numbering(told, OLD + 0.01, OLD)
    first = entry(OLD)
    check_numbering(first, OLD, None)
    cases = {
        "swapped": (told, (OLD + 0.01)[[1, 0, 2]], OLD),
        "farther than told": (told, OLD + 0.1, OLD),
        "another former": (told, OLD + 0.01, OLD * 2),
        "first, but not in order": (first, OLD[[1, 0, 2]], None),
        "first, but moved": (told, OLD + 0.01, None),
        "none moved, but there was one": (first, OLD, OLD),
    }
    for case, arguments in cases.items():
        with pytest.raises(Reject, match="card-segments"):
            check_numbering(*arguments)
            pytest.fail(case)
