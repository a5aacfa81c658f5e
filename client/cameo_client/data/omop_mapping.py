"""An OMOP CDM 5.4 source: which rows of which tables a fact or an outcome is derived from.

Public configuration, like the mapping of a flat table. How a fact follows from its rows (last value, count, streak,
and the window) is the catalogue's; here stands only where the rows are. No SQL stands in a mapping: tables and fields
come from the lists below and concepts are numbers.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from cameo_client.data.database import Database
from cameo_client.data.table_mapping import Column, TableMapping
from cameo_protocol.facts import Catalogue

Table = Literal[
    "person", "visit_occurrence", "condition_occurrence", "measurement", "drug_exposure", "procedure_occurrence",
    "observation", "death",
]  # fmt: skip
Value = Literal["value_as_number", "value_as_string", "value_as_concept_id", "birth_datetime", "gender_concept_id"]
NUMBERS = ("value_as_number",)
DATE_COLUMN: dict[str, str] = {
    "visit_occurrence": "visit_start_date",
    "condition_occurrence": "condition_start_date",
    "measurement": "measurement_date",
    "drug_exposure": "drug_exposure_start_date",
    "procedure_occurrence": "procedure_date",
    "observation": "observation_date",
    "death": "death_date",
}
CONCEPT_COLUMN: dict[str, str] = {
    "visit_occurrence": "visit_concept_id",
    "condition_occurrence": "condition_concept_id",
    "measurement": "measurement_concept_id",
    "drug_exposure": "drug_concept_id",
    "procedure_occurrence": "procedure_concept_id",
    "observation": "observation_concept_id",
}
# Every column that is ever read, with its type: DuckDB reads no other from a CSV file.
COLUMN_TYPE: dict[str, str] = {
    **dict.fromkeys(("person_id", "gender_concept_id", "value_as_concept_id"), "BIGINT"),
    **dict.fromkeys(("ancestor_concept_id", "descendant_concept_id", *CONCEPT_COLUMN.values()), "BIGINT"),
    **{f"{table}_id": "BIGINT" for table in CONCEPT_COLUMN},
    **dict.fromkeys(("observation_period_end_date", *DATE_COLUMN.values()), "DATE"),
    "birth_datetime": "TIMESTAMP",
    "value_as_number": "DOUBLE",
    "unit_concept_id": "BIGINT",
    "value_as_string": "VARCHAR",
    "person_source_value": "VARCHAR",
}
_VALUES: dict[str, tuple[str, ...]] = {
    "measurement": ("value_as_number", "value_as_concept_id"),
    "observation": ("value_as_number", "value_as_string", "value_as_concept_id"),
    "person": ("birth_datetime", "gender_concept_id"),
}


class OmopRows(BaseModel, frozen=True, extra="forbid"):
    """Where the rows of a fact or outcome are.

    concepts: which rows count, with their descendants where the source has `concept_ancestor`; none = all rows.
    value: the column that holds the value; none where the row itself is the fact.
    values, factor: as for a flat table. above: streaks only: a day counts when its highest value is above this.
    within_days: outcomes only: the prediction window. absent: outcomes only: the event's absence is the outcome.
    """

    table: Table
    concepts: tuple[int, ...] = ()
    value: Value | None = None
    values: dict[str, str] = {}
    factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    above: float | None = Field(default=None, allow_inf_nan=False)
    within_days: int | None = Field(default=None, ge=1, le=3650)
    absent: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.value is not None and self.value not in _VALUES.get(self.table, ()):
            raise ValueError(f"{self.table} has no {self.value}")
        if self.table == "person" and (self.value is None or self.concepts):
            raise ValueError("a fact of the person table needs a value and no concepts")
        if self.concepts and self.table not in CONCEPT_COLUMN:
            raise ValueError(f"{self.table} rows have no concept")
        return self


class OmopMapping(BaseModel, frozen=True, extra="forbid"):
    """An OMOP source for a catalogue. person_id: which column of `person` the pseudonyms are made from.

    The other fields are those of `TableMapping`; the snapshot date is the index date of every window.
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    title: str
    kind: Literal["omop"]
    catalogue: str
    synthetic: bool = False
    person_id: Literal["person_id", "person_source_value"] = "person_id"
    snapshot: date
    max_age_days: int | None = Field(default=None, ge=1)
    impossible: Literal["refuse", "clear"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"
    contradictions: Literal["score", "clear"] = "score"
    facts: dict[str, OmopRows] = Field(min_length=1)
    outcomes: dict[str, OmopRows] = {}

    @model_validator(mode="after")
    def _outcomes_have_windows(self) -> Self:
        for name, rows in self.outcomes.items():
            if rows.within_days is None or rows.table == "person":
                raise ValueError(f"{name}: an outcome needs dated rows and `within_days`")
        if wrong := [name for name, rows in self.facts.items() if rows.within_days is not None or rows.absent]:
            raise ValueError(f"{wrong[0]}: a fact looks back only, so it has no `within_days` and no `absent`")
        return self

    def as_table(self) -> TableMapping:
        """The mapping of the flat table that the derivations give, so that all sources share one door."""
        columns: dict[str, Any] = {
            name: Column(column=name, values=rows.values, factor=rows.factor) for name, rows in self.facts.items()
        }
        return TableMapping(
            id=self.id,
            version=self.version,
            title=self.title,
            catalogue=self.catalogue,
            synthetic=self.synthetic,
            person_id="person_id",
            snapshot=self.snapshot,
            max_age_days=self.max_age_days,
            impossible=self.impossible,
            duplicates=self.duplicates,
            contradictions=self.contradictions,
            facts=columns,
            outcomes={
                name: Column(column=name, window_days=rows.within_days or 0) for name, rows in self.outcomes.items()
            },
        )

    def check(self, catalogue: Catalogue) -> None:
        """Refuse a mapping that does not fit the catalogue."""
        self.as_table().check(catalogue)


class OmopSource(BaseModel, frozen=True, extra="forbid"):
    """An OMOP source: its mapping, and where it lies (see `omop_engine.open_engine`)."""

    mapping: OmopMapping
    path: Path | Database
