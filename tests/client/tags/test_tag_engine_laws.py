"""Laws of derive on random patients and random rules, from the rule's text on: total, deterministic, monotone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.tags.bind import BoundRule, bind_rule
from cameo_client.tags.engine import derive, prepare
from cameo_client.tags.pack import Pack
from cameo_client.tags.predicate import And, Compare, Missing, Not, OneOf, Or, Surely, Tree, to_sql
from cameo_client.tags.schema import Column, Schema

NAN = float("nan")
OPEN: dict[str, Any] = {"sensitivity": "normal", "purposes": ("care_management",)}
SCHEMA = Schema(
    "test@1",
    {
        "x": Column(name="x", kind="number", low=-5, high=5, **OPEN),
        "n": Column(name="n", kind="number", whole=True, low=0, high=9, **OPEN),
        "b": Column(name="b", kind="bool", **OPEN),
        "e": Column(name="e", kind="enum", values=("a", "b", "it's"), **OPEN),
    },
)
TYPES = {"x": pl.Float64, "n": pl.Int64, "b": pl.Boolean, "e": pl.String}
ROW = st.tuples(
    st.sampled_from([None, NAN, -5.0, -0.5, 0.0, 0.5, 1.0, 5.0]) | st.floats(-9, 9, width=32),
    st.none() | st.integers(-1, 12),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["a", "b", "it's", "not listed", ""]),
)
ROWS = st.lists(ROW, max_size=12)
OPS = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
POINT = {"x": st.sampled_from([-5.0, -0.5, 0.0, 0.5, 1.0, 5.0]), "n": st.sampled_from([0.0, 1.0, 1.5, 4.0, 9.0])}
WORDS = st.sampled_from(["a", "b", "it's"])
LEAF: st.SearchStrategy[Tree] = st.one_of(
    *[st.builds(Compare, st.just(name), OPS, points) for name, points in POINT.items()],
    *[st.builds(OneOf, st.just(n), st.lists(p, min_size=1, max_size=3).map(tuple)) for n, p in POINT.items()],
    st.builds(Compare, st.just("b"), st.sampled_from(["=", "<>"]), st.booleans()),
    st.builds(Surely, st.just("b"), st.booleans()),
    st.builds(Compare, st.just("e"), st.sampled_from(["=", "<>"]), WORDS),
    st.builds(OneOf, st.just("e"), st.lists(WORDS, min_size=1, max_size=2).map(tuple)),
    st.builds(Missing, st.sampled_from("xnbe")),
)


def grown(leaf: st.SearchStrategy[Tree], *, negate: bool) -> st.SearchStrategy[Tree]:
    def inner(part: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
        parts = st.lists(part, min_size=2, max_size=3).map(tuple)
        joined = st.builds(And, parts) | st.builds(Or, parts)
        return joined | st.builds(Not, part) if negate else joined

    return st.recursive(leaf, inner, max_leaves=8)


ORACLE = duckdb.connect()
ORACLE.execute("CREATE TABLE t (i INTEGER, x DOUBLE, n BIGINT, b BOOLEAN, e VARCHAR)")
TREE = grown(LEAF, negate=True)
RULES = st.lists(st.tuples(TREE, st.none() | TREE), min_size=1, max_size=4)


def bound(*predicates: tuple[Tree, Tree | None], **more: Any) -> list[BoundRule]:
    """Rules from the text of their predicates, as a pack's are."""
    rules = [
        {
            "id": f"r{number}", "version": 1, "status": "active", "when": to_sql(when),
            "unless": to_sql(unless) if unless else "", "trigger": "state", "priority": 1, "review": "none",
            "tag": {"name": f"t{number}", "dimension": "dynamic", "category": "disease", "ttl_days": 1},
            "purpose": "care_management", "evidence": ["none"], "review_by": "2030-01-01", "owner": "one role",
            "reviewer": "another role", "effective": {"from": "2025-01-01"}, "explain": "Text.",
            "explain_staff": "Text.", "tests": [{"given": {}, "expect": "true"}, {"given": {}, "expect": "false"}],
            **more,
        }
        for number, (when, unless) in enumerate(predicates)
    ]  # fmt: skip
    header = {"id": "p", "version": "1.0.0", "facts_schema": "test@1", "title": "Test"}
    pack = Pack.model_validate({"pack": header, "rules": rules})
    return [bind_rule(rule, pack, SCHEMA) for rule in pack.rules]


