"""Whatever a condition holds, saying it in words loses no number, breaks nothing and shows no raw column it knows."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cameo_client.page.clinical import in_words, names_of
from cameo_client.page.curve import BOTTOM, LEFT, RIGHT, TOP, draw
from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import parse_catalogue

CATALOGUE = parse_catalogue((conf_dir() / "facts" / "cardiometabolic.yaml").read_bytes(), name="cardiometabolic")
NAMES = names_of(CATALOGUE, ())
columns = st.sampled_from(sorted(NAMES))
numbers = st.decimals(0, 5000, places=2).map(str)


@given(st.text(max_size=200))
def test_any_text_can_be_said(text: str) -> None:
    assert isinstance(in_words(text, NAMES), str)


@given(columns, st.sampled_from([">=", "<=", "<", ">", "="]), numbers)
def test_a_comparison_keeps_its_number_and_loses_its_column(column: str, sign: str, number: str) -> None:
    said = in_words(f"{column} {sign} {number}", NAMES)
    words, unit = NAMES[column]
    assert said.lower().startswith(words.lower())
    shown = f"{100 * float(number):g} %" if unit == "share" else number
    assert shown in said
    assert not re.search(r"[a-z]_[a-z]", said)


points = st.lists(st.floats(1e-6, 50), min_size=1, max_size=30).map(sorted)


@given(points, st.none() | st.fixed_dictionaries({"data_set": st.floats(0.1, 20), "year": st.floats(0.1, 20)}))
def test_a_ledger_is_drawn_inside_its_frame(epsilons: list[float], caps: dict[str, float] | None) -> None:
    curve = [{"release": number, "epsilon": value} for number, value in enumerate(epsilons, 1)]
    found = draw({"curve": curve, "caps": caps})
    assert found is not None
    places = [tuple(map(float, place.split(","))) for place in found.points.split()]
    assert len(places) == len(epsilons) + 1
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True), "it only rises"
    assert all(TOP - 0.1 <= y <= BOTTOM for y, _ in (*found.levels, *found.limits))
    assert 1 <= len(found.levels) <= 11


def test_before_the_first_release_nothing_is_drawn() -> None:
    assert draw({"curve": [], "caps": None}) is None
