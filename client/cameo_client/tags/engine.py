"""Derive: facts in, one wide three-valued column a rule out. No side effects, no guards, no text of a rule.

A null in the answer means "unknown", as in SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import add

import polars as pl

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.compile import compile_leaf
from cameo_client.tags.predicate import And, Compare, Leaf, Not, Or, Tree, to_sql
from cameo_client.tags.schema import Column, Schema
from cameo_protocol.errors import ExitCode, OperatorError

PSEUDONYM = "pseudonym"
_WHOLE = (pl.Int64, pl.Int32, pl.Int16, pl.Int8)


def prepare(facts: pl.DataFrame, schema: Schema, columns: Collection[str]) -> pl.DataFrame:
    """The columns that rules read, in the types that predicates expect, plus `pseudonym`.

    Numbers are Int64 or Float64, NaN is null (missing is unknown, never a value). Enums are categories, which compare
    as text does and ten times as fast. A model's column that the frame lacks is null everywhere. A missing or wrongly
    typed fact, a null or double pseudonym: `OperatorError`.
    """
    if PSEUDONYM not in facts.columns or facts.schema[PSEUDONYM] != pl.String:
        raise _bad("facts-without-pseudonym", "the facts have no text column `pseudonym`")
    if facts[PSEUDONYM].null_count() or not _all_different(facts[PSEUDONYM]):
        raise _bad("facts-pseudonym-double", "a pseudonym is missing or stands in two rows")
    types = facts.schema
    wanted = [_select(facts, types, schema.column(name)) for name in dict.fromkeys(columns)]
    return facts.select(pl.col(PSEUDONYM), *wanted)


def derive(frame: pl.DataFrame, rules: Sequence[BoundRule], held: Mapping[str, Collection[str]]) -> pl.DataFrame:
    """One Boolean column a rule (by its key), null = unknown, in the row order of a prepared frame.

    held: rule key -> pseudonyms that have the tag now; they stay until the exit threshold.
    """
    return frame.select([_answer(rule, held.get(rule.key, ())).alias(rule.key) for rule in rules])


def literals(tree: Tree, wanted: bool = True) -> tuple[tuple[Leaf, bool], ...]:
    """The comparisons of a tree with their sign after pushing every NOT down; each once, in order."""
    if isinstance(tree, Not):
        return literals(tree.part, not wanted)
    if isinstance(tree, And | Or):
        found = [item for part in tree.parts for item in literals(part, wanted)]
        return tuple(dict.fromkeys(found))
    return ((tree, wanted),)


def literal_expr(leaf: Leaf, wanted: bool) -> pl.Expr:
    """The answer of one signed comparison; null = unknown."""
    return compile_leaf(leaf) if wanted else ~compile_leaf(leaf)


def literal_text(leaf: Leaf, wanted: bool) -> str:
    """A signed comparison in a reader's words: `dx_t2d`, `NOT dx_t2d`, `sbp >= 140`."""
    text = leaf.column if isinstance(leaf, Compare) and leaf.op == "=" and leaf.value is True else to_sql(leaf)
    return text if wanted else f"NOT {text}"


def _answer(rule: BoundRule, held: Collection[str]) -> pl.Expr:
    if rule.rule.hysteresis is None or not held:
        return rule.entering
    has = pl.col(PSEUDONYM).is_in(pl.Series(sorted(held), dtype=pl.String).implode())
    return rule.entering | (has & rule.staying)


def _all_different(names: pl.Series) -> bool:
    """Whether no name stands twice. Facts come sorted by pseudonym, which is told thirty times as fast as counting."""
    ascending = bool((names.shift() < names).all())  # the first has no neighbour: null, which `all` passes over
    return ascending or names.n_unique() == len(names)


def _select(facts: pl.DataFrame, types: Mapping[str, pl.DataType], column: Column) -> pl.Expr:
    number = pl.Int64() if types.get(column.name) in _WHOLE else pl.Float64()
    wanted: pl.DataType = {"number": number, "bool": pl.Boolean(), "enum": pl.Categorical()}[column.kind]
    if column.name not in types:
        if column.score:
            return _score(types, column)
        if not column.model:
            raise _bad("facts-column-missing", f"the facts lack the column {column.name}")
        return pl.lit(None, dtype=wanted).alias(column.name)
    found = types[column.name]
    fits = {
        "number": found.is_numeric(),
        "bool": found == pl.Boolean,
        "enum": found == pl.String or isinstance(found, pl.Enum | pl.Categorical),
    }[column.kind] or found == pl.Null
    if not fits:
        raise _bad("facts-column-type", f"the column {column.name} is no {column.kind}")
    expr = pl.col(column.name).cast(wanted)
    # Only a column that holds a NaN is copied; the others are shared with the facts.
    return expr.fill_nan(None) if found.is_float() and facts[column.name].is_nan().any() else expr


def _score(types: Mapping[str, pl.DataType], column: Column) -> pl.Expr:
    """The points of a score, a whole number; null where one of its facts is."""
    points: list[pl.Expr] = []
    for part in column.score:
        if part.fact not in types or not types[part.fact].is_numeric():
            raise _bad("facts-column-missing", f"the facts lack the column {part.fact}")
        fact = pl.col(part.fact).cast(pl.Float64).fill_nan(None)
        points += [(fact >= cut).cast(pl.Int64) for cut in part.cuts]
    return reduce(add, points).alias(column.name)


def _bad(code: str, what: str) -> OperatorError:
    return OperatorError(code, what=what, do="run: cameo-node data check", exit=ExitCode.DATA)
