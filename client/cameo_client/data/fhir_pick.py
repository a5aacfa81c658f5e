"""From one FHIR R4 resource to rows of OMOP tables. Pure; what cannot be used is a `BadResource` without any value."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cameo_client.data.fhir_mapping import Codes, FhirCode
from cameo_client.data.table import MAX_CELL

Json = dict[str, Any]
_GENDER: Final = {"female": 8532, "male": 8507}
_WRONG: Final = frozenset({"entered-in-error", "cancelled", "not-done", "planned", "draft", "declined", "refuted"})
_TABLE: Final = {
    "Encounter": "visit_occurrence",
    "Condition": "condition_occurrence",
    "MedicationDispense": "drug_exposure",
    "MedicationRequest": "drug_exposure",
    "Procedure": "procedure_occurrence",
}
_DAY: Final = {
    "Encounter": ("period.start",),
    "Condition": ("onsetDateTime", "onsetPeriod.start", "recordedDate"),
    "MedicationDispense": ("whenHandedOver", "whenPrepared"),
    "MedicationRequest": ("authoredOn",),
    "Procedure": ("performedDateTime", "performedPeriod.start"),
    "Observation": ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant"),
}
_PLAIN: Final = {"valueBoolean": bool, "valueInteger": int, "valueString": str}


class BadResource(Exception):
    """A resource that cannot be used. code and problem: as of `Finding`."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code)
        self.code, self.problem = code, problem


class Row(NamedTuple):
    """One row of an OMOP table. day: ISO text, perhaps without day or month. end: of observation_period only."""

    table: str
    person: int
    day: str | None
    concept: int = 0
    number: float | None = None
    text: str | None = None
    end: str | None = None


@dataclass
class Picker:
    """Picks rows by the mapping. medications: id -> codings of the `Medication` resources seen so far."""

    codes: Codes
    drugs: str
    episodes: bool
    medications: dict[str, list[Json]]

    def rows(self, resource: Json) -> list[Row]:
        """The rows of one resource; none for one that the mapping does not read or that is marked as no event."""
        kind = resource.get("resourceType")
        if not isinstance(kind, str):
            raise BadResource("fhir-resource", "have no resourceType")
        pick = self._pick(kind)
        if pick is None:
            return []
        try:
            rows = [] if _void(resource) else list(pick(resource, kind))
            if all(isinstance(text, str | None) for row in rows for text in (row.day, row.text, row.end)):
                return rows
        except (AttributeError, TypeError, KeyError, IndexError, ValueError):
            pass
        raise BadResource("fhir-resource", f"hold a {kind} that does not have the shape of FHIR R4")

    def _pick(self, kind: str) -> Callable[[Json, str], Iterable[Row]] | None:
        if kind in ("MedicationDispense", "MedicationRequest"):
            return self._event if kind == self.drugs else None
        if kind == "EpisodeOfCare":
            return self._episode if self.episodes else None
        return {
            "Patient": self._patient,
            "Observation": self._observation,
            "Medication": self._medication,
            "Encounter": self._event,
            "Condition": self._event,
            "Procedure": self._event,
        }.get(kind)

    def _patient(self, resource: Json, _: str) -> Iterator[Row]:
        key, gender = resource["id"], resource.get("gender")
        if not isinstance(key, str) or not key:
            raise BadResource("fhir-resource", "hold a Patient without an id")
        born = resource.get("birthDate")
        person = person_number(key)
        yield Row("person", person, born if born and len(born) >= 10 else None, _GENDER.get(gender or "", 0), text=key)
        died = resource.get("deceasedDateTime")
        if died or resource.get("deceasedBoolean") is True:
            yield Row("death", person, died)

    def _medication(self, resource: Json, _: str) -> Iterator[Row]:
        self.medications[resource["id"]] = resource["code"].get("coding", [])
        yield from ()

    def _episode(self, resource: Json, _: str) -> Iterator[Row]:
        period = resource["period"]
        yield Row("observation_period", _reference(resource["patient"]), period["start"], end=period.get("end"))

    def _event(self, resource: Json, kind: str) -> Iterator[Row]:
        entry = None if kind == "Encounter" else self._first(self._codings(resource, kind))
        concept = 0 if entry is None else entry.concept
        table = self.codes.table_of.get(concept, _TABLE[kind])
        yield Row(table, _reference(resource["subject"]), _day(resource, kind), concept)

    def _observation(self, resource: Json, kind: str) -> Iterator[Row]:
        """Its own value and those of its components (blood pressure is a panel); unmapped codes are passed over."""
        for part in (resource, *resource.get("component", ())):
            entry = self._first(part["code"].get("coding", ()))
            if entry is None:
                continue
            number, text = _value(part, entry)
            table = self.codes.table_of[entry.concept]
            yield Row(table, _reference(resource["subject"]), _day(resource, kind), entry.concept, number, text)

    def _codings(self, resource: Json, kind: str) -> list[Json]:
        if not kind.startswith("Medication"):
            return list(resource.get("code", {}).get("coding", ()))
        if "medicationCodeableConcept" in resource:
            return list(resource["medicationCodeableConcept"].get("coding", ()))
        reference = resource["medicationReference"]["reference"]
        if reference.startswith("#"):
            inside = [part for part in resource["contained"] if part["id"] == reference[1:]]
            return list(inside[0]["code"].get("coding", ()))
        found = self.medications.get(reference.rsplit("/", 1)[-1])
        if found is None:
            raise BadResource("fhir-reference", "name a Medication that is not in the export")
        return found

    def _first(self, codings: Iterable[Json]) -> FhirCode | None:
        """The first coding that is mapped."""
        for coding in codings:
            entry = self.codes.find(coding.get("system", ""), coding.get("code", ""))
            if entry is not None:
                return entry
        return None


