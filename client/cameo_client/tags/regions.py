"""Interval reasoning over predicates: never true, always true, implied, overlapping.

A predicate is rewritten as a union of boxes, one region a column. That is exact for this language (every comparison
has one column and constants); more than 1,024 boxes are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cameo_client.tags.predicate import And, Compare, Leaf, Missing, Not, OneOf, Op, Or, Surely, Tree, Value
from cameo_client.tags.schema import Column, Schema

MAX_BOXES = 1024
_NEGATED: dict[Op, Op] = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high; an open end leaves the end itself out."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def empty(self) -> bool:
        """Holds no number."""
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def meet(self, other: Interval) -> Interval:
        """The numbers in both."""
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, high_closed = min((self.high, not self.high_open), (other.high, not other.high_open))
        return Interval(low, high, low_open, not high_closed)


# What a column may be: a range of numbers, a set of words or truth values, or nothing at all (null).
Null = type(None)
Region = Interval | frozenset[Value] | None
Box = Mapping[str, Region]


def true_boxes(tree: Tree, schema: Schema) -> list[dict[str, Region]] | None:
    """The boxes in which a type-checked tree is true; [] = never. None: too many boxes to judge."""
    return _boxes(tree, schema, wanted=True)


def false_boxes(tree: Tree, schema: Schema) -> list[dict[str, Region]] | None:
    """The boxes in which the tree is false (unknown counts as neither); None: too many to judge."""
    return _boxes(tree, schema, wanted=False)


def implies(first: list[dict[str, Region]], second: list[dict[str, Region]]) -> bool:
    """Whether each box of `first` lies in one box of `second`: then first true means second true."""
    return all(any(_inside(box, other) for other in second) for box in first)


def overlap(first: list[dict[str, Region]], second: list[dict[str, Region]]) -> bool:
    """Whether one patient could make both true."""
    return any(_meet(box, other) is not None for box in first for other in second)


def _boxes(tree: Tree, schema: Schema, wanted: bool) -> list[dict[str, Region]] | None:
    if isinstance(tree, Not):
        return _boxes(tree.part, schema, not wanted)
    if isinstance(tree, And | Or):
        parts = [_boxes(part, schema, wanted) for part in tree.parts]
        return _all(parts) if isinstance(tree, And) == wanted else _any(parts)
    return [{tree.column: region} for region in _leaf(tree, schema.column(tree.column), wanted)]


def _any(parts: list[list[dict[str, Region]] | None]) -> list[dict[str, Region]] | None:
    union: list[dict[str, Region]] = []
    for part in parts:
        if part is None or len(union) + len(part) > MAX_BOXES:
            return None
        union += part
    return union


def _all(parts: list[list[dict[str, Region]] | None]) -> list[dict[str, Region]] | None:
    product: list[dict[str, Region]] = [{}]
    for part in parts:
        if part is None or len(product) * len(part) > MAX_BOXES:
            return None
        product = [both for one in product for other in part if (both := _meet(one, other)) is not None]
    return product


def _meet(one: Box, other: Box) -> dict[str, Region] | None:
    """The box of what lies in both; None when that is empty."""
    both = dict(one)
    for name, region in other.items():
        if name not in both:
            both[name] = region
            continue
        mine = both[name]
        if isinstance(mine, Interval) and isinstance(region, Interval):
            shared = mine.meet(region)
            if shared.empty():
                return None
            both[name] = shared
        elif isinstance(mine, frozenset) and isinstance(region, frozenset):
            if not mine & region:
                return None
            both[name] = mine & region
        elif not (mine is None and region is None):
            return None
    return both


def _inside(box: Box, other: Box) -> bool:
    for name, region in other.items():
        if name not in box:
            return False
        mine = box[name]
        if isinstance(mine, Interval) and isinstance(region, Interval):
            if mine.meet(region) != mine:
                return False
        elif isinstance(mine, frozenset) and isinstance(region, frozenset):
            if not mine <= region:
                return False
        elif not (mine is None and region is None):
            return False
    return True


def _leaf(leaf: Leaf, column: Column, wanted: bool) -> list[Region]:
    if isinstance(leaf, Missing):
        return [None] if wanted else _whole(column)
    if isinstance(leaf, Surely):
        return [frozenset({leaf.value})] if wanted else [frozenset({not leaf.value}), None]
    if column.kind == "number":
        return list(_numbers(leaf, column, wanted))
    named = frozenset(leaf.values) if isinstance(leaf, OneOf) else frozenset({leaf.value})
    if isinstance(leaf, Compare) and leaf.op == "<>":
        wanted = not wanted
    words: frozenset[Value] = frozenset({True, False}) if column.kind == "bool" else frozenset(column.values)
    chosen = (words & named) if wanted else (words - named)
    return [chosen] if chosen else []


def _numbers(leaf: Compare | OneOf, column: Column, wanted: bool) -> list[Interval]:
    if isinstance(leaf, Compare):
        op = leaf.op if wanted else _NEGATED[leaf.op]
        return _compare(op, float(leaf.value), column)
    points = sorted({float(value) for value in leaf.values})
    if wanted:
        return [interval for point in points for interval in _compare("=", point, column)]
    gaps = [Interval(column.low, column.high)]
    for point in points:
        around = _compare("<>", point, column)
        gaps = [both for gap in gaps for part in around if not (both := gap.meet(part)).empty()]
    return gaps


def _compare(op: Op, value: float, column: Column) -> list[Interval]:
    made = {
        "=": [Interval(value, value)],
        "<>": [Interval(-math.inf, value, False, True), Interval(value, math.inf, True, False)],
        "<": [Interval(-math.inf, value, False, True)],
        "<=": [Interval(-math.inf, value)],
        ">": [Interval(value, math.inf, True, False)],
        ">=": [Interval(value, math.inf)],
    }[op]
    inside = [Interval(column.low, column.high).meet(interval) for interval in made]
    if column.whole:
        inside = [_whole_numbers(interval) for interval in inside]
    return [interval for interval in inside if not interval.empty()]


def _whole_numbers(interval: Interval) -> Interval:
    """The same whole numbers with closed ends."""
    low, high = interval.low, interval.high
    if math.isfinite(low):
        low = math.floor(low) + 1 if interval.low_open else math.ceil(low)
    if math.isfinite(high):
        high = math.ceil(high) - 1 if interval.high_open else math.floor(high)
    return Interval(low, high)


def _whole(column: Column) -> list[Region]:
    if column.kind == "number":
        return [Interval(column.low, column.high)]
    return [frozenset({True, False})] if column.kind == "bool" else [frozenset(column.values)]
