"""Facts catalogues and labels: what is sound, what is refused, and what models see of a catalogue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import (
    Catalogue,
    Derivation,
    Fact,
    LabelDefinition,
    check_label,
    feature_names,
    parse_catalogue,
    parse_label,
)

AGE = {"name": "age", "meaning": "age in years", "type": "float", "group": "static", "plausible": [0, 120]}
MODELLED = AGE | {"model": True, "scale": [20, 90], "missing": False}
SMOKER = {"name": "smoker", "meaning": "smokes now", "type": "bool", "group": "behaviour", "model": True}
SEX = {"name": "sex", "meaning": "sex as recorded", "type": "enum", "group": "static", "values": ["f", "m"]}
LABEL = {"id": "event", "version": 1, "meaning": "an event", "catalogue": "demo", "outcome": "event"}


def catalogue(*facts: dict[str, Any], **more: Any) -> Catalogue:
    return Catalogue.model_validate({"id": "demo", "version": 1, "title": "demo", "facts": list(facts)} | more)


DEMO = catalogue(MODELLED, SMOKER, SEX | {"model": True}, AGE | {"name": "weight"})


def test_features_in_order() -> None:
    assert feature_names(DEMO) == ("age", "smoker", "smoker?", "sex=f", "sex=m", "sex?")
    assert feature_names(catalogue(AGE)) == ()


def test_a_fact_is_found_by_name() -> None:
    assert DEMO.fact("smoker").type == "bool"
    with pytest.raises(KeyError):
        DEMO.fact("nothing")


@pytest.mark.parametrize(
    "fact",
    [
        AGE | {"plausible": None},
        AGE | {"plausible": [1, 1]},
        AGE | {"plausible": [2, 1]},
        AGE | {"model": True},
        AGE | {"model": True, "scale": [5, 5]},
        AGE | {"values": ["a"]},
        AGE | {"name": "Age"},
        AGE | {"name": ""},
        AGE | {"type": "text"},
        AGE | {"unknown": 1},
        SEX | {"values": []},
        SEX | {"values": ["f", "f"]},
        SMOKER | {"plausible": [0, 1]},
        SMOKER | {"sensitivity": "none"},
        SMOKER | {"purposes": ["insurance"]},
        SMOKER | {"derive": {"how": "ever", "until_days": -1}},
    ],
)
def test_an_unsound_fact_is_refused(fact: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Fact.model_validate(fact)


def test_no_window_is_empty_or_looks_ahead() -> None:
    assert Derivation(how="mean", lookback_days=30, until_days=29).until_days == 29
    with pytest.raises(ValidationError, match="empty"):
        Derivation(how="mean", lookback_days=30, until_days=30)


@pytest.mark.parametrize(
    "more",
    [
        {"consistency": [{"id": "r", "kind": "below", "fact": "age", "other": "smoker"}]},
        {"consistency": [{"id": "r", "kind": "below", "fact": "age", "other": "nothing"}]},
        {"consistency": [{"id": "r", "kind": "only_if", "fact": "smoker", "other": "age"}]},
        {"consistency": [{"id": "r", "kind": "at_most", "fact": "age", "other": "weight"}] * 2},
        {"facts": []},
        {"facts": [AGE, AGE]},
        {"version": 0},
    ],
)
def test_an_unsound_catalogue_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        catalogue(AGE, AGE | {"name": "weight"}, SMOKER, **more)


def test_hashes_bind_the_whole_definition() -> None:
    assert DEMO.sha256() == Catalogue.model_validate(DEMO.model_dump(mode="json")).sha256()
    other = catalogue(MODELLED | {"scale": [20, 91]}, SMOKER, SEX | {"model": True}, AGE | {"name": "weight"})
    assert other.sha256() != DEMO.sha256()
    label = LabelDefinition.model_validate(LABEL)
    assert label.sha256() != LabelDefinition.model_validate(LABEL | {"window_days": 1}).sha256()


@pytest.mark.parametrize(
    "change", [{"catalogue": "other"}, {"outcome": "age"}, {"exclude": ["age"]}, {"require": ["nothing"]}]
)
def test_a_label_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OperatorError) as error:
        check_label(LabelDefinition.model_validate(LABEL | change), DEMO)
    assert error.value.code == "label-mismatch"
    assert "conf/labels/event.yaml" in error.value.do


def test_a_label_that_fits() -> None:
    check_label(LabelDefinition.model_validate(LABEL | {"exclude": ["smoker"], "require": ["smoker"]}), DEMO)


def test_yaml_reads_back() -> None:
    assert parse_catalogue(json.dumps(DEMO.model_dump(mode="json")).encode(), name="x") == DEMO
    assert parse_label(json.dumps(LABEL).encode(), name="x") == LabelDefinition.model_validate(LABEL)


@pytest.mark.parametrize(
    "raw",
    [
        b"id: a\nid: b",
        b"a: &x 1\nb: *x",
        b"a: !!python/object/apply:os.system [x]",
        b"--- 1\n--- 2",
        b"[" * 1000,
        b"\xff",
        b"a: [",
        b"? [a]\n: 1",
        b"<<: {a: 1}",
    ],
)
def test_tricky_yaml_is_refused(raw: bytes) -> None:
    with pytest.raises(OperatorError) as error:
        parse_catalogue(raw, name="conf/facts/x.yaml")
    assert error.value.code == "yaml-refused"
    assert "conf/facts/x.yaml" in error.value.what


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_garbage_is_a_clear_error(raw: bytes) -> None:
    for parse in (parse_catalogue, parse_label):
        with pytest.raises(OperatorError) as error:
            parse(raw, name="x")
        assert error.value.code in ("yaml-refused", "definition-invalid")
