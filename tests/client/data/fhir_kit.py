"""A small catalogue, its mappings, and how tests write FHIR exports."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from cameo_client.data.fhir import as_omop
from cameo_client.data.fhir_mapping import FhirMapping, FhirSource
from cameo_client.data.findings import Finding
from cameo_client.data.hospital import HospitalData, load
from cameo_client.data.omop_mapping import OmopMapping
from cameo_client.data.pseudonyms import pseudonym
from cameo_protocol.facts import Catalogue, Derivation, Fact, LabelDefinition

KEY = bytes(range(32))
SNAPSHOT = date(2026, 6, 30)
LOINC, ICD, ATC = "http://loinc.org", "http://hl7.org/fhir/sid/icd-10", "http://www.whocc.no/atc"
Json = dict[str, Any]


def fact(name: str, how: str, lookback: int | None = None, **more: object) -> Fact:
    body = {"type": "float", "group": "dynamic", "plausible": (-1e6, 1e6)} | more
    return Fact(name=name, meaning="A fact", derive=Derivation(how=how, lookback_days=lookback), **body)  # type: ignore[arg-type]


FLAG = {"type": "bool", "plausible": None, "missing": False}
CATALOGUE = Catalogue(
    id="tiny", version=1, title="Tiny",
    facts=(
        fact("age", "given", unit="years"),
        fact("sex", "given", type="enum", values=("female", "male"), plausible=None),
        fact("sbp", "last", 365), fact("dbp", "last", 365), fact("ldl", "last", 365),
        fact("smoker", "last", type="bool", plausible=None),
        fact("region", "last", type="enum", values=("town", "land"), plausible=None),
        fact("dx", "ever", **FLAG), fact("fills", "count", 90, type="int", missing=False),
        fact("visits", "count", 365, type="int", missing=False), fact("surgery", "ever", 30, **FLAG),
        fact("grief", "ever", **FLAG), fact("dead", "ever", **FLAG),
    ),
)  # fmt: skip
LABELS = (LabelDefinition(id="event", version=1, meaning="Event", catalogue="tiny", outcome="event", window_days=365),)
OMOP = OmopMapping.model_validate({
    "id": "o", "version": 1, "title": "O", "kind": "omop", "catalogue": "tiny", "snapshot": date(2000, 1, 1),
    "facts": {
        "age": {"table": "person", "value": "birth_datetime"},
        "sex": {"table": "person", "value": "gender_concept_id", "values": {"8507": "male", "8532": "female"}},
        "sbp": {"table": "measurement", "concepts": [1], "value": "value_as_number"},
        "dbp": {"table": "measurement", "concepts": [2], "value": "value_as_number"},
        "ldl": {"table": "measurement", "concepts": [3], "value": "value_as_number"},
        "smoker": {"table": "observation", "concepts": [4], "value": "value_as_number"},
        "region": {"table": "observation", "concepts": [5], "value": "value_as_string"},
        "dx": {"table": "condition_occurrence", "concepts": [6]},
        "fills": {"table": "drug_exposure", "concepts": [7]},
        "visits": {"table": "visit_occurrence"},
        "surgery": {"table": "procedure_occurrence"},
        "grief": {"table": "observation", "concepts": [8]},
        "dead": {"table": "death"},
    },
    "outcomes": {"event": {"table": "condition_occurrence", "concepts": [6], "within_days": 365}},
})  # fmt: skip
EXPORT = FhirMapping.model_validate({
    "id": "clinic-fhir", "version": 1, "title": "F", "kind": "fhir", "catalogue": "tiny", "omop": "o",
    "snapshot": SNAPSHOT, "observed_until": date(2028, 1, 1),
    "codes": {
        LOINC: {
            "8480-6": {"concept": 1, "units": {"mm[Hg]": 1}}, "8462-4": {"concept": 2, "units": {"mm[Hg]": 1}},
            "22748-8": {"concept": 3, "units": {"mmol/L": 1}}, "13457-7": {"concept": 3, "units": {"mg/dL": 0.5}},
            "72166-2": {"concept": 4, "values": {"449868002": 1, "266919005": 0}},
        },
        "local": {"region": {"concept": 5}},
        ICD: {"E11*": {"concept": 6}, "E11.9x": {"concept": 8}, "Z63.4": {"concept": 8}},
        ATC: {"A10BA02": {"concept": 7}},
    },
})  # fmt: skip
P1, P2 = {"reference": "Patient/p1"}, {"reference": "https://ehr.example/fhir/Patient/p2"}
PEOPLE: list[Json] = [
    {"resourceType": "Patient", "id": "p1", "gender": "male", "birthDate": "1956-06-30"},
    {"resourceType": "Patient", "id": "p2", "gender": "female", "birthDate": "1990-01-01"},
]
NOTHING = {"Encounter": [], "Condition": [], "MedicationDispense": [], "Procedure": [], "Observation": []}


def coded(system: str, code: str) -> Json:
    return {"coding": [{"system": "other", "code": "x"}, {"system": system, "code": code}]}


def seen(code: str, value: Json, day: str = "2026-06-01", system: str = LOINC, **more: object) -> Json:
    about = {"resourceType": "Observation", "status": "final", "subject": P1, "effectiveDateTime": day}
    return about | {"code": coded(system, code)} | value | more


def quantity(value: object, unit: str = "mm[Hg]") -> Json:
    return {"valueQuantity": {"value": value, "code": unit}}


def ill(day: str, code: str = "E11.9", subject: Json = P1, **more: object) -> Json:
    return {"resourceType": "Condition", "subject": subject, "code": coded(ICD, code), "onsetDateTime": day} | more


def write(folder: Path, *resources: Json | bytes, people: list[Json] = PEOPLE) -> Path:
    """One file a type; raw bytes go into Observation.ndjson as they are."""
    folder.mkdir(exist_ok=True)
    files: dict[str, list[bytes]] = {kind: [] for kind in NOTHING}
    for resource in (*people, *resources):
        kind = "Observation" if isinstance(resource, bytes) else resource["resourceType"]
        line = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
        files.setdefault(kind, []).append(line)
    for kind, lines in files.items():
        (folder / f"{kind}.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def source(folder: Path, **changes: object) -> FhirSource:
    export = EXPORT.model_copy(update=changes)
    return FhirSource(export=export, mapping=export.over(OMOP), path=folder)


def read(folder: Path, **changes: object) -> HospitalData:
    return load(source(folder, **changes), CATALOGUE, LABELS, KEY)


def findings(folder: Path) -> tuple[Finding, ...]:
    with as_omop(source(folder)) as converted:
        return converted.findings


def of(data: HospitalData, name: str, person: str = "p1") -> object:
    frame = data.facts if name in data.facts.columns else data.outcomes
    return frame.filter(pl.col("pseudonym") == pseudonym(KEY, person))[name].item()
