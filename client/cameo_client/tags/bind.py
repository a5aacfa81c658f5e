"""A rule made ready: its predicates parsed, checked against the facts, with what they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from cameo_client.tags.compile import compile_tree
from cameo_client.tags.finding import Fault
from cameo_client.tags.pack import Pack, Rule
from cameo_client.tags.predicate import And, Compare, Not, OneOf, Or, Tree, columns, leaves, parse
from cameo_client.tags.schema import Schema
from cameo_client.tags.typecheck import check, check_value
from cameo_protocol.facts import Sensitivity


@dataclass(frozen=True, kw_only=True)
class BoundRule:
    """enter: when AND NOT unless. stay: the same with the exit threshold, for patients who have the tag.

    columns: every column either predicate reads. computed: the sensitivity that follows from them.
    """

    rule: Rule
    pack_id: str
    pack_version: str
    pack_sha256: str
    when: Tree
    unless: Tree | None
    enter: Tree
    stay: Tree
    columns: tuple[str, ...]
    computed: Sensitivity
    models: tuple[str, ...]

    @cached_property
    def entering(self) -> pl.Expr:
        """`enter` compiled, once for all evaluations."""
        return compile_tree(self.enter)

    @cached_property
    def staying(self) -> pl.Expr:
        """`stay` compiled."""
        return compile_tree(self.stay)

    @cached_property
    def key(self) -> str:
        """Unique name of the rule over all packs."""
        return f"{self.pack_id}/{self.rule.id}"

    @cached_property
    def segments(self) -> frozenset[int] | None:
        """The segment numbers that the predicates name; None where they compare with <, >: any number may count."""
        named: set[int] = set()
        for leaf in (*leaves(self.when), *(leaves(self.unless) if self.unless else ())):
            match leaf:
                case Compare(column="segment", op="=" | "<>", value=value):
                    named.add(int(value))
                case OneOf(column="segment", values=values):
                    named |= {int(value) for value in values}
                case Compare(column="segment"):
                    return None
        return frozenset(named)

    @property
    def sensitivity(self) -> Sensitivity:
        """The declared sensitivity, or the computed one."""
        return self.rule.sensitivity or self.computed


def bind_rule(rule: Rule, pack: Pack, schema: Schema, *, pack_sha256: str = "") -> BoundRule:
    """Parse and check one rule's predicates; the first `Fault` is raised.

    pack_sha256: the pack's hash where the caller has it: a pack of 500 rules takes a while to hash.
    """
    when = predicate(rule.when, schema)
    unless = predicate(rule.unless, schema) if rule.unless.strip() else None
    stay = _stay(rule, when, schema)
    read = tuple(dict.fromkeys((*columns(when), *(columns(unless) if unless else ()))))
    return BoundRule(
        rule=rule,
        pack_id=pack.pack.id,
        pack_version=pack.pack.version,
        pack_sha256=pack_sha256 or pack.sha256(),
        when=when,
        unless=unless,
        enter=_without(when, unless),
        stay=_without(stay, unless),
        columns=read,
        computed=schema.strictest(read),
        models=tuple(sorted({schema.column(name).model for name in read} - {""})),
    )


def predicate(text: str, schema: Schema) -> Tree:
    """Parse and type-check one text; the first `Fault` is raised."""
    tree = parse(text)
    for fault in check(tree, schema):
        raise fault
    return tree


def _without(tree: Tree, unless: Tree | None) -> Tree:
    return tree if unless is None else And((tree, Not(unless)))


def _stay(rule: Rule, when: Tree, schema: Schema) -> Tree:
    """`when` with the exit threshold in place of the enter threshold."""
    band = rule.hysteresis
    if band is None:
        return when
    enter, exit_ = float(band.enter), float(band.exit)
    check_value(exit_, schema.column(band.column))
    found = [leaf for leaf in leaves(when) if leaf.column == band.column]
    if len(found) != 1 or not isinstance(found[0], Compare) or found[0].value != enter:
        raise Fault(
            "hysteresis-mismatch",
            f"`when` must compare {band.column} once, with the enter threshold {enter:g}",
            "make hysteresis.enter the number in `when`",
        )
    laxer = exit_ < enter if found[0].op in (">", ">=") else exit_ > enter
    if found[0].op in ("=", "<>") or not laxer:
        raise Fault(
            "hysteresis-order",
            f"leaving at {exit_:g} is not easier to stay in than entering at {enter:g}",
            "use <, <=, > or >= and an exit on the far side of enter",
        )
    return _replace(when, found[0], replace(found[0], value=exit_))


def _replace(tree: Tree, old: Compare, new: Compare) -> Tree:
    if tree is old:
        return new
    if isinstance(tree, Not):
        return Not(_replace(tree.part, old, new))
    if isinstance(tree, And):
        return And(tuple(_replace(part, old, new) for part in tree.parts))
    if isinstance(tree, Or):
        return Or(tuple(_replace(part, old, new) for part in tree.parts))
    return tree
