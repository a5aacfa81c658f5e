"""The same made-up patients as a FHIR R4 bulk export: each OMOP row is one resource, coded as the FHIR mapping says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl

from cameo_client.data.fhir_mapping import FhirCode, FhirMapping
from cameo_client.data.omop_mapping import CONCEPT_COLUMN, DATE_COLUMN
from cameo_lab.generate.sinks import Tables

Json = dict[str, Any]
TEST_DATA: Final = {"tag": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}]}
_GENDER: Final = {8532: "female", 8507: "male"}


class FhirSink:
    """`folder`/TYPE.ndjson. Every resource is tagged HTEST, FHIR's own mark of test data."""

    def __init__(self, folder: Path, mapping: FhirMapping) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._codes: dict[int, tuple[str, str, FhirCode]] = {}
        for system, codes in mapping.codes.items():
            for code, entry in codes.items():
                self._codes.setdefault(entry.concept, (system, code.rstrip("*"), entry))

    def write(self, tables: Tables) -> None:
        """Append the resources of a chunk."""
        persons = tables["person"]
        names = dict(zip(persons["person_id"], persons["person_source_value"], strict=True))
        deaths = dict(tables["death"].select("person_id", "death_date").rows()) if "death" in tables else {}
        self._append("Patient", _patients(persons, deaths))
        periods = tables["observation_period"].iter_rows(named=True)
        self._append("EpisodeOfCare", (_episode(row, names) for row in periods))
        for table, kind, make in (
            ("visit_occurrence", "Encounter", self._encounter),
            ("condition_occurrence", "Condition", self._condition),
            ("drug_exposure", "MedicationDispense", self._dispense),
            ("procedure_occurrence", "Procedure", self._procedure),
            ("measurement", "Observation", self._observation),
            ("observation", "Observation", self._observation),
        ):
            self._append(kind, self._events(tables.get(table), table, names, make))

    def close(self) -> None:
        """Nothing is left to do."""

    def _append(self, kind: str, resources: Iterable[Json]) -> None:
        with (self._folder / f"{kind}.ndjson").open("ab") as file:
            for resource in resources:
                file.write(
                    orjson.dumps({"resourceType": kind, "meta": TEST_DATA} | resource, option=orjson.OPT_APPEND_NEWLINE)
                )

    def _events(
        self, frame: pl.DataFrame | None, table: str, names: dict[int, str], make: Callable[[Json, str, int], Json]
    ) -> Iterator[Json]:
        for row in () if frame is None else frame.iter_rows(named=True):
            base = {
                "id": f"{table.replace('_', '-')}-{row[f'{table}_id']}",
                "subject": {"reference": f"Patient/{names[row['person_id']]}"},
            }
            yield base | make(row, str(row[DATE_COLUMN[table]]), row[CONCEPT_COLUMN[table]])

    def _coding(self, concept: int) -> Json:
        if concept not in self._codes:
            return {"text": "made up"}
        system, code, _ = self._codes[concept]
        return {"coding": [{"system": system, "code": code}]}

    def _encounter(self, _row: Json, day: str, _concept: int) -> Json:
        ambulatory = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}
        return {"status": "finished", "class": ambulatory, "period": {"start": day}}

    def _condition(self, _row: Json, day: str, concept: int) -> Json:
        return {"code": self._coding(concept), "onsetDateTime": day}

    def _dispense(self, _row: Json, day: str, concept: int) -> Json:
        return {"status": "completed", "medicationCodeableConcept": self._coding(concept), "whenHandedOver": day}

    def _procedure(self, _row: Json, day: str, concept: int) -> Json:
        return {"status": "completed", "code": self._coding(concept), "performedDateTime": day}

    def _observation(self, row: Json, day: str, concept: int) -> Json:
        coded = {"status": "final", "code": self._coding(concept), "effectiveDateTime": day}
        return coded | _value(row["value_as_number"], row.get("value_as_string"), self._codes[concept][2])


def _value(number: float | None, text: str | None, entry: FhirCode) -> Json:
    if text is not None:
        return {"valueString": text}
    if number is None:
        return {}
    if entry.values:
        code = next(code for code, meant in entry.values.items() if meant == number)
        return {"valueCodeableConcept": {"coding": [{"system": "http://snomed.info/sct", "code": code}]}}
    unit = next((unit for unit, factor in entry.units.items() if factor == 1), None)
    marked = {} if unit is None else {"unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    return {"valueQuantity": {"value": number} | marked}


def _patients(persons: pl.DataFrame, deaths: dict[int, Any]) -> Iterator[Json]:
    for row in persons.iter_rows(named=True):
        died = deaths.get(row["person_id"])
        yield {
            "id": row["person_source_value"],
            "gender": _GENDER[row["gender_concept_id"]],
            "birthDate": f"{row['birth_datetime'].date():%Y-%m-%d}".zfill(10),
            **({} if died is None else {"deceasedDateTime": str(died)}),
        }


def _episode(row: Json, names: dict[int, str]) -> Json:
    start, end = row["observation_period_start_date"], row["observation_period_end_date"]
    name = names[row["person_id"]]
    return {
        "id": f"EpisodeOfCare-{name}",
        "status": "finished",
        "patient": {"reference": f"Patient/{name}"},
        "period": {"start": str(start), "end": str(end)},
    }
