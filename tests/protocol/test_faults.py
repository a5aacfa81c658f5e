"""Whatever a person writes into a file, the answer names the key in plain words, and never in pydantic's."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, StrictBool, StrictInt, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.faults import all_faults, faults, plain
from cameo_protocol.plan import parse_plan
from cameo_protocol.strict_yaml import parse_model

FOREIGN = re.compile(
    r"Input should|Extra inputs|Field required|Value error|should (have|be|match)|valid |pydantic|_type|_error"
)


class Part(BaseModel, frozen=True, extra="forbid"):
    sigma: float = Field(default=1, gt=0)
    name: str = Field(default="a", pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")


class Dog(BaseModel, frozen=True, extra="forbid"):
    kind: Literal["dog"]


class Cat(BaseModel, frozen=True, extra="forbid"):
    kind: Literal["cat"]


class File(BaseModel, frozen=True, extra="forbid"):
    version: Literal[1, 2]
    mode: Literal["distributed", "local"] = "local"
    floors: Part = Part()
    parts: tuple[Part, ...] = Field(default=(), max_length=2)
    value: StrictBool | StrictInt | None = None
    text: str = Field(default="abc", min_length=3)
    day: date | None = None
    named: dict[str, Part] = {}
    pet: Annotated[Dog | Cat, Field(discriminator="kind")] | None = None


A_NAME = "allowed is a name of a-z 0-9 . _ -, at most 64 characters"


def told(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        File.model_validate({"version": 1} | values)
    return faults(caught.value, File)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"version": 3}, "version: found 3; allowed is 1 or 2"),
        ({"mode": "lokal"}, "mode: found 'lokal'; allowed is distributed or local"),
        ({"floors": {"sigma": 0}}, "floors.sigma: found 0; allowed is more than 0"),
        ({"floors": {"sigma": "much"}}, "floors.sigma: found a text; allowed is a number"),
        ({"floors": {"sigma": None}}, "floors.sigma: found nothing; allowed is a number"),
        ({"floors": [1]}, "floors: found a list; allowed is keys with values"),
        ({"floors": {"name": "A"}}, f"floors.name: found a text; {A_NAME}"),
        ({"floors": {"sigme": 1}}, "floors.sigme: there is no such key; did you mean sigma?"),
        ({"parts": [{}, {"x": 1}]}, "parts.1.x: there is no such key; allowed is name, sigma"),
        ({"parts": [{}, {}, {}]}, "parts: found 3 entries; allowed is 2 entries at most"),
        ({"parts": {}}, "parts: found keys with values; allowed is a list"),
        ({"named": {"one": {"sigma": True, "x": 1}}}, "named.one.x: there is no such key; allowed is name, sigma"),
        ({"value": 1.5}, "value: found 1.5; allowed is true or false or a whole number"),
        ({"text": "ab"}, "text: found 2 characters; allowed is a text of 3 or more characters"),
        ({"text": 12}, "text: found 12; allowed is a text"),
        ({"day": "31.1.2026"}, "day: found a text; allowed is a day, as 2026-01-31"),
        ({"pet": {"kind": "cow"}}, "pet: its key kind says 'cow'; allowed is dog, cat"),
        ({"pet": {}}, "pet: its key kind is missing"),
        ({"version": 3, "text": 1}, "version: found 3; allowed is 1 or 2 (and 1 more)"),
    ],
)  # fmt: skip
def test_examples(values: dict[str, Any], text: str) -> None:
    assert told(**values) == text


def test_what_is_missing_and_no_file_at_all() -> None:
    with pytest.raises(ValidationError) as caught:
        File.model_validate({})
    assert faults(caught.value) == "version: it is missing"
    with pytest.raises(ValidationError) as caught:
        File.model_validate(["x"])
    assert faults(caught.value) == "the whole: found a list; allowed is keys with values"


def test_a_text_that_may_be_a_secret_is_never_shown() -> None:
    assert "hunter2" not in told(floors={"name": "hunter2 hunter2"}, text=["hunter2"], day="hunter2", value="hunter2")


CONTEXT = {
    "gt": 1, "ge": 1, "lt": 1, "le": 1, "multiple_of": 2, "min_length": 1, "max_length": 1, "actual_length": 3,
    "field_type": "List", "pattern": "x", "expected": "'a' or 'b'", "error": "our words", "discriminator": "'kind'",
    "tag": "x", "expected_tags": "'a', 'b'", "class": "X", "class_name": "X", "attribute": "x",
    "method_name": "x", "encoding": "utf8", "encoding_error": "x", "tz_expected": 1, "tz_actual": 1,
    "expected_version": 4, "expected_schemes": "x", "max_digits": 1, "decimal_places": 1, "whole_digits": 1,
    "mapping_type": "x",
}  # fmt: skip


@pytest.mark.parametrize("kind", get_args(ErrorType))
@pytest.mark.parametrize("value", [None, True, 1, 2.5, "x", [], {}, object()])
def test_every_fault_that_pydantic_knows_has_plain_words(kind: ErrorType, value: object) -> None:
    """Also those that no model of ours can have today."""
    item = ErrorDetails(type=kind, loc=("a", "b"), msg="Input should be", input=value, ctx=CONTEXT)
    text = plain(item)
    assert text
    assert not FOREIGN.search(text)


def test_a_fault_of_a_kind_that_nobody_knows_has_plain_words_too() -> None:
    fault = PydanticCustomError("odd_one", "Input should be odd")
    error = ValidationError.from_exception_data("x", [InitErrorDetails(type=fault, loc=("a",), input=2)])
    assert faults(error) == "a: found 2; allowed is something else"


KEYS = st.sampled_from([*File.model_fields, "kind", "name", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["dog", "local"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@given(JSON)
def test_garbage_is_told_in_plain_words(value: Any) -> None:
    try:
        File.model_validate(value)
    except ValidationError as error:
        found = [str(fault) for fault in all_faults(error, File)]
        assert found
        assert not [text for text in found if FOREIGN.search(text)]
        assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\n\nfloors:\n  sigma: 0\n", 4),
        ("version: 1\nparts:\n- name: a\n- name: A\n", 4),
        ("version: 1\n# a remark\nnothing: 1\n", 3),
        ("mode: local\n", 1),
        ("- a\n", 1),
        ("version: 1\nnamed:\n  one: {sigma: 1}\n  two: {sigma: x}\n", 4),
    ],
)
def test_the_line_of_a_fault_in_yaml(text: str, line: int) -> None:
    with pytest.raises(OperatorError) as caught:
        parse_model(text.encode(), File, name="file.yaml")
    assert caught.value.what.startswith(f"file.yaml, line {line}: ")
    assert not FOREIGN.search(caught.value.what)


def test_a_plan_says_what_is_wrong_with_it() -> None:
    for raw in (b"{}", b"garbage", b"\xff", b'{"name": 1}', b"[]"):
        with pytest.raises(Reject) as caught:
            parse_plan(raw)
        assert not FOREIGN.search(caught.value.what)
