"""Checks between the rules of one pack, and between a pack and the one in force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.finding import Fault, Level
from cameo_client.tags.pack import Pack, Rule
from cameo_client.tags.regions import Region, implies, overlap, true_boxes
from cameo_client.tags.schema import Schema

Remark = tuple[str, Level, Fault]
Boxes = list[dict[str, Region]]
# 500 rules of two alternatives each are half of this; a hostile pack would need a thousand times as many.
MAX_BOX_PAIRS = 1_000_000


def check(pack: Pack, bound: Sequence[BoundRule], schema: Schema, previous: Pack | None) -> Iterator[Remark]:
    """Remarks as (rule id, level, fault): doubles, ties, unreachable, subsumed and overlapping rules, versions."""
    yield from _doubles(pack)
    yield from _pairs(bound, schema)
    if previous is not None:
        yield from _versions(pack, previous)


def _doubles(pack: Pack) -> Iterator[Remark]:
    ids: set[str] = set()
    names: set[str] = set()
    for rule in pack.rules:
        if rule.id in ids:
            yield rule.id, "error", Fault("rule-twice", f"two rules are called {rule.id}", "rename one of them")
        if rule.tag.name in names:
            yield rule.id, "error", Fault("tag-twice", f"two rules give the tag {rule.tag.name}", "rename one tag")
        ids.add(rule.id)
        names.add(rule.tag.name)


def _pairs(bound: Sequence[BoundRule], schema: Schema) -> Iterator[Remark]:
    boxes: list[tuple[BoundRule, Boxes]] = []
    for item in bound:
        found = true_boxes(item.enter, schema)
        if found:
            boxes.append((item, found))
    left = MAX_BOX_PAIRS
    for (one, ones), (two, twos) in combinations(boxes, 2):
        left -= len(ones) * len(twos)
        if left < 0:
            yield one.rule.id, "error", Fault(
                "pack-too-entangled", "too many rules with too many alternatives to hold them against each other",
                "split the pack, or write rules with fewer ORs",
            )  # fmt: skip
            return
        same_group = one.rule.exclusive_group is not None and one.rule.exclusive_group == two.rule.exclusive_group
        if same_group:
            yield from _group(one, ones, two, twos)
        elif overlap(ones, twos) and (implies(ones, twos) or implies(twos, ones)):
            inner, outer = (one, two) if implies(ones, twos) else (two, one)
            yield inner.rule.id, "note", Fault(
                "rule-subsumed", f"whoever gets this tag also gets {outer.rule.tag.name}",
                "give both one exclusive_group if only one should be kept",
            )  # fmt: skip


def _group(one: BoundRule, ones: Boxes, two: BoundRule, twos: Boxes) -> Iterator[Remark]:
    group = one.rule.exclusive_group
    if not overlap(ones, twos):
        return
    if one.rule.priority == two.rule.priority:
        yield (
            two.rule.id,
            "error",
            Fault(
                "priority-tie",
                f"{one.rule.id} and {two.rule.id} tie in the group {group}",
                "give them different priorities",
            ),
        )
        return
    (high, highs), (low, lows) = sorted(((one, ones), (two, twos)), key=lambda pair: -pair[0].rule.priority)
    if implies(lows, highs):
        # With other consents or another model the higher rule may be stopped where the lower one is not.
        alike = high.rule.scopes() == low.rule.scopes() and high.models == low.models
        yield (
            low.rule.id,
            "error" if alike else "warning",
            Fault(
                "rule-unreachable",
                f"{high.rule.id} wins over it in the group {group} wherever it passes its guards",
                "raise its priority or remove it",
            ),
        )
    else:
        yield (
            low.rule.id,
            "note",
            Fault("rule-overlap", f"gives way to {high.rule.id} where both are true", "nothing, if that is meant"),
        )


def _versions(pack: Pack, previous: Pack) -> Iterator[Remark]:
    changed = False
    for rule in pack.rules:
        old = previous.rule(rule.id)
        if old is None or old == rule:
            changed = changed or old is None
            continue
        changed = True
        yield from _rule_version(rule, old)
    first = pack.rules[0].id
    if (changed or len(pack.rules) != len(previous.rules)) and not _newer(pack, previous):
        yield (
            first,
            "error",
            Fault(
                "pack-version",
                f"the pack changed but its version {pack.pack.version} was not raised",
                "raise pack.version",
            ),
        )


def _rule_version(rule: Rule, old: Rule) -> Iterator[Remark]:
    if rule.version < old.version:
        yield (
            rule.id,
            "error",
            Fault("rule-version", f"version {rule.version} after {old.version}", "raise the version"),
        )
    elif rule.logic_sha256() != old.logic_sha256() and rule.version == old.version:
        yield (
            rule.id,
            "error",
            Fault(
                "rule-version",
                f"the logic changed but the version is still {old.version}",
                f"set version: {old.version + 1}",
            ),
        )


def _newer(pack: Pack, previous: Pack) -> bool:
    def numbers(item: Pack) -> tuple[int, ...]:
        return tuple(int(part) for part in item.pack.version.split("."))

    return numbers(pack) > numbers(previous)
