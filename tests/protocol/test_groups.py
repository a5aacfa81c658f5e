"""Groups of patients by one public fact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cameo_protocol.facts import Catalogue
from cameo_protocol.groups import MAX_GROUPS, Groups

FACTS = Catalogue.model_validate(
    {
        "id": "tiny",
        "version": 1,
        "title": "tiny",
        "facts": [
            {"name": "sex", "meaning": "sex", "type": "enum", "group": "static", "values": ["female", "male"]}
            | {"sensitivity": "normal"},
            {"name": "age", "meaning": "age", "type": "float", "group": "static", "plausible": [0, 120]}
            | {"sensitivity": "normal"},
            {"name": "weight", "meaning": "weight", "type": "float", "group": "static", "plausible": [0, 500]},
        ],
    }
)


def test_bands_and_values_have_names_in_order() -> None:
    age = Groups(fact="age", cuts=(50, 65))
    assert (len(age), age.names) == (3, ("below 50", "50 to 65", "65 and more"))
    assert Groups(fact="age", cuts=(50,)).names == ("below 50", "50 and more")
    sex = Groups(fact="sex", values=("female", "male"))
    assert (len(sex), sex.names) == (2, ("female", "male"))


def test_a_cut_belongs_to_the_band_above_it() -> None:
    found = Groups(fact="age", cuts=(50, 65)).of_numbers(np.array([49.9, 50.0, 64.9, 65.0, np.nan, -np.inf, np.inf]))
    assert found.tolist() == [0, 1, 1, 2, -1, 0, 2]


def test_an_enum_keeps_its_index_and_what_is_unknown_is_in_no_group() -> None:
    found = Groups(fact="sex", values=("female", "male")).of_numbers(np.array([1.0, 0.0, np.nan, 2.0, -1.0]))
    assert found.tolist() == [1, 0, -1, -1, -1]


@given(st.lists(st.floats(), max_size=30), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8, unique=True))
def test_every_number_is_in_one_band(numbers: list[float], cuts: list[float]) -> None:
    groups = Groups(fact="age", cuts=tuple(sorted(cuts)))
    edges = [-np.inf, *sorted(cuts), np.inf]
    for number, at in zip(numbers, groups.of_numbers(np.array(numbers, dtype=float)), strict=True):
        assert (at == -1) == (number != number)
        assert at == -1 or edges[at] <= number <= edges[at + 1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"values": ("a",), "cuts": (1.0,)},
        {"cuts": (2.0, 1.0)},
        {"cuts": (1.0, 1.0)},
        {"cuts": (float("nan"),)},
        {"cuts": (float("inf"),)},
        {"values": ("a", "a")},
        {"values": ("",)},
        {"cuts": tuple(float(i) for i in range(MAX_GROUPS))},
    ],
)
def test_unsound_groups_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Groups(fact="age", **fields)


def test_a_catalogue_says_what_may_be_grouped_by() -> None:
    assert Groups(fact="sex", values=("female", "male")).fits(FACTS) == ""
    assert Groups(fact="age", cuts=(50,)).fits(FACTS) == ""
    assert "no fact" in Groups(fact="height", cuts=(1.8,)).fits(FACTS)
    assert "sensitive" in Groups(fact="weight", cuts=(80,)).fits(FACTS)
    assert "female, male" in Groups(fact="sex", values=("male", "female")).fits(FACTS)
    assert "not listed" in Groups(fact="age", values=("old",)).fits(FACTS)
    assert "no number" in Groups(fact="sex", cuts=(1,)).fits(FACTS)
