"""A FHIR bulk export as OMOP tables: read line by line, written as Parquet parts, in memory that does not grow with it.

The tables lie in a folder for this user alone that is gone when the read is over; see `scratch`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import polars as pl

from cameo_client.data.fhir_mapping import Codes, FhirSource
from cameo_client.data.fhir_pick import BadResource, Picker, Row
from cameo_client.data.findings import MISSING_DO, Finding, bad_file
from cameo_client.data.omop_mapping import CONCEPT_COLUMN, DATE_COLUMN, OmopSource
from cameo_client.data.scratch import private_folder

MAX_LINE = 8 << 20
BATCH = 100_000
MOST_FINDINGS = 1_000_000
_TYPES: Final = re.compile(r"[A-Z][A-Za-z]+")
_DATE: Final = r"^\d{4}(-\d\d(-\d\d([Tt ].*)?)?)?$"
_NEEDS: Final = {
    "person": "Patient",
    "death": "Patient",
    "visit_occurrence": "Encounter",
    "condition_occurrence": "Condition",
    "procedure_occurrence": "Procedure",
    "measurement": "Observation",
    "observation": "Observation",
}
_ROW: Final = pl.Schema(
    {
        "person": pl.Int64(), "day": pl.String(), "concept": pl.Int64(), "number": pl.Float64(), "text": pl.String(),
        "end": pl.String(), "line": pl.Int64(),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """The export as an OMOP source, and what is wrong with it (file, line numbers, never a value)."""

    source: OmopSource
    findings: tuple[Finding, ...]


@contextmanager
def as_omop(source: FhirSource, scratch: Path | None = None) -> Iterator[Converted]:
    """The tables of a bulk export while the context is open. Faults of the folder are `OperatorError`s.

    scratch: where they lie; see `private_folder`.
    """
    files = _files(source.path)
    with private_folder(scratch) as private:
        folder = private / "export"
        work = _Conversion(source, folder)
        try:
            for file in files:
                work.read(file)
            work.close()
        except OSError as error:
            raise bad_file(
                "data-unreadable",
                f"{source.path.name}: {error.strerror or 'cannot be read'}",
                "check that this user may read the export and that there is space for its tables in the node's home",
            ) from None
        yield Converted(OmopSource(mapping=source.mapping, path=folder), tuple(work.findings()))


def _files(folder: Path) -> list[Path]:
    """The export's files; those of `Medication` first, because others refer to them."""
    if not folder.is_dir():
        raise bad_file("data-missing-file", f"{folder}: no such folder", MISSING_DO)
    found = sorted(folder.glob("*.ndjson"), key=lambda file: ("Medication" not in _TYPES.findall(file.name), file.name))
    if not found:
        raise bad_file(
            "data-empty", f"{folder.name}: it holds no *.ndjson file", "name the folder of an unpacked bulk export"
        )
    return found


