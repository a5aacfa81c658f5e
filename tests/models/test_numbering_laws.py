"""Laws of segment numbers, on any centres."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cameo_models.numbering import is_carried, number

VALUES = st.floats(-2, 2, allow_nan=False, width=32)


@st.composite
def centres(draw: Any, most: int = 5, width: int = 3, least: int = 2) -> Any:
    """K different centres."""
    rows = draw(st.integers(least, most))
    found = draw(arrays(np.float64, (rows, width), elements=VALUES))
    assume(len(np.unique(found + 0.0, axis=0)) == rows)
    return found + 0.0


def pair() -> Any:
    return st.tuples(centres(), centres())


@given(pair(), st.randoms())
def test_the_order_in_which_training_left_the_centres_does_not_matter(both: Any, random: Any) -> None:
    new, old = both
    mixed = list(range(len(new)))
    random.shuffle(mixed)
    for former in (None, old):
        one, other = number(new, former), number(new[mixed], former)
        assert np.array_equal(new[list(one.order)], new[mixed][list(other.order)])
        assert one.moved == other.moved


@given(pair())
def test_every_centre_gets_one_number(both: Any) -> None:
    new, old = both
    for former in (None, old):
        found = number(new, former)
        assert sorted(found.order) == list(range(len(new)))
        assert len(found.moved) == len(new)


@given(pair())
def test_numbering_again_changes_nothing(both: Any) -> None:
    new, old = both
    for former in (None, old):
        ordered = new[list(number(new, former).order)]
        again = number(ordered, former)
        assert np.array_equal(ordered[list(again.order)], ordered)


@given(centres(), st.randoms())
def test_the_same_centres_keep_every_number(old: Any, random: Any) -> None:
    mixed = list(range(len(old)))
    random.shuffle(mixed)
    found = number(old[mixed], old)
    assert np.array_equal(old[mixed][list(found.order)], old)
    assert set(found.moved) == {0.0}


@given(centres(), arrays(np.float64, (5, 3), elements=st.floats(-1, 1)), st.randoms())
def test_whoever_moves_less_than_half_the_smallest_gap_keeps_the_number(old: Any, shift: Any, random: Any) -> None:
    distances = [np.linalg.norm(one - other) for i, one in enumerate(old) for other in old[i + 1 :]]
    step = shift[: len(old)] / np.maximum(1.0, np.linalg.norm(shift[: len(old)], axis=1, keepdims=True))
    new = old + step * 0.49 * min(distances)
    mixed = list(range(len(old)))
    random.shuffle(mixed)
    found = number(new[mixed], old)
    assert np.array_equal(new[mixed][list(found.order)], new)
    assert all(is_carried(moved) for moved in found.moved)


@given(centres(), centres(), st.integers(0, 9), arrays(np.float64, (3,), elements=VALUES))
def test_what_becomes_of_one_segment_takes_no_number_from_those_that_are_carried(
    new: Any, old: Any, place: int, elsewhere: Any
) -> None:
    """Unless it comes into the place of another."""
    before = number(new, old)
    place %= len(new)
    changed = new.copy()
    changed[place] = elsewhere
    after = number(changed, old)
    for slot, (row, moved) in enumerate(zip(before.order, before.moved, strict=True)):
        if is_carried(moved) and row != place:
            nearer = np.linalg.norm(elsewhere - old[slot]) <= np.linalg.norm(new[row] - old[slot])
            assert after.order[slot] == row or nearer


@settings(max_examples=60)
@given(centres(most=4), centres(most=4))
def test_no_other_way_to_pair_what_is_not_carried_moves_less(new: Any, old: Any) -> None:
    """Against every way there is, where both have as many."""
    assume(len(new) == len(old))
    found = number(new, old)
    loose = [slot for slot, moved in enumerate(found.moved) if not is_carried(moved)]
    rows = [found.order[slot] for slot in loose]
    ways = [np.square(new[list(order)] - old[loose]).sum() for order in permutations(rows)]
    assert np.square(new[rows] - old[loose]).sum() <= min(ways) + 1e-9


@given(pair())
def test_a_carried_centre_is_nearer_to_its_former_one_than_to_any_other(both: Any) -> None:
    new, old = both
    found = number(new, old)
    for slot, (row, moved) in enumerate(zip(found.order, found.moved, strict=True)):
        if is_carried(moved):
            distances = np.linalg.norm(old - new[row], axis=1)
            assert distances.argmin() == slot
