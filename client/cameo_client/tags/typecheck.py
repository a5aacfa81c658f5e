"""Does a predicate make sense for the facts? Types, enum values, units by plausible range."""

from __future__ import annotations

import difflib

from cameo_client.tags.finding import Fault
from cameo_client.tags.predicate import Compare, Leaf, Missing, OneOf, Surely, Tree, Value, leaves
from cameo_client.tags.schema import Column, Schema


def check(tree: Tree, schema: Schema) -> tuple[Fault, ...]:
    """Every fault of a tree's comparisons against the schema; empty when it is well typed.

    Codes: column-unknown, type-mismatch, enum-value-unknown, implausible.
    """
    found: list[Fault] = []
    for leaf in leaves(tree):
        try:
            _leaf(leaf, schema.column(leaf.column))
        except Fault as fault:
            found.append(fault)
    return tuple(found)


def check_value(value: Value, column: Column) -> None:
    """One constant against its column, as in a comparison or a rule's test; `Fault` when it does not fit."""
    if column.kind == "bool":
        if not isinstance(value, bool):
            raise Fault("type-mismatch", f"{column.name} is true or false", f"write {column.name} or NOT {column.name}")
    elif column.kind == "enum":
        _enum(value, column)
    elif isinstance(value, bool | str):
        raise Fault("type-mismatch", f"{column.name} is a number", "compare it with a number, without quotes")
    else:
        _range(value, column)


def _leaf(leaf: Leaf, column: Column) -> None:
    if isinstance(leaf, Missing):
        return
    if isinstance(leaf, Surely):
        if column.kind != "bool":
            raise Fault("type-mismatch", f"{column.name} is no yes/no fact", "use IS TRUE with a yes/no fact only")
        return
    if isinstance(leaf, Compare) and leaf.value is True and column.kind != "bool":
        raise Fault("type-mismatch", f"{column.name} is no yes/no fact", "compare it with a value")
    if isinstance(leaf, Compare) and column.kind != "number" and leaf.op not in ("=", "<>"):
        raise Fault("type-mismatch", f"{column.name} has no order", "use =, <> or IN")
    for value in leaf.values if isinstance(leaf, OneOf) else (leaf.value,):
        check_value(value, column)


def _enum(value: Value, column: Column) -> None:
    if isinstance(value, str) and value in column.values:
        return
    near = difflib.get_close_matches(str(value).lower(), column.values, n=1, cutoff=0.5)
    listed = ", ".join(repr(item) for item in column.values[:12])
    do = f"did you mean {near[0]!r}" if near else f"use one of {listed}"
    raise Fault("enum-value-unknown", f"{column.name} is never {value!r}", do)


def _range(value: float, column: Column) -> None:
    if column.low <= value <= column.high:
        return
    unit = f" {column.unit}" if column.unit else ""
    raise Fault(
        "implausible",
        f"{column.name} {value:g} lies outside the plausible {column.low:g} to {column.high:g}{unit}",
        f"check the number and its unit{f' ({column.unit})' if column.unit else ''}",
    )
