"""A patient with several records: allowed where the mapping says so; one is current, the others serve training."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cameo_client.data.catalogue import load_source
from cameo_client.data.columns import model_columns, outcome_column
from cameo_client.data.hospital import HospitalData, every_record, load
from cameo_client.data.pseudonyms import pseudonym
from cameo_client.data.source import TableMapping, TableSource
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, Fact, LabelDefinition

KEY = bytes(range(32))
CATALOGUE = Catalogue(
    id="tiny",
    version=1,
    title="Tiny",
    facts=(
        Fact(name="age", meaning="Age", type="float", group="static", plausible=(0, 120), scale=(20, 90), model=True,
             missing=False, required=True),
    ),
)  # fmt: skip
LABEL = LabelDefinition(id="event", version=1, meaning="Event", catalogue="tiny", outcome="out")
FIELDS: dict[str, Any] = {
    "id": "clinic", "version": 1, "title": "Clinic", "catalogue": "tiny", "person_id": "pid",
    "facts": {"age": "age"}, "outcomes": {"out": "out"}, "snapshot": date(2026, 1, 31),
}  # fmt: skip
TABLE = "pid,age,out\np2,40,0\np1,60,0\np2,41,1\np3,70,0\np2,42,\np1,61,1\n"


def read(tmp_path: Path, **changes: Any) -> HospitalData:
    path = tmp_path / "clinic.csv"
    path.write_text(TABLE)
    mapping = TableMapping.model_validate(FIELDS | {"records": "several"} | changes)
    return load(TableSource(mapping=mapping, path=path), CATALOGUE, [LABEL], KEY)


def ages(data: HospitalData) -> dict[str, float]:
    return dict(zip(data.facts["pseudonym"], data.facts["age"], strict=True))


def test_the_last_row_of_a_patient_is_the_current_record(tmp_path: Path) -> None:
    data = read(tmp_path)
    one, two, three = (pseudonym(KEY, name) for name in ("p1", "p2", "p3"))
    assert ages(data) == {one: 61.0, two: 42.0, three: 70.0}
    assert data.facts["pseudonym"].to_list() == sorted([one, two, three])
    assert dict(zip(data.outcomes["pseudonym"], data.outcomes["event"], strict=True)) == {one: 1, two: None, three: 0}
    assert data.quality.records.len() == 3
    assert data.earlier is not None
    rows = zip(
        *(data.earlier.facts[name] for name in ("pseudonym", "age")), data.earlier.outcomes["event"], strict=True
    )
    assert sorted(rows) == sorted([(one, 60.0, 0), (two, 40.0, 0), (two, 41.0, 1)])


def test_every_record_ends_with_the_current_ones(tmp_path: Path) -> None:
    data = read(tmp_path)
    every = every_record(data)
    assert every.facts.height == every.outcomes.height == 6
    assert every.facts["pseudonym"].to_list()[3:] == data.facts["pseudonym"].to_list()
    assert every.facts["pseudonym"].to_list() == every.outcomes["pseudonym"].to_list()
    two = pseudonym(KEY, "p2")
    assert [age for name, age in zip(every.facts["pseudonym"], every.facts["age"], strict=True) if name == two] == [
        40.0,
        41.0,
        42.0,
    ]
    assert outcome_column(every, "event").shape == model_columns(every, CATALOGUE)["age"].shape == (6,)


def test_one_record_a_patient_is_the_rule(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="data-duplicate-id"):
        read(tmp_path, records="one")
    assert TableMapping.model_validate(FIELDS).records == "one"
    with pytest.raises(ValidationError, match="person id"):
        TableMapping.model_validate(FIELDS | {"records": "several", "person_id": "row"})


def test_where_nobody_has_two_there_is_nothing_earlier(tmp_path: Path) -> None:
    path = tmp_path / "clinic.csv"
    path.write_text("pid,age,out\np1,60,0\np2,40,1\n")
    mapping = TableMapping.model_validate(FIELDS | {"records": "several"})
    data = load(TableSource(mapping=mapping, path=path), CATALOGUE, [LABEL], KEY)
    assert data.earlier is None
    assert every_record(data) is data


def test_a_mapping_says_whose_a_row_is(tmp_path: Path) -> None:
    """Were the row a silent default, a patient of k rows would count k times."""
    without = {name: value for name, value in FIELDS.items() if name != "person_id"}
    file = tmp_path / "clinic.yaml"
    file.write_text(json.dumps(without | {"snapshot": "2026-01-31"}))
    with pytest.raises(OperatorError, match="definition-invalid: clinic") as refused:
        load_source(str(file), tmp_path / "clinic.csv")
    assert "person_id: row" in refused.value.what
    file.write_text(json.dumps(without | {"snapshot": "2026-01-31", "person_id": "row"}))
    assert load_source(str(file), tmp_path / "clinic.csv").mapping.person_id == "row"
