"""Tree to Polars expression, with SQL's three answers: a null Boolean is "unknown".

Polars comparisons, `&`, `|` and `~` follow Kleene logic on nulls, as SQL does (DuckDB is the oracle in the tests).
"""

from __future__ import annotations

from functools import reduce
from operator import and_, or_

import polars as pl

from cameo_client.tags.predicate import And, Compare, Leaf, Missing, Not, OneOf, Or, Surely, Tree, Value
from cameo_protocol.errors import Bug


def compile_tree(tree: Tree) -> pl.Expr:
    """The Boolean expression of a type-checked tree over a prepared frame (see `engine.prepare`)."""
    if isinstance(tree, Not):
        return ~compile_tree(tree.part)
    if isinstance(tree, And):
        return reduce(and_, [compile_tree(part) for part in tree.parts])
    if isinstance(tree, Or):
        return reduce(or_, [compile_tree(part) for part in tree.parts])
    return compile_leaf(tree)


def compile_leaf(leaf: Leaf) -> pl.Expr:
    """The Boolean expression of one comparison."""
    column = pl.col(leaf.column)
    if isinstance(leaf, Missing):
        return column.is_null()
    if isinstance(leaf, Surely):
        return (column == leaf.value).fill_null(False)
    if isinstance(leaf, OneOf):
        return reduce(or_, [column == _literal(value) for value in leaf.values])
    return _compare(column, leaf)


def _literal(value: Value) -> pl.Expr:
    """A constant; a whole number as one, so that a column of whole numbers is compared as it is, without a copy."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return pl.lit(int(value) if whole else value)


def _compare(column: pl.Expr, leaf: Compare) -> pl.Expr:
    value = _literal(leaf.value)
    match leaf.op:
        case "=":
            return column == value
        case "<>":
            return column != value
        case "<":
            return column < value
        case "<=":
            return column <= value
        case ">":
            return column > value
        case ">=":
            return column >= value
    raise Bug("tag-operator", what="an operator the parser cannot make")
