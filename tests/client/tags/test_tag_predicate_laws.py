"""Laws of the predicate language, with DuckDB as the oracle of SQL's three answers."""

from __future__ import annotations

from typing import Any

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.tags.compile import compile_tree
from cameo_client.tags.engine import literals, prepare
from cameo_client.tags.finding import Fault
from cameo_client.tags.predicate import And, Compare, Leaf, Missing, Not, OneOf, Or, Surely, Tree, parse, to_sql
from cameo_client.tags.regions import false_boxes, implies, overlap, true_boxes
from cameo_client.tags.schema import Column, Schema
from cameo_client.tags.typecheck import check

COLUMNS = {
    "a": Column(name="a", kind="number", low=-5, high=5, sensitivity="normal", purposes=()),
    "n": Column(name="n", kind="number", whole=True, low=0, high=4, sensitivity="normal", purposes=()),
    "b": Column(name="b", kind="bool", sensitivity="normal", purposes=()),
    "e": Column(name="e", kind="enum", values=("x", "y", "it's"), sensitivity="normal", purposes=()),
}
SCHEMA = Schema("test@1", COLUMNS)
NUMBERS = {"a": [None, -5.0, -1.5, 0.0, 0.5, 1.0, 5.0], "n": [None, 0.0, 1.0, 2.0, 4.0]}
ROWS = [
    (a, n, b, e)
    for a in NUMBERS["a"]
    for n in NUMBERS["n"]
    for b in (None, True, False)
    for e in (None, "x", "y", "it's")
]
FRAME = pl.DataFrame(
    {"pseudonym": [str(i) for i in range(len(ROWS))], **{k: [row[i] for row in ROWS] for i, k in enumerate("anbe")}},
    schema={"pseudonym": pl.String, "a": pl.Float64, "n": pl.Int64, "b": pl.Boolean, "e": pl.String},
    strict=False,
)
PREPARED = prepare(FRAME, SCHEMA, list(COLUMNS))
CON = duckdb.connect()
CON.execute("CREATE TABLE t (i INTEGER, a DOUBLE, n DOUBLE, b BOOLEAN, e VARCHAR)")
CON.executemany("INSERT INTO t VALUES (?,?,?,?,?)", [(i, *row) for i, row in enumerate(ROWS)])

OPS = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
POINTS = {"a": st.sampled_from([-5.0, -1.5, 0.0, 0.5, 1.0, 2.25, 5.0]), "n": st.sampled_from([0.0, 1.0, 1.5, 2.0, 4.0])}


def number_leaf(name: str) -> st.SearchStrategy[Leaf]:
    some = st.lists(POINTS[name], min_size=1, max_size=3).map(tuple)
    return st.builds(Compare, st.just(name), OPS, POINTS[name]) | st.builds(OneOf, st.just(name), some)


WORDS = st.sampled_from(["x", "y", "it's"])
EQUAL = st.sampled_from(["=", "<>"])
LEAVES: st.SearchStrategy[Tree] = st.one_of(
    number_leaf("a"),
    number_leaf("n"),
    st.builds(Compare, st.just("b"), EQUAL, st.booleans()),
    st.builds(Surely, st.just("b"), st.booleans()),
    st.builds(Compare, st.just("e"), EQUAL, WORDS),
    st.builds(OneOf, st.just("e"), st.lists(WORDS, min_size=1, max_size=2).map(tuple)),
    st.builds(Missing, st.sampled_from("anbe")),
)
TREES: st.SearchStrategy[Tree] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


def answers(tree: Tree) -> list[Any]:
    return PREPARED.select(compile_tree(tree).alias("x"))["x"].to_list()


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_duckdb_gives_the_same_three_answers(tree: Tree) -> None:
    theirs = [row[0] for row in CON.execute(f"SELECT ({to_sql(tree)}) FROM t ORDER BY i").fetchall()]
    assert answers(tree) == theirs


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_the_canonical_text_reads_back_as_the_tree(tree: Tree) -> None:
    again = parse(to_sql(tree))
    assert again == tree
    assert check(again, SCHEMA) == ()


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_not_keeps_unknown_and_swaps_the_rest(tree: Tree) -> None:
    swapped = {True: False, False: True, None: None}
    assert answers(Not(tree)) == [swapped[answer] for answer in answers(tree)]


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_literals_decide_the_tree(tree: Tree) -> None:
    """Where every signed comparison is true the tree is true; where all are false it is false."""
    signed = literals(tree)
    columns = [answers(leaf if wanted else Not(leaf)) for leaf, wanted in signed]
    for row, answer in zip(zip(*columns, strict=True), answers(tree), strict=True):
        if set(row) == {True}:
            assert answer is True
        if set(row) == {False}:
            assert answer is False


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_regions_never_and_always(tree: Tree) -> None:
    if true_boxes(tree, SCHEMA) == []:
        assert True not in answers(tree)
    if false_boxes(tree, SCHEMA) == []:
        assert False not in answers(tree)


@settings(max_examples=200, deadline=None)
@given(TREES, TREES)
def test_regions_implied_and_disjoint(one: Tree, two: Tree) -> None:
    ones, twos = true_boxes(one, SCHEMA), true_boxes(two, SCHEMA)
    if ones is None or twos is None:
        return
    pairs = list(zip(answers(one), answers(two), strict=True))
    if implies(ones, twos):
        assert all(second for first, second in pairs if first)
    if not overlap(ones, twos):
        assert not any(first and second for first, second in pairs)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_a_predicate_implies_itself_and_overlaps_itself_unless_never_true(tree: Tree) -> None:
    boxes = true_boxes(tree, SCHEMA)
    if boxes is not None:
        assert implies(boxes, boxes)
        assert overlap(boxes, boxes) == bool(boxes)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="ab()<>=!',.-+*/;_ 0123456789ANDORNOTISULLE", max_size=80))
def test_any_text_gives_a_tree_or_a_fault(text: str) -> None:
    found: Tree | Fault
    try:
        found = parse(text)
    except Fault as fault:
        found = fault
    if isinstance(found, Fault):
        assert found.code.startswith("predicate-")
        assert found.do
    else:
        assert parse(to_sql(found)) == found


def test_not_a_number_is_unknown_not_the_largest_number() -> None:
    frame = pl.DataFrame({"pseudonym": ["p"], "a": [float("nan")], "n": [1], "b": [True], "e": ["x"]})
    prepared = prepare(frame, SCHEMA, ["a"])
    assert prepared.select(compile_tree(parse("a > 1")).alias("x"))["x"].to_list() == [None]