def facts(rows: list[Any]) -> pl.DataFrame:
    series = [pl.Series(name, [row[at] for row in rows], dtype=dtype) for at, (name, dtype) in enumerate(TYPES.items())]
    return pl.DataFrame([pl.Series("pseudonym", [f"p{i:02d}" for i in range(len(rows))], dtype=pl.String), *series])


def answers(rules: list[BoundRule], frame: pl.DataFrame, held: Any = ()) -> list[tuple[bool | None, ...]]:
    prepared = prepare(frame, SCHEMA, list(TYPES))
    return derive(prepared, rules, {rule.key: set(held) for rule in rules}).rows()


@settings(max_examples=200, deadline=None)
@given(RULES, ROWS)
def test_duckdb_agrees_on_made_up_rules_and_patients(predicates: Any, rows: list[Any]) -> None:
    rules = bound(*predicates)
    ours = answers(rules, facts(rows))
    select = ", ".join(f"({to_sql(rule.enter)})" for rule in rules)
    ORACLE.execute("DELETE FROM t")
    for i, (x, *rest) in enumerate(rows):
        ORACLE.execute("INSERT INTO t VALUES (?,?,?,?,?)", [i, None if x is not None and x != x else x, *rest])
    assert ORACLE.execute(f"SELECT {select} FROM t ORDER BY i").fetchall() == ours


@settings(max_examples=100, deadline=None)
@given(RULES, ROWS, st.randoms())
def test_total_deterministic_and_patient_by_patient(predicates: Any, rows: list[Any], random: Any) -> None:
    rules, frame = bound(*predicates), facts(rows)
    first = derive(prepare(frame, SCHEMA, list(TYPES)), rules, {})
    assert first.shape == (len(rows), len(rules))
    assert set(first.dtypes) == {pl.Boolean}
    assert first.columns == [rule.key for rule in rules]
    assert first.rows() == answers(bound(*predicates), frame), "rules bound anew"
    order = list(range(len(rows)))
    random.shuffle(order)
    assert answers(rules, frame[order] if rows else frame) == [first.row(at) for at in order]
    assert [answers(rules, frame[at : at + 1])[0] for at in order] == [first.row(at) for at in order]


MARK = Compare("x", ">=", 2.25)  # the leaf whose threshold is moved; no other leaf has this number
POSITIVE = grown(LEAF | st.builds(Not, LEAF) | st.just(MARK) | st.just(MARK), negate=False)


def moved(tree: Tree, leaf: Compare) -> Tree:
    if isinstance(tree, And | Or):
        return replace(tree, parts=tuple(moved(part, leaf) for part in tree.parts))
    return leaf if tree == MARK else tree


@settings(max_examples=200, deadline=None)
@given(POSITIVE, ROWS, st.sampled_from([">=", ">", "<=", "<"]), st.tuples(POINT["x"], POINT["x"]).map(sorted))
def test_monotone_in_thresholds(tree: Tree, rows: list[Any], op: Any, points: list[float]) -> None:
    """A stricter threshold never adds a tag and never takes a "false" away; unknown stays where facts are missing."""
    lax, strict = points if op in (">", ">=") else points[::-1]
    easy, hard = (bound((moved(tree, Compare("x", op, value)), None)) for value in (lax, strict))
    frame = facts(rows)
    rank = {False: 0, None: 1, True: 2}
    for (one,), (other,) in zip(answers(easy, frame), answers(hard, frame), strict=True):
        assert rank[other] <= rank[one]


@settings(max_examples=100, deadline=None)
@given(ROWS, st.tuples(POINT["x"], POINT["x"]).filter(lambda pair: pair[0] < pair[1]), LEAF)
def test_who_holds_a_tag_keeps_it_until_the_exit(rows: list[Any], points: Any, other: Tree) -> None:
    exit_, enter = points
    if "x" in to_sql(other):
        return
    band = {"column": "x", "enter": enter, "exit": exit_}
    (rule,) = bound((And((Compare("x", ">=", enter), other)), None), hysteresis=band)
    (plain,) = bound((And((Compare("x", ">=", exit_), other)), None))
    frame = facts(rows)
    everybody = frame["pseudonym"].to_list()
    fresh, held, laxer = answers([rule], frame), answers([rule], frame, everybody), answers([plain], frame)
    assert held == laxer
    assert all(stays == (True,) for came, stays in zip(fresh, held, strict=True) if came == (True,))
    half = everybody[::2]
    mixed = answers([rule], frame, half)
    assert mixed == [kept if name in half else came for name, came, kept in zip(everybody, fresh, held, strict=True)]
