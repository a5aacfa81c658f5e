"""The predicate language: SQL text in, a small typed tree out.

The text is parsed by sqlglot and only an allow-list of its nodes is taken over, so no function, subquery, cast or
cross-column arithmetic can pass. The raw text goes no further than this module: parsing SQL inside the data engine
can open files and the network.  Three answers as in SQL: true, false, unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from cameo_client.tags.finding import Fault

MAX_CHARS = 2000
MAX_COMPARISONS = 40
MAX_NESTING = 16
Op = Literal["=", "<>", "<", "<=", ">", ">="]
Value = float | bool | str


@dataclass(frozen=True)
class Compare:
    """column op value; unknown when the column is null."""

    column: str
    op: Op
    value: Value


@dataclass(frozen=True)
class OneOf:
    """column IN (values); unknown when the column is null."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Missing:
    """column IS NULL; never unknown."""

    column: str


@dataclass(frozen=True)
class Surely:
    """column IS TRUE (or IS FALSE), for a bool column; never unknown."""

    column: str
    value: bool


@dataclass(frozen=True)
class Not:
    """Negation: unknown stays unknown."""

    part: Tree


@dataclass(frozen=True)
class And:
    """False wins over unknown, unknown over true."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Or:
    """True wins over unknown, unknown over false."""

    parts: tuple[Tree, ...]


Leaf = Compare | OneOf | Missing | Surely
Tree = Leaf | Not | And | Or

# Everything the language can be made of. What no token matches (comments, quotes around names, casts,
# parameters, semicolons) is refused before any parser sees it.
_TOKEN = re.compile(
    r"\s+|(?P<word>[A-Za-z_][A-Za-z0-9_]{0,59}\b)|(?P<number>\d{1,18}(\.\d{1,17})?([eE][-+]?\d{1,3})?(?![\w.]))"
    r"|'(?:[^'\\\x00-\x1f]|'')*'|<>|!=|<=|>=|[<>=(),]|(?P<minus>-(?!-))"
)
_COMPARISONS: dict[type[exp.Expr], Op] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
_FLIPPED: dict[Op, Op] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ONLY = "use comparisons of one column with a constant, BETWEEN, IN (…), IS NULL, AND, OR and NOT"


@lru_cache(maxsize=1024)
def parse(text: str) -> Tree:
    """Parse one predicate. Anything outside the language is a `Fault`, in bounded time and depth.

    Limits: 2,000 characters, 40 comparisons (each value of an IN list counts), 16 open brackets or NOTs at a time.
    """
    if len(text) > MAX_CHARS:
        raise Fault("predicate-too-long", f"more than {MAX_CHARS} characters", "split it into several rules")
    _check_tokens(text)
    try:
        parsed = sqlglot.parse_one(text, read="duckdb", into=exp.Condition)
    except (SqlglotError, RecursionError, ValueError):
        raise Fault("predicate-syntax", "not a predicate", _ONLY) from None
    tree = _tree(parsed)
    if sum(weight(leaf) for leaf in leaves(tree)) > MAX_COMPARISONS:
        raise Fault("predicate-too-large", f"more than {MAX_COMPARISONS} comparisons", "split it into several rules")
    return tree


def leaves(tree: Tree) -> Iterator[Leaf]:
    """The comparisons of a tree from left to right."""
    if isinstance(tree, Not):
        yield from leaves(tree.part)
    elif isinstance(tree, And | Or):
        for part in tree.parts:
            yield from leaves(part)
    else:
        yield tree


def weight(leaf: Leaf) -> int:
    """How many comparisons a leaf counts for."""
    return len(leaf.values) if isinstance(leaf, OneOf) else 1


def columns(tree: Tree) -> tuple[str, ...]:
    """The columns a tree reads, each once, in order."""
    return tuple(dict.fromkeys(leaf.column for leaf in leaves(tree)))


def to_sql(tree: Tree) -> str:
    """The canonical SQL text of a tree, every group bracketed; parsing it gives the tree back."""
    if isinstance(tree, Compare):
        return f"{tree.column} {tree.op} {_literal(tree.value)}"
    if isinstance(tree, OneOf):
        return f"{tree.column} IN ({', '.join(_literal(value) for value in tree.values)})"
    if isinstance(tree, Missing):
        return f"{tree.column} IS NULL"
    if isinstance(tree, Surely):
        return f"{tree.column} IS {'TRUE' if tree.value else 'FALSE'}"
    if isinstance(tree, Not):
        return f"NOT ({to_sql(tree.part)})"
    word = " AND " if isinstance(tree, And) else " OR "
    return word.join(f"({to_sql(part)})" for part in tree.parts)


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _check_tokens(text: str) -> None:
    """Refuse unknown characters and deep nesting, so that no parser is ever driven into deep recursion."""
    position = depth = negations = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Fault("predicate-token", f"{text[position : position + 12]!r} is not allowed here", _ONLY)
        piece, position = match.group(), match.end()
        depth += (piece == "(") - (piece == ")")
        if (match["word"] and piece.upper() == "NOT") or match["minus"]:
            negations += 1
        elif match["number"] or piece in (")", ","):
            negations = 0
        if max(depth, negations) > MAX_NESTING:
            raise Fault("predicate-too-deep", f"more than {MAX_NESTING} levels", "split it into several rules")


def _tree(node: exp.Expr) -> Tree:
    kind = type(node)
    if kind in _COMPARISONS:
        return _compare(node, _COMPARISONS[kind])
    if kind in (exp.Boolean, exp.Null, exp.Literal):
        raise Fault("predicate-constant", "a constant where a comparison belongs", "compare a column with it")
    convert = _CONVERT.get(kind)
    if convert is None:
        raise Fault("predicate-not-allowed", f"{kind.__name__.lower()} is not part of the language", _ONLY)
    return convert(node)


def _flat(node: exp.Expr) -> Tree:
    """One And/Or with all its operands; the chain is walked, not recursed into, however long it is."""
    kind = type(node)
    parts: list[Tree] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if type(item) is kind:
            stack += [_child(item, "expression"), _child(item, "this")]
        else:
            parts.append(_tree(item))
    return And(tuple(parts)) if kind is exp.And else Or(tuple(parts))


def _compare(node: exp.Expr, op: Op) -> Tree:
    left, right = _child(node, "this"), _child(node, "expression")
    if type(left) is not exp.Column and type(right) is exp.Column:
        left, right, op = right, left, _FLIPPED[op]
    if type(right) is exp.Column:
        raise Fault(
            "predicate-two-columns",
            "a comparison of two columns",
            "add a derived fact to the catalogue and compare that with a constant",
        )
    if type(left) is not exp.Column:
        raise Fault("predicate-constant", "a comparison without a column", "compare a column with a constant")
    return Compare(_column(left), op, _value(right))


def _between(node: exp.Expr) -> Tree:
    if set(_args(node)) - {"this", "low", "high"}:
        raise Fault("predicate-not-allowed", "BETWEEN SYMMETRIC is not part of the language", _ONLY)
    column = _column(_child(node, "this"))
    low, high = _value(_child(node, "low")), _value(_child(node, "high"))
    return And((Compare(column, ">=", low), Compare(column, "<=", high)))


def _one_of(node: exp.Expr) -> Tree:
    if set(_args(node)) != {"this", "expressions"}:
        raise Fault("predicate-not-allowed", "IN takes a list of constants only", _ONLY)
    values = tuple(_value(item) for item in node.expressions)
    return OneOf(_column(_child(node, "this")), values)


def _is(node: exp.Expr) -> Tree:
    column, right = _column(_child(node, "this")), _child(node, "expression")
    if type(right) is exp.Null:
        return Missing(column)
    if type(right) is exp.Boolean:
        return Surely(column, bool(right.this))
    raise Fault("predicate-not-allowed", "IS takes NULL, TRUE or FALSE", _ONLY)


def _value(node: exp.Expr) -> Value:
    sign = 1.0
    if type(node) is exp.Neg:
        sign, node = -1.0, _child(node, "this")
        if type(node) is not exp.Literal or node.is_string:
            raise Fault("predicate-not-allowed", "a minus sign before something that is no number", _ONLY)
    if type(node) is exp.Literal:
        if node.is_string:
            return str(node.this)
        number = sign * float(node.this)
        if not math.isfinite(number):
            raise Fault("predicate-number", "a number that is too large", "write a plausible value")
        return number
    if type(node) is exp.Boolean:
        return bool(node.this)
    if type(node) is exp.Null:
        raise Fault("predicate-null", "a comparison with NULL is never true", "write IS NULL or IS NOT NULL")
    raise Fault("predicate-not-allowed", f"{type(node).__name__.lower()} is not a constant", _ONLY)


def _column(node: exp.Expr) -> str:
    name = node.args.get("this") if type(node) is exp.Column else None
    if type(name) is not exp.Identifier or set(_args(node)) != {"this"} or name.args.get("quoted"):
        raise Fault("predicate-not-allowed", "something other than a column name", _ONLY)
    return str(name.this)


def _child(node: exp.Expr, name: str) -> exp.Expr:
    child = node.args.get(name)
    if not isinstance(child, exp.Expr):
        raise Fault("predicate-syntax", "not a predicate", _ONLY)
    return child


def _args(node: exp.Expr) -> dict[str, object]:
    return {key: value for key, value in node.args.items() if value not in (None, [], False)}


_CONVERT: dict[type[exp.Expr], Callable[[exp.Expr], Tree]] = {
    exp.Paren: lambda node: _tree(_child(node, "this")),
    exp.Not: lambda node: Not(_tree(_child(node, "this"))),
    exp.And: _flat,
    exp.Or: _flat,
    exp.Between: _between,
    exp.In: _one_of,
    exp.Is: _is,
    exp.Column: lambda node: Compare(_column(node), "=", True),
}