@dataclass
class _Conversion:
    source: FhirSource
    folder: Path
    _rows: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)
    _parts: dict[str, int] = field(default_factory=dict)
    _written: dict[str, int] = field(default_factory=dict)
    _faults: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        export = self.source.export
        self._picker = Picker(Codes(self.source), export.drugs, export.observed == "EpisodeOfCare", {})

    def read(self, file: Path) -> None:
        """Read one file; a line that cannot be used becomes a finding and the others are read on."""
        self._seen |= set(_TYPES.findall(file.name))
        with file.open("rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                try:
                    for row in self._line(line):
                        self._keep(row, file.name, number)
                except BadResource as bad:
                    self._fault(bad, file.name, number)
                while len(line) > MAX_LINE and not line.endswith(b"\n"):
                    line = lines.readline(MAX_LINE + 1)
        for table in list(self._rows):
            self._flush(table, file.name)

    def _line(self, line: bytes) -> list[Row]:
        if len(line) > MAX_LINE:
            raise BadResource("fhir-line-too-long", f"are longer than {MAX_LINE >> 20} MiB")
        if not line.strip():
            return []
        try:
            resource = orjson.loads(line)
        except orjson.JSONDecodeError:
            resource = None
        if not isinstance(resource, dict):
            raise BadResource("fhir-json", "are no JSON object")
        rows = self._picker.rows(resource)
        self._seen.add(resource["resourceType"])
        return rows

    def _keep(self, row: Row, name: str, number: int) -> None:
        kept = self._rows.setdefault(row.table, [])
        kept.append((row.person, row.day, row.concept, row.number, row.text, row.end, number))
        if len(kept) >= BATCH:
            self._flush(row.table, name)

    def _fault(self, bad: BadResource, name: str, number: int) -> None:
        lines = self._faults.setdefault((bad.code, name, bad.problem), [])
        if len(lines) < MOST_FINDINGS:
            lines.append(number)

    def findings(self) -> Iterator[Finding]:
        """What could not be used, by file; the positions are line numbers."""
        for (code, name, problem), lines in sorted(self._faults.items(), key=lambda item: item[0][1:]):
            yield Finding(code, name, "", problem, tuple(lines))

    def close(self) -> None:
        """Give every table that the export can have a part, perhaps an empty one."""
        needs = _NEEDS | {"drug_exposure": self.source.export.drugs}
        if self.source.export.observed == "EpisodeOfCare":
            needs["observation_period"] = "EpisodeOfCare"
        for table, kind in needs.items():
            if kind in self._seen and table not in self._parts:
                self._rows[table] = []
                self._flush(table, "")
        if self.source.export.observed == "everyone" and "person" in self._parts:
            self._observe_everyone()

    def _flush(self, table: str, name: str) -> None:
        rows = pl.DataFrame(self._rows.pop(table), schema=_ROW, orient="row")
        days, bad = _dates(rows, "day", self.source)
        ends, bad_ends = _dates(rows, "end", self.source)
        for number in rows["line"].filter(bad | bad_ends):
            self._fault(
                BadResource("fhir-date", "hold a date that is no day on which side of the snapshot it was"),
                name,
                number,
            )
        good = rows.with_columns(days.alias("day"), ends.alias("end")).filter(~(bad | bad_ends))
        first = self._written.get(table, 0) + 1
        self._written[table] = first + good.height
        part = self._parts[table] = self._parts.get(table, -1) + 1
        (self.folder / table).mkdir(parents=True, exist_ok=True)
        self._shaped(table, good.with_row_index("place", first)).write_parquet(
            self.folder / table / f"part-{part:06d}.parquet"
        )

    def _shaped(self, table: str, rows: pl.DataFrame) -> pl.DataFrame:
        """The columns of an OMOP table."""
        person, until = pl.col("person").alias("person_id"), pl.lit(self.source.export.observed_until)
        if table == "person":
            gender = pl.when(pl.col("concept") > 0).then("concept").alias("gender_concept_id")
            return rows.select(
                person,
                gender,
                pl.col("day").cast(pl.Datetime("us")).alias("birth_datetime"),
                pl.col("text").alias("person_source_value"),
            )
        if table == "observation_period":
            return rows.select(person, pl.col("end").fill_null(until).alias("observation_period_end_date"))
        day = pl.col("day").alias(DATE_COLUMN[table])
        if table == "death":  # dead, nobody wrote when: true on the snapshot date, so that no tag is written
            return rows.select(person, day.fill_null(pl.lit(self.source.mapping.snapshot)))
        place = pl.col("place").cast(pl.Int64).alias(f"{table}_id")
        valued = [pl.col("number").alias("value_as_number")] if table in ("measurement", "observation") else []
        valued += [pl.col("text").alias("value_as_string")] if table == "observation" else []
        return rows.select(place, person, pl.col("concept").alias(CONCEPT_COLUMN[table]), day, *valued)

    def _observe_everyone(self) -> None:
        """observation_period: until the export, or death."""
        persons = pl.scan_parquet(self.folder / "person" / "*.parquet")
        deaths = pl.scan_parquet(self.folder / "death" / "*.parquet").unique("person_id")
        until = pl.lit(self.source.export.observed_until)
        (self.folder / "observation_period").mkdir()
        persons.join(deaths, on="person_id", how="left").select(
            "person_id", pl.min_horizontal(until, "death_date").alias("observation_period_end_date")
        ).sink_parquet(self.folder / "observation_period" / "part-000000.parquet")


def _dates(rows: pl.DataFrame, name: str, source: FhirSource) -> tuple[pl.Series, pl.Series]:
    """The days, and which texts are none.

    FHIR allows a year or a month for a day: then it is that period's last day, unless the snapshot lies within it,
    because then nobody can say whether a fact or an outcome is meant.
    """
    text, size = pl.col(name), pl.col(name).str.len_bytes()
    whole = pl.when(size == 4).then(text + "-01-01").when(size == 7).then(text + "-01").otherwise(text.str.head(10))
    start = pl.when(text.str.contains(_DATE)).then(whole.str.to_date("%Y-%m-%d", strict=False))
    month_end, year_end = start.dt.month_end(), start.dt.offset_by("11mo").dt.month_end()
    end = pl.when(size == 4).then(year_end).when(size == 7).then(month_end).otherwise(start)
    snapshot = pl.lit(source.mapping.snapshot)
    unclear = start.is_null() | ((start <= snapshot) & (end > snapshot))
    found = rows.select(end.alias("day"), (text.is_not_null() & unclear).alias("bad"))
    return found["day"], found["bad"]
