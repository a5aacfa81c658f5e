"""Exports: cells that no spreadsheet runs, counts from which no small one can be computed."""

from __future__ import annotations

import csv
import io
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_client.tags.export import COLUMNS, SMALLEST, aggregate, safe_cell, to_csv, to_parquet
from cameo_client.tags.store import StoredTag


def tag(**changes: Any) -> StoredTag:
    base: dict[str, Any] = dict.fromkeys(COLUMNS, "x")
    numbers = {"rule_version": 1, "guard": 0, "run": 1, "model_version": None, "model_round": None}
    return StoredTag(**{**base, **numbers, "because": ("sbp >= 140", "NOT dx"), **changes})


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "  =1", "=cmd|' /C calc'!A0"])
def test_formulas_are_disarmed(cell: str) -> None:
    assert safe_cell(cell) == "'" + cell
    (_, row) = csv.reader(io.StringIO(to_csv([tag(pseudonym=cell)]).decode(), newline=""))
    assert row[0] == "'" + cell


@given(st.text(max_size=20))
def test_no_cell_starts_like_a_formula(text: str) -> None:
    assert safe_cell(text).lstrip(" ")[:1] not in {"=", "+", "-", "@", "\t", "\r", "\n"}
    assert safe_cell(text).removeprefix("'") == text.removeprefix("'") or safe_cell(text) == text


def test_csv_and_parquet_hold_every_field() -> None:
    rows = [tag(), tag(pseudonym="b", snapshot=None, model_version=3)]
    read = list(csv.DictReader(io.StringIO(to_csv(rows).decode(), newline="")))
    assert [row["pseudonym"] for row in read] == ["x", "b"]
    assert read[0]["because"] == "sbp >= 140; NOT dx"
    assert read[1]["snapshot"] == ""
    frame = pl.read_parquet(io.BytesIO(to_parquet(rows)))
    assert tuple(frame.columns) == COLUMNS
    assert frame["because"].to_list() == [["sbp >= 140", "NOT dx"]] * 2
    assert frame["model_version"].to_list() == [None, 3]
    assert pl.read_parquet(io.BytesIO(to_parquet([]))).height == 0


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        ({"all": 10}, {"all": None, "total": None}),
        ({"all": 11}, {"all": 10, "total": 10}),
        ({"all": 13}, {"all": 15, "total": 15}),
        ({"f": 100, "m": 53}, {"f": 100, "m": 55, "total": 155}),
        ({"f": 100, "m": 3}, {"f": None, "m": None, "total": 105}),
        ({"a": 100, "b": 3, "c": 30}, {"a": None, "b": None, "c": 30, "total": 135}),
        ({"a": 100, "b": 3, "c": 4, "d": 20}, {"a": None, "b": None, "c": None, "d": 20, "total": 125}),
        ({"a": 100, "b": 5, "c": 6}, {"a": None, "b": None, "c": None, "total": 110}),
        ({"a": 10, "b": 10}, {"a": None, "b": None, "total": None}),
    ],
)
def test_small_counts_and_what_would_give_them_away(cells: dict[str, int], shown: dict[str, int | None]) -> None:
    assert aggregate({"t": cells}) == {"t": shown}


@given(st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 60), min_size=1))
def test_no_small_count_follows_from_what_is_shown(cells: dict[str, int]) -> None:
    shown = aggregate({"t": cells})["t"]
    hidden = [name for name in cells if shown[name] is None]
    for name, count in cells.items():
        if count < SMALLEST:
            assert name in hidden
        if shown[name] is not None:
            assert shown[name] % 5 == 0  # type: ignore[operator]
            assert abs(int(shown[name] or 0) - count) <= 2
    if hidden and shown["total"] is not None:
        assert sorted(cells[name] for name in hidden)[-1] >= SMALLEST > sorted(cells[name] for name in hidden)[-2]
    assert hidden or shown["total"] is not None