def person_number(patient: str) -> int:
    """The person_id of a FHIR patient id: 63 bits of its hash, so that no table of ids has to be kept in memory."""
    return int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest(), "big") >> 1


def _void(resource: Json) -> bool:
    """Whether the sender says that it did not happen or was entered in error."""
    status = resource.get("status")
    if isinstance(status, str) and status in _WRONG:
        return True
    checked = resource.get("verificationStatus")
    codings = checked.get("coding", ()) if isinstance(checked, dict) else ()
    return any(isinstance(coding, dict) and coding.get("code") in _WRONG for coding in codings)


def _reference(reference: Json) -> int:
    """The person_id of a reference: "Patient/ID", an absolute address of one, or "urn:uuid:ID"."""
    target = reference["reference"]
    kind, _, key = target.rpartition("/")
    if kind and kind.rpartition("/")[2] != "Patient":
        raise BadResource("fhir-reference", "are about something other than a patient")
    return person_number(key.removeprefix("urn:uuid:"))


def _day(resource: Json, kind: str) -> str:
    for path in _DAY[kind]:
        outer, _, inner = path.partition(".")
        found = resource.get(outer)
        found = found.get(inner) if inner and found is not None else found
        if found is not None:
            return str(found)
    raise BadResource("fhir-date", "have no date")


def _value(part: Json, entry: FhirCode) -> tuple[float | None, str | None]:
    """The value as a number in the catalogue's unit, or as a word; (None, None) where there is none."""
    if "valueQuantity" in part:
        return _quantity(part["valueQuantity"], entry), None
    for name, kind in _PLAIN.items():
        if name in part:
            plain: bool | int | str = part[name]
            if type(plain) is not kind:
                raise BadResource("fhir-value", f"hold a {name} that is none")
            if isinstance(plain, str) and len(plain) > MAX_CELL:
                raise BadResource("fhir-value", f"hold a text of more than {MAX_CELL} characters")
            return (None, plain) if isinstance(plain, str) else (float(plain), None)
    if "valueCodeableConcept" in part:
        for coding in part["valueCodeableConcept"].get("coding", ()):
            meant = entry.values.get(coding.get("code"))
            if meant is not None:
                return (None, meant) if isinstance(meant, str) else (meant, None)
        raise BadResource("fhir-value", "hold a coded value that is not in the mapping")
    return None, None


def _quantity(quantity: Json, entry: FhirCode) -> float | None:
    value, unit = quantity.get("value"), quantity.get("code", quantity.get("unit", ""))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadResource("fhir-value", "hold a quantity that is no number")
    if not entry.units:
        return float(value)
    if unit not in entry.units:
        raise BadResource("fhir-unit", "hold a quantity in a unit that the mapping does not know for this code")
    return value * entry.units[unit]
