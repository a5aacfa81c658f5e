"""What hospitals really have in their exports, over every kind of source: a code, table, column and count, no value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from fhir_kit import CATALOGUE, EXPORT, KEY, LABELS, OMOP

from cameo_client.data.fhir_mapping import FhirSource
from cameo_client.data.findings import Finding
from cameo_client.data.hospital import inspect
from cameo_client.data.source import Database, OmopSource, SourceConfig, TableMapping, TableSource
from cameo_lab.local_postgres import copy_tables, local_postgres
from cameo_protocol.errors import ExitCode, OperatorError

TODAY, SNAPSHOT = date(2026, 11, 24), date(2000, 1, 1)
PEOPLE = 24
UNRECORDED = ("dbp", "ldl", "smoker", "region")
CANARY = 4711.25
Frames = dict[str, pl.DataFrame]
REFUSE = OMOP.model_copy(update={"snapshot": SNAPSHOT})


def tables() -> Frames:
    """24 persons with one measurement each, every second with the diagnosis after the snapshot."""
    ids = list(range(1, PEOPLE + 1))
    day = SNAPSHOT - timedelta(days=30)
    events = {"person_id": ids, "day": [day] * PEOPLE}
    bare = pl.DataFrame(events)

    def shaped(table: str, concept: str, when: str, kind: int, rows: pl.DataFrame = bare) -> pl.DataFrame:
        return rows.select(
            pl.int_range(1, rows.height + 1, dtype=pl.Int64).alias(f"{table}_id"), "person_id",
            pl.lit(kind, dtype=pl.Int64).alias(concept), pl.col("day").alias(when),
        )  # fmt: skip

    later = pl.DataFrame({"person_id": ids[::2], "day": [SNAPSHOT + timedelta(days=90)] * (PEOPLE // 2)})
    values = {"value_as_number": [120.0 + i for i in ids]}
    no_value = pl.DataFrame(schema={"value_as_number": pl.Float64, "value_as_string": pl.String})
    return {
        "person": pl.DataFrame({
            "person_id": ids, "gender_concept_id": [8507, 8532] * (PEOPLE // 2),
            "birth_datetime": [datetime(1950, 1, 1) + timedelta(days=400 * i) for i in ids],
        }),
        "measurement": shaped("measurement", "measurement_concept_id", "measurement_date", 1).with_columns(
            pl.DataFrame(values)["value_as_number"], unit_concept_id=pl.lit(8876, dtype=pl.Int64)),
        "condition_occurrence": shaped(
            "condition_occurrence", "condition_concept_id", "condition_start_date", 6, later),
        "drug_exposure": shaped("drug_exposure", "drug_concept_id", "drug_exposure_start_date", 7),
        "visit_occurrence": shaped("visit_occurrence", "visit_concept_id", "visit_start_date", 0),
        "procedure_occurrence": shaped("procedure_occurrence", "procedure_concept_id", "procedure_date", 0),
        "observation": pl.concat([shaped("observation", "observation_concept_id", "observation_date", 8),
                                  no_value], how="diagonal"),
        "death": pl.DataFrame({"person_id": [1], "death_date": [day]}),
        "observation_period": pl.DataFrame(
            {"person_id": ids, "observation_period_end_date": [SNAPSHOT + timedelta(days=900)] * PEOPLE}),
    }  # fmt: skip


def at(frame: pl.DataFrame, column: str, value: object, rows: int = 3) -> pl.DataFrame:
    """The column's first rows take another value."""
    first = pl.int_range(pl.len()) < rows
    return frame.with_columns(pl.when(first).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


Change = Callable[[Frames], Frames]


def in_table(table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Change:
    return lambda frames: frames | {table: change(frames[table])}


@dataclass(frozen=True)
class Fault:
    """What is wrong, and how it shows. stops: whether nothing is loaded because of it."""

    change: Change
    code: str
    words: str
    stops: bool = True


FUTURE, LONG_AGO = date(2099, 1, 1), date(1900, 1, 1)
FAULTS: dict[str, Fault] = {
    "future dates": Fault(
        in_table("measurement", lambda f: at(f, "measurement_date", FUTURE)), "data-future-date",
        "measurement, column measurement_date: fewer than 11 rows"),
    "many future dates": Fault(
        in_table("measurement", lambda f: at(f, "measurement_date", FUTURE, 12)), "data-future-date", "12 rows"),
    "a missing table": Fault(
        lambda frames: {name: f for name, f in frames.items() if name != "death"}, "data-table-missing", "table death"),
    "a missing column": Fault(
        in_table("measurement", lambda f: f.drop("value_as_number")), "data-column-missing",
        "table measurement has no column value_as_number"),
    "an empty table": Fault(
        in_table("measurement", lambda f: f.clear()), "data-table-empty", "measurement: no rows", stops=False),
    "nobody": Fault(in_table("person", lambda f: f.clear()), "data-empty", "person is empty"),
    "one patient": Fault(
        lambda frames: {n: f.filter(pl.col("person_id") == 1) for n, f in frames.items()}, "data-too-few-patients",
        "fewer than 2"),
    "a column of nulls": Fault(
        in_table("measurement", lambda f: f.with_columns(pl.lit(None, pl.Float64).alias("value_as_number"))),
        "data-column-empty", "column sbp: 24 rows", stops=False),
    "one label only": Fault(
        in_table("condition_occurrence", lambda f: f.clear()), "data-one-outcome", "column event: 24 rows",
        stops=False),
    "a person twice": Fault(
        in_table("person", lambda f: pl.concat([f, f.head(2)])), "data-duplicate-id",
        "person, column person_id: fewer than 11 rows"),
    "a row twice": Fault(
        in_table("visit_occurrence", lambda f: pl.concat([f, f.head(4)])), "data-duplicate-row",
        "visit_occurrence, column visit_occurrence_id: fewer than 11 rows"),
    "mixed units": Fault(
        in_table("measurement", lambda f: at(f, "unit_concept_id", 8840)), "data-mixed-units",
        "measurement, column sbp: fewer than 11 rows"),
    "rows of nobody": Fault(
        in_table("drug_exposure", lambda f: at(f, "person_id", 4711)), "data-person-unknown",
        "drug_exposure, column person_id: fewer than 11 rows"),
    "before birth": Fault(
        in_table("visit_occurrence", lambda f: at(f, "visit_start_date", LONG_AGO)), "data-before-birth",
        "visit_occurrence, column visit_start_date: fewer than 11 rows", stops=False),
    "long after death": Fault(
        in_table("death", lambda f: f.with_columns(death_date=pl.lit(date(1998, 1, 1)))), "data-after-death",
        "column drug_exposure_start_date: fewer than 11 rows", stops=False),
    "an impossible value": Fault(
        in_table("measurement", lambda f: at(f, "value_as_number", CANARY * 1e6)), "data-impossible",
        "column sbp: fewer than 11 rows"),
}  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with local_postgres() as address:
        yield address


def placed(kind: str, frames: Frames, root: Path, url: str) -> SourceConfig:
    """The tables as a source of one kind."""
    if kind in ("parquet", "csv"):
        for name, frame in frames.items():
            frame.write_parquet(root / f"{name}.parquet") if kind == "parquet" else frame.write_csv(
                root / f"{name}.csv"
            )
        return OmopSource(mapping=REFUSE, path=root)
    file = root / "cdm.duckdb"
    with duckdb.connect(str(file)) as db:
        for name, frame in frames.items():
            frame.write_parquet(root / "one.parquet")
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{root}/one.parquet')")
    if kind == "duckdb":
        return OmopSource(mapping=REFUSE, path=file)
    copy_tables(file, url, "cdm")
    return OmopSource(mapping=REFUSE, path=Database(url=f"{url}&options=-csearch_path%3Dcdm"))


def told(source: SourceConfig) -> tuple[str, str, tuple[Finding, ...]]:
    """The code and words with which a load is refused (empty: it is not), and everything that is found."""
    every: tuple[Finding, ...] = ()
    try:
        found = inspect(source, CATALOGUE, LABELS, today=TODAY)
        every = (*found.unusable, *found.doubtful, *found.notes)
        found.data(KEY)
    except OperatorError as error:
        return sound(error).code, error.what, every
    return "", "", every


def sound(error: OperatorError) -> OperatorError:
    """An error as all of them must be: of the data, without a value, with a next step."""
    assert error.exit_code is ExitCode.DATA
    assert error.__cause__ is None
    assert error.do
    assert "4711" not in f"{error} {error.do}"
    return error


@pytest.mark.parametrize("kind", ["duckdb", "parquet", "csv", "postgresql"])
def test_a_sound_omop_source_has_no_fault(kind: str, tmp_path: Path, url: str) -> None:
    code, _, every = told(placed(kind, tables(), tmp_path, url))
    assert code == ""
    assert {(f.code, f.column) for f in every} == {("data-column-empty", name) for name in UNRECORDED}


@pytest.mark.parametrize("kind", ["duckdb", "parquet", "csv", "postgresql"])
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_omop_tables_is_told(name: str, kind: str, tmp_path: Path, url: str) -> None:
    fault = FAULTS[name]
    code, what, every = told(placed(kind, fault.change(tables()), tmp_path, url))
    if fault.stops:
        assert (code, fault.words in what) == (fault.code, True), what
    else:
        assert code == ""
        texts = [finding.text() for finding in every if finding.code == fault.code]
        assert any(fault.words in text for text in texts), texts


TEXT = "person_id,sbp,dx,out\n" + "".join(f"p{i},{120 + i},{i % 2},{i % 2}\n" for i in range(24))
MAPPING = TableMapping.model_validate({
    "id": "clinic", "version": 1, "title": "Clinic", "catalogue": "tiny", "person_id": "person_id",
    "facts": {"sbp": "sbp", "dx": "dx", **{n: f"{n}_column" for n in ("fills", "visits", "surgery", "grief", "dead")}},
    "outcomes": {"event": {"column": "out", "window_days": 365}},
})  # fmt: skip
ZEROS = ("fills", "visits", "surgery", "grief", "dead")
BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "byte-order mark": (lambda data: b"\xef\xbb\xbf" + data, "data-encoding"),
    "NUL": (lambda data: data[:40] + b"\0" + data[40:], "data-nul"),
    "another delimiter": (lambda data: data.replace(b",", b";"), "data-delimiter"),
    "a cell of a million characters": (lambda data: data + b"4711" * 250_000 + b",1\n", "data-line-too-long"),
    "no UTF-8": (lambda data: data + b"\xff,1\n", "data-encoding"),
}


def flat(text: str = TEXT) -> str:
    """With the columns that may not be missing."""
    head, *rows = text.splitlines()
    return "\n".join([",".join([head, *(f"{n}_column" for n in ZEROS)]), *(f"{row},0,0,0,0,0" for row in rows)]) + "\n"


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("kind", ["table", "omop csv"])
def test_each_fault_of_bytes_is_told(name: str, kind: str, tmp_path: Path) -> None:
    change, expected = BYTES[name]
    if kind == "table":
        file = tmp_path / "clinic.csv"
        file.write_text(flat())
        source: SourceConfig = TableSource(mapping=MAPPING, path=file)
    else:
        source = placed("csv", tables(), tmp_path, "")
        file = tmp_path / "measurement.csv"
    assert told(source)[0] == ""
    file.write_bytes(change(file.read_bytes()))
    code, what, _ = told(source)
    assert (code, file.name in what) == (expected, True), what


def bundle(folder: Path, *lines: bytes) -> FhirSource:
    """24 patients with a blood pressure each, every second with the diagnosis later; then the lines as they are."""
    folder.mkdir(exist_ok=True)
    snapshot = EXPORT.snapshot
    patients = [{"resourceType": "Patient", "id": f"p{i}", "gender": "male", "birthDate": f"19{50 + i}-01-01"}
                for i in range(PEOPLE)]  # fmt: skip
    readings = [
        {"resourceType": "Observation", "status": "final", "subject": {"reference": f"Patient/p{i}"},
         "effectiveDateTime": str(snapshot - timedelta(days=9)), "valueQuantity": {"value": 120 + i, "code": "mm[Hg]"},
         "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}} for i in range(PEOPLE)
    ]  # fmt: skip
    ill: list[dict[str, Any]] = [
        {"resourceType": "Condition", "subject": {"reference": f"Patient/p{i}"},
         "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "E11.9"}]},
         "onsetDateTime": str(snapshot + timedelta(days=90))} for i in range(0, PEOPLE, 2)
    ]  # fmt: skip
    for kind in ("Encounter", "MedicationDispense", "Procedure"):
        (folder / f"{kind}.ndjson").write_bytes(b"")
    for name, rows in (("Patient", patients), ("Observation", readings), ("Condition", ill)):
        (folder / f"{name}.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "Observation.ndjson").open("ab") as file:
        file.writelines(lines)
    return FhirSource(export=EXPORT, mapping=EXPORT.over(OMOP), path=folder)


def reading(**changes: object) -> bytes:
    body: dict[str, object] = {
        "resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-06-01", "valueQuantity": {"value": CANARY, "code": "mm[Hg]"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
    }  # fmt: skip
    return json.dumps(body | changes).encode() + b"\n"


LINES: dict[str, tuple[bytes, str]] = {
    "byte-order mark": (b"\xef\xbb\xbf" + reading(), "fhir-json"),
    "NUL": (reading().replace(b"final", b"fi\0nal"), "fhir-json"),
    "no JSON but CSV": (b"p1;4711;2026-01-01\n", "fhir-json"),
    "mixed units": (reading(valueQuantity={"value": CANARY, "code": "kPa"}), "fhir-unit"),
    "a future date": (reading(effectiveDateTime="2099-01-01"), "data-future-date"),
    "a date that is none": (reading(effectiveDateTime="4711-31-31"), "fhir-date"),
    "a text of a million characters": (
        reading(valueString="4711" * 250_000, valueQuantity=None).replace(b'"valueQuantity": null, ', b""),
        "fhir-value",
    ),
    "a reading of nobody": (reading(subject={"reference": "Patient/p4711"}), "data-person-unknown"),
}


@pytest.mark.parametrize("name", LINES)
def test_each_fault_of_fhir_lines_is_told(name: str, tmp_path: Path) -> None:
    line, expected = LINES[name]
    assert told(bundle(tmp_path / "sound"))[0] == ""
    code, what, _ = told(bundle(tmp_path / "bad", line))
    assert (code, "fewer than 11 rows" in what) == (expected, True), what
    assert "Observation.ndjson" in what or "measurement" in what


def test_a_patient_twice_in_a_fhir_export(tmp_path: Path) -> None:
    source = bundle(tmp_path)
    with (tmp_path / "Patient.ndjson").open("a") as file:
        file.write('{"resourceType":"Patient","id":"p1","gender":"male"}\n')
    code, what, _ = told(source)
    assert (code, "fewer than 11 rows" in what) == ("data-duplicate-id", True)


TABLES: dict[str, tuple[str, str, str]] = {
    "header only": (TEXT.splitlines()[0] + "\n", "data-empty", "no rows"),
    "one patient": ("\n".join(TEXT.splitlines()[:2]) + "\n", "data-too-few-patients", "fewer than 2"),
    "an id twice": (TEXT + "p1,120,0,1\n", "data-duplicate-id", "column person_id: fewer than 11 rows"),
    "a unit in the cell": (TEXT + "p99,140 mmHg,0,1\n", "data-type", "column sbp: fewer than 11 rows"),
    "another unit": (TEXT + "p99,1400000000,0,1\n", "data-impossible", "column sbp: fewer than 11 rows"),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_fault_of_a_flat_table_is_told(name: str, tmp_path: Path) -> None:
    text, expected, words = TABLES[name]
    (tmp_path / "clinic.csv").write_text(flat(text))
    code, what, _ = told(TableSource(mapping=MAPPING, path=tmp_path / "clinic.csv"))
    assert (code, words in what) == (expected, True), what


def test_an_empty_column_and_one_outcome_of_a_flat_table_are_noted(tmp_path: Path) -> None:
    rows = [f"p{i},,{i % 2},1" for i in range(24)]
    (tmp_path / "clinic.csv").write_text(flat("\n".join([TEXT.splitlines()[0], *rows])))
    code, _, every = told(TableSource(mapping=MAPPING, path=tmp_path / "clinic.csv"))
    assert code == ""
    assert {(f.code, f.column, len(f.rows)) for f in every} == {
        ("data-column-empty", "sbp", 24), ("data-one-outcome", "event", 24),
    }  # fmt: skip
