"""A flat table as a source: the mapping of its columns to a facts catalogue, and the file it applies to.

A mapping is public configuration; the path is this hospital's own and never leaves it.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue

Where = Annotated[int, Field(ge=1, le=10_000)] | Annotated[str, Field(max_length=200)]


class Column(BaseModel, frozen=True, extra="forbid"):
    """One column of the source. In YAML the bare column stands for the whole entry.

    column: header name, or position counted from 1.
    values: what the source writes -> what the catalogue says ("true" and "false" for a bool).
    factor: multiplies a number into the catalogue's unit, such as 0.0259 for cholesterol in mg/dL to mmol/L.
    date: the source holds an ISO date; the fact is the number of days (unit "years": of 365.25-day years) from
    it to the snapshot date.
    window_days: outcomes only: the observed window after the snapshot date, which must be the label's.
    """

    column: Where
    values: dict[str, str] = {}
    factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    date: bool = False
    window_days: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


class TableMapping(BaseModel, frozen=True, extra="forbid"):
    """How a CSV or Parquet table becomes facts and outcomes.

    header: whether the first line names the columns (Parquet always does); without it every column is given by
    position. Every column of the file is mapped or listed in `ignore`; ignored ones, such as names and
    addresses, are not read and may be absent. missing: tokens that mean null. person_id: the id's column, or
    "row" where every row is another patient and the file has no id; then the row number stands in, and pseudonyms are
    good for this file only. It has no default: a patient of k rows that passes for k patients counts k times.
    records: "several" allows a patient several rows, such as stays or index dates, in the order of time; the last one
    is the current record, which is scored and tagged; the earlier ones serve training only, clipped with it as one.
    snapshot: the index date of the facts. max_age_days: an older snapshot costs quality points.
    impossible: values outside the plausible range stop the load ("refuse"), or become null and are counted in
    the quality report ("clear"); a patient who then lacks a fact that may not be null is left out and counted.
    duplicates: a row that says again what another row says stops the load ("refuse"), or is left out and counted
    ("drop"). contradictions: values and dates that contradict each other cost quality points ("score"), or become null
    as well and are counted ("clear").
    """

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    version: int = Field(ge=1)
    title: str
    kind: Literal["table"] = "table"
    catalogue: str
    synthetic: bool = False
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    header: bool = True
    missing: tuple[str, ...] = ("",)
    person_id: Where | Literal["row"]
    records: Literal["one", "several"] = "one"
    snapshot: date | None = None
    max_age_days: int | None = Field(default=None, ge=1)
    impossible: Literal["refuse", "clear"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"
    contradictions: Literal["score", "clear"] = "score"
    facts: dict[str, Column] = Field(min_length=1)
    outcomes: dict[str, Column] = {}
    ignore: tuple[Where, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _says_whose(cls, value: Any) -> Any:
        if isinstance(value, dict) and "person_id" not in value:
            raise ValueError(
                "person_id is missing: name its column, or say `person_id: row` if no patient has two rows"
            )
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.delimiter in '"\r\n\0' or self.delimiter.isalnum():
            raise ValueError("delimiter is one character that is no letter, digit, quote or line end")
        used = self.columns()
        if len(set(used)) != len(used):
            raise ValueError("a column is used twice")
        if not self.header and any(isinstance(column, str) for column in used):
            raise ValueError("without a header every column is given by its position")
        if self.records == "several" and self.person_id == "row":
            raise ValueError("several records a patient need a person id that says whose they are")
        if self.snapshot is None and any(column.date for column in self.facts.values()):
            raise ValueError("a date column needs the snapshot date")
        return self

    def columns(self) -> tuple[str | int, ...]:
        """Every column that the mapping names, ignored ones included."""
        named = [column.column for column in (*self.facts.values(), *self.outcomes.values())]
        return (*([] if self.person_id == "row" else [self.person_id]), *named, *self.ignore)

    def check(self, catalogue: Catalogue) -> None:
        """Refuse a mapping that does not fit the catalogue."""
        known = {fact.name: fact for fact in catalogue.facts}
        problem = ""
        if self.catalogue != catalogue.id:
            problem = f"it is written for the catalogue {self.catalogue}"
        for name, column in self.facts.items():
            fact = known.get(name)
            if fact is None:
                problem = f"{name} is no fact of the catalogue"
            elif column.date and fact.type not in ("int", "float"):
                problem = f"{name} is no number, so it cannot come from a date"
            elif fact.type == "enum" and not set(column.values.values()) <= set(fact.values):
                problem = f"{name} is mapped to a value that the catalogue does not list"
            elif fact.type == "bool" and not set(column.values.values()) <= {"true", "false"}:
                problem = f"{name} is a bool, so its values map to true or false"
        if lacking := [fact.name for fact in catalogue.facts if not fact.missing and fact.name not in self.facts]:
            problem = problem or f"it leaves out {lacking[0]}, which may not be missing"
        if problem:
            raise OperatorError(
                "source-mismatch",
                what=f"source {self.id} does not fit catalogue {catalogue.id}: {problem}",
                do=f"correct the mapping {self.id}.yaml",
            )


class TableSource(BaseModel, frozen=True, extra="forbid"):
    """A flat-table source: its mapping and its file (.parquet, or any other suffix for delimited text)."""

    mapping: TableMapping
    path: Path
