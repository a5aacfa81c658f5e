"""FHIR bulk exports: what each resource becomes, what is passed over, and which lines are refused, by number only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fhir_kit import (
    ATC,
    CATALOGUE,
    EXPORT,
    LABELS,
    LOINC,
    OMOP,
    P1,
    P2,
    PEOPLE,
    SNAPSHOT,
    Json,
    coded,
    findings,
    ill,
    of,
    quantity,
    read,
    seen,
    source,
    write,
)

from cameo_client.data import fhir
from cameo_client.data.catalogue import load_source
from cameo_client.data.fhir import as_omop
from cameo_client.data.fhir_mapping import FhirMapping, FhirSource
from cameo_client.data.fhir_pick import person_number
from cameo_client.data.hospital import check
from cameo_protocol.errors import ExitCode, OperatorError


def test_a_patient_without_events(tmp_path: Path) -> None:
    data = read(write(tmp_path))
    assert of(data, "age") == pytest.approx(70.0, abs=0.01)
    assert (of(data, "sex"), of(data, "sex", "p2")) == ("male", "female")
    assert [of(data, name) for name in ("sbp", "dx", "fills", "visits", "dead")] == [None, False, 0, 0, False]
    assert data.dataset == "clinic-fhir"
    assert data.snapshot == SNAPSHOT


def test_observations_by_code_unit_and_component(tmp_path: Path) -> None:
    panel = {"component": [
        {"code": coded(LOINC, "8480-6"), **quantity(150)}, {"code": coded(LOINC, "8462-4"), **quantity(95.5)},
        {"code": coded(LOINC, "9999-9"), "valueString": "not mapped"},
    ]}  # fmt: skip
    data = read(write(
        tmp_path, seen("85354-9", panel), seen("13457-7", quantity(120, "mg/dL")),
        seen("72166-2", {"valueCodeableConcept": coded("http://snomed.info/sct", "449868002")}),
        seen("region", {"valueString": "land"}, system="local"), seen("1-1", quantity(1, "furlong")),
        seen("8480-6", quantity(999), status="entered-in-error"), seen("8480-6", {"dataAbsentReason": {}}),
    ))  # fmt: skip
    assert [of(data, name) for name in ("sbp", "dbp", "ldl", "smoker", "region")] == [150.0, 95.5, 60.0, True, "land"]


def test_events_go_to_the_table_that_reads_their_concept(tmp_path: Path) -> None:
    base, metformin = {"subject": P1, "status": "completed"}, coded(ATC, "A10BA02")
    visit, fill = {"resourceType": "Encounter", "subject": P1}, base | {"resourceType": "MedicationDispense"}
    data = read(write(
        tmp_path,
        ill("2020-01-01"), ill("2026-06-01", "Z63.4"),
        ill("2026-01-01", subject=P2, verificationStatus=coded("", "refuted")),
        visit | {"status": "finished", "period": {"start": "2026-06-30T23:59:59+02:00"}},
        visit | {"status": "cancelled", "period": {"start": "2026-06-01"}},
        {"resourceType": "Procedure", **base, "performedPeriod": {"start": "2026-06-20"}},
        fill | {"medicationCodeableConcept": metformin, "whenHandedOver": "2026-05-01"},
        fill | {"medicationReference": {"reference": "Medication/m1"}, "whenHandedOver": "2026-05-02"},
        fill | {"medicationReference": {"reference": "#in"}, "whenHandedOver": "2026-05-03",
                "contained": [{"resourceType": "Medication", "id": "in", "code": metformin}]},
        {**base, "resourceType": "MedicationRequest", "medicationCodeableConcept": metformin, "authoredOn": "2026-05"},
        {"resourceType": "Medication", "id": "m1", "code": metformin},
        {"resourceType": "AllergyIntolerance", "id": "of no use here"},
    ))  # fmt: skip
    assert [of(data, name) for name in ("dx", "grief", "visits", "surgery", "fills")] == [True, True, 1, True, 3]
    assert of(data, "dx", "p2") is False
    requests = read(tmp_path, drugs="MedicationRequest")
    assert of(requests, "fills") == 1


def test_the_longest_prefix_wins_and_an_exact_code_before_it(tmp_path: Path) -> None:
    data = read(write(tmp_path, ill("2020-01-01", "E11.9x")))
    assert (of(data, "dx"), of(data, "grief")) == (False, True)


def test_nothing_after_the_snapshot_becomes_a_fact(tmp_path: Path) -> None:
    """Facts are the same when everything after the snapshot date is taken away; the outcome is not."""
    past = [ill("2020-01-01", subject=P2), seen("8480-6", quantity(130), "2026-06-30")]
    future = [
        ill("2026-07-01"), seen("8480-6", quantity(190), "2026-07-01"), seen("8480-6", quantity(190), "2026-12"),
        {"resourceType": "Procedure", "status": "completed", "subject": P1, "performedDateTime": "2026-07-02"},
        {"resourceType": "Encounter", "status": "finished", "subject": P1, "period": {"start": "2027"}},
    ]  # fmt: skip
    late = [PEOPLE[0] | {"deceasedDateTime": "2026-07-05"}, PEOPLE[1]]
    one, two = read(write(tmp_path / "a", *past)), read(write(tmp_path / "b", *past, *future, people=late))
    assert one.facts.equals(two.facts)
    assert (of(one, "event"), of(two, "event")) == (0, 1)


def test_a_year_or_a_month_is_its_last_day_unless_the_snapshot_lies_in_it(tmp_path: Path) -> None:
    data = read(
        write(
            tmp_path / "a",
            ill("2019"),
            seen("8480-6", quantity(1), "2026-05"),
            seen("8480-6", quantity(2), "2026-05-30"),
        )
    )
    assert (of(data, "dx"), of(data, "sbp")) == (True, 1.0)
    for day in ("2026", "2026-06-31", "26-01-01", "yesterday", ""):
        found = findings(write(tmp_path / "b", ill(day)))
        assert [(f.code, f.table, f.rows) for f in found] == [("fhir-date", "Condition.ndjson", (1,))]
    assert of(read(write(tmp_path / "c", ill("2026-06"))), "dx") is True  # the snapshot is that month's last day


def of_code(folder: Path) -> str:
    with pytest.raises(OperatorError) as caught:
        read(folder)
    assert caught.value.exit_code is ExitCode.DATA
    return caught.value.code


def test_death_without_a_day_counts_on_the_snapshot(tmp_path: Path) -> None:
    data = read(write(tmp_path, people=[PEOPLE[0] | {"deceasedBoolean": True}, PEOPLE[1] | {"deceasedBoolean": False}]))
    assert (of(data, "dead"), of(data, "dead", "p2")) == (True, False)
    assert of(data, "event") is None  # not under observation to the end of the window
    assert of(data, "event", "p2") == 0


def test_observation_by_episodes_of_care(tmp_path: Path) -> None:
    episode = {"resourceType": "EpisodeOfCare", "status": "active"}
    data = read(
        write(
            tmp_path,
            episode | {"patient": P1, "period": {"start": "2020-01-01"}},
            episode | {"patient": P2, "period": {"start": "2020-01-01", "end": "2026-12-31"}},
        ),
        observed="EpisodeOfCare",
    )
    assert (of(data, "event"), of(data, "event", "p2")) == (0, None)


BAD: list[tuple[str, Json | bytes]] = [
    ("fhir-json", b"canary 4711"),
    ("fhir-json", b"[4711]"),
    ("fhir-json", b'{"a": 1'),
    ("fhir-json", b"\xef\xbb\xbf{}"),
    ("fhir-json", b'{"id": "\xff"}'),
    ("fhir-json", b'{"id": "a\0b"}'),
    ("fhir-resource", b"{}"),
    ("fhir-resource", {"resourceType": "Observation", "code": "4711", "subject": P1}),
    ("fhir-resource", seen("8480-6", quantity(1), subject=None)),
    ("fhir-resource", seen("8480-6", quantity(1), component=4711)),
    ("fhir-value", seen("8480-6", {"valueInteger": "4711"})),
    ("fhir-value", seen("8480-6", {"valueBoolean": "4711"})),
    ("fhir-value", seen("region", {"valueString": 4711}, system="local")),
    ("fhir-value", seen("8480-6", quantity("4711"))),
    ("fhir-value", seen("72166-2", {"valueCodeableConcept": coded("x", "4711")})),
    ("fhir-date", seen("8480-6", quantity(1), "4711-99-99")),
    ("fhir-date", seen("8480-6", quantity(1), effectiveDateTime=None)),
    ("fhir-unit", seen("8480-6", quantity(4711, "kPa"))),
    ("fhir-unit", seen("8480-6", {"valueQuantity": {"value": 4711}})),
    ("fhir-reference", seen("8480-6", quantity(1), subject={"reference": "Group/4711"})),
]


@pytest.mark.parametrize(("code", "bad"), BAD, ids=range(len(BAD)))
def test_a_bad_line_is_told_by_file_and_line_and_never_quoted(code: str, bad: Json | bytes, tmp_path: Path) -> None:
    good = seen("8480-6", quantity(130))
    found = findings(write(tmp_path, good, bad, good, bad))
    assert [(f.code, f.table, f.rows) for f in found] == [(code, "Observation.ndjson", (2, 4))]
    assert "fewer than 11 rows" in found[0].text()
    assert "4711" not in found[0].text()


def test_a_bad_line_stops_the_load_and_check_shows_it(tmp_path: Path) -> None:
    folder = write(tmp_path, b"canary 4711", seen("8480-6", quantity(4711, "kPa")))
    assert [f.code for f in check(source(folder), CATALOGUE, LABELS)] == ["fhir-json", "fhir-unit"]
    with pytest.raises(OperatorError, match="1 more fault") as caught:
        read(folder)
    assert caught.value.code == "fhir-json"
    assert "4711" not in f"{caught.value} {caught.value.do}"


def test_a_huge_line_is_one_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "MAX_LINE", 1000)
    folder = write(tmp_path, b'{"x": "' + b"a" * 5000 + b'"}', seen("8480-6", quantity("x")))
    found = findings(folder)
    assert [(f.code, f.rows) for f in found] == [("fhir-line-too-long", (1,)), ("fhir-value", (2,))]


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert of_code(tmp_path / "gone") == "data-missing-file"
    assert of_code(tmp_path / "empty") == "data-empty"
    folder = write(tmp_path / "x")
    (folder / "Procedure.ndjson").unlink()
    with pytest.raises(OperatorError, match="procedure_occurrence"):
        read(folder)
    assert of_code(write(tmp_path / "y", people=[])) == "data-table-missing"
    assert of_code(write(tmp_path / "z", people=[*PEOPLE, PEOPLE[0]])) == "data-duplicate-id"


def test_memory_is_bounded_by_batches_and_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, *(seen("8480-6", quantity(100 + i), f"2026-06-{i + 1:02}") for i in range(10)))
    whole = read(folder)
    monkeypatch.setattr(fhir, "BATCH", 3)
    with as_omop(source(folder)) as converted:
        assert isinstance(converted.source.path, Path)
        kept = converted.source.path
        assert len(list((kept / "measurement").iterdir())) == 4
        assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert not kept.parent.exists()
    assert read(folder).facts.equals(whole.facts)


def test_a_mapping_that_does_not_fit_its_omop_mapping_is_refused() -> None:
    unread = EXPORT.model_dump() | {"codes": {LOINC: {"1-1": {"concept": 99}}}}
    with pytest.raises(OperatorError, match="no fact reads concept 99"):
        FhirMapping.model_validate(unread).over(OMOP)
    with pytest.raises(OperatorError, match="two catalogues"):
        EXPORT.model_copy(update={"catalogue": "heart"}).over(OMOP)


def test_person_numbers_are_spread_and_fit_a_bigint() -> None:
    numbers = {person_number(f"p{i}") for i in range(20_000)}
    assert len(numbers) == 20_000
    assert max(numbers) < 2**63


def test_the_shipped_mapping_reaches_every_concept_that_its_facts_read() -> None:
    found = load_source("cardiometabolic-fhir", Path("x"))
    assert isinstance(found, FhirSource)
    mapped = {entry.concept for codes in found.export.codes.values() for entry in codes.values()}
    rows = (*found.mapping.facts.values(), *found.mapping.outcomes.values())
    assert {concept for row in rows for concept in row.concepts} == mapped


def test_a_mapping_of_ones_own_lies_beside_its_omop_mapping(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(json.dumps(EXPORT.model_dump(mode="json") | {"omop": "base.yaml"}))
    (tmp_path / "base.yaml").write_text(json.dumps(OMOP.model_dump(mode="json")))
    found = load_source(str(tmp_path / "own.yaml"), tmp_path)
    assert isinstance(found, FhirSource)
    assert found.mapping.id == "clinic-fhir"
    with pytest.raises(OperatorError, match="definition-unreadable"):
        (tmp_path / "base.yaml").unlink()
        load_source(str(tmp_path / "own.yaml"), tmp_path)
