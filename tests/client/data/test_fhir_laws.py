"""Whatever stands in an export, it becomes rows or findings; and no later event changes a fact."""

from __future__ import annotations

import contextlib
import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from fhir_kit import LOINC, P1, coded, ill, quantity, read, seen, source, write
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.data.fhir import as_omop
from cameo_client.data.fhir_mapping import Codes
from cameo_client.data.fhir_pick import BadResource, Picker

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "id", "status", "subject", "patient", "code", "period", "component", "contained", "birthDate", "gender",
    "valueQuantity", "valueString", "valueBoolean", "valueInteger", "valueCodeableConcept", "effectiveDateTime",
    "onsetDateTime", "medicationReference", "medicationCodeableConcept", "verificationStatus", "deceasedBoolean",
    "deceasedDateTime", "whenHandedOver",
)  # fmt: skip
KINDS = ("Patient", "Observation", "Encounter", "Condition", "Procedure", "MedicationDispense", "Medication")
BASE: dict[str, Any] = {
    "id": "a", "subject": P1, "code": coded(LOINC, "8480-6"), "effectiveDateTime": "2026-01-01", **quantity(120),
}  # fmt: skip
resources = st.builds(
    lambda kind, changes: BASE | changes | {"resourceType": kind},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4),
)


@given(resources)
def test_any_resource_is_rows_or_a_finding(resource: dict[str, Any]) -> None:
    picker = Picker(Codes(source(Path("x"))), "MedicationDispense", True, {})
    rows = []
    with contextlib.suppress(BadResource):
        rows = picker.rows(resource)
    for row in rows:
        assert 0 <= row.person < 2**63
        assert all(isinstance(text, str | None) for text in (row.day, row.text, row.end))
        assert isinstance(row.number, float | None)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=60) | resources.map(lambda body: json.dumps(body).encode()), max_size=6))
def test_any_file_is_tables_and_findings(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), *(line.replace(b"\n", b" ") for line in lines))
        with as_omop(source(Path(folder))) as converted:
            numbers = [number for finding in converted.findings for number in finding.rows]
            assert all(1 <= number <= len(lines) for number in numbers)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.dates(min_value=date(2026, 7, 1)).map(str), max_size=5))
def test_rows_of_the_future_stay_out_of_the_facts(days: list[str]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        past = (seen("8480-6", quantity(120)), ill("2020-01-01"))
        later = [event for day in days for event in (seen("8480-6", quantity(190), day), ill(day))]
        assert read(write(Path(one), *past)).facts.equals(read(write(Path(two), *past, *later)).facts)
