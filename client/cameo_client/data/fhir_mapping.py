"""A FHIR R4 bulk export as a source: which codes are which concepts, and in which units their values may come.

The facts themselves are derived as from OMOP: the mapping names an OMOP mapping, and the export becomes the tables that
it reads. Public configuration, like every mapping.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from cameo_client.data.omop_mapping import OmopMapping, OmopRows
from cameo_protocol.errors import OperatorError


class FhirCode(BaseModel, frozen=True, extra="forbid"):
    """What one code means. concept: the concept id of the OMOP mapping.

    units: UCUM unit -> factor into the catalogue's unit; a value in another unit, or in none, is a fault. Empty: values
    of this code have no unit. values: code of a coded value -> the number or word the OMOP mapping reads.
    """

    concept: int = Field(ge=1)
    units: dict[str, float] = {}
    values: dict[str, float | str] = {}


class FhirMapping(BaseModel, frozen=True, extra="forbid"):
    """How a bulk export (NDJSON) becomes the OMOP tables of the mapping `omop`: a name in conf/sources, or FILE.yaml.

    codes: system -> code -> meaning; a code that ends in * stands for all that begin with it (ICD-10, ATC), and an
    exact one goes before it. drugs: which resource is a drug exposure; the others are not counted. observed_until: the
    day of the export. observed: everyone was under observation until then (or death), or as `EpisodeOfCare.period`
    says. The other fields are those of `OmopMapping` and take the place of its own.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    title: str
    kind: Literal["fhir"]
    catalogue: str
    omop: str
    synthetic: bool = False
    snapshot: date
    max_age_days: int | None = Field(default=None, ge=1)
    impossible: Literal["refuse", "clear"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"
    contradictions: Literal["score", "clear"] = "score"
    observed_until: date
    observed: Literal["everyone", "EpisodeOfCare"] = "everyone"
    drugs: Literal["MedicationDispense", "MedicationRequest"] = "MedicationDispense"
    codes: dict[str, dict[str, FhirCode]] = Field(min_length=1)

    def over(self, omop: OmopMapping) -> OmopMapping:
        """The OMOP mapping that reads the tables made from the export."""
        read = {rows.concepts for rows in (*omop.facts.values(), *omop.outcomes.values())}
        known = {concept for concepts in read for concept in concepts}
        mapped = {entry.concept for codes in self.codes.values() for entry in codes.values()}
        if omop.catalogue != self.catalogue or mapped - known:
            raise OperatorError(
                "source-mismatch",
                what=f"source {self.id} and the OMOP mapping {omop.id} do not belong together: "
                + (f"no fact reads concept {min(mapped - known)}" if mapped - known else "they name two catalogues"),
                do="correct `omop`, `catalogue` or the concept in the mapping",
            )
        own = (
            "id",
            "version",
            "title",
            "synthetic",
            "snapshot",
            "max_age_days",
            "impossible",
            "duplicates",
            "contradictions",
        )
        return omop.model_copy(
            update={name: getattr(self, name) for name in own} | {"person_id": "person_source_value"}
        )


class FhirSource(BaseModel, frozen=True, extra="forbid"):
    """A bulk export: a folder of *.ndjson files. mapping: of the tables made from it (`FhirMapping.over`)."""

    export: FhirMapping
    mapping: OmopMapping
    path: Path


class Codes:
    """Look-up of codings. table_of: concept id -> the OMOP table whose rows carry it."""

    def __init__(self, source: FhirSource) -> None:
        self._exact: dict[tuple[str, str], FhirCode] = {}
        self._prefix: dict[str, list[tuple[str, FhirCode]]] = {}
        for system, codes in source.export.codes.items():
            for code, entry in codes.items():
                if code.endswith("*"):
                    self._prefix.setdefault(system, []).append((code[:-1], entry))
                else:
                    self._exact[system, code] = entry
        rows: tuple[OmopRows, ...] = (*source.mapping.facts.values(), *source.mapping.outcomes.values())
        self.table_of = {concept: row.table for row in rows for concept in row.concepts}

    def find(self, system: str, code: str) -> FhirCode | None:
        """The meaning of a code: the exact one, else the longest prefix; None when it is not mapped."""
        found = self._exact.get((system, code))
        if found is None:
            fits = [(len(start), entry) for start, entry in self._prefix.get(system, ()) if code.startswith(start)]
            found = max(fits, key=lambda pair: pair[0])[1] if fits else None
        return found
