"""The same made-up patients as dated events in OMOP CDM 5.4 tables: the inverse of the derivations of the catalogue.

For each fact the events are chosen so that deriving it gives back the recorded value, with decoys that a wrong
derivation would trip over: an older measurement beside the last one, a normal day before a streak, events outside a
window. Read with the mapping conf/sources/cardiometabolic-omop.yaml, which also says where each fact lives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.data.omop_mapping import CONCEPT_COLUMN, DATE_COLUMN, OmopMapping, OmopRows
from cameo_lab.generate.records import SNAPSHOT
from cameo_protocol.facts import Catalogue, Fact

Ints = npt.NDArray[np.int64]
WHOLE_HISTORY = 1500
_GENDER = {"female": 8532, "male": 8507}
_JOINT = ("dx_t2d", "dx_htn", "visits_12m", "days_since_visit", "refills_30d", "refills_90d")


class OmopEvents:
    """One hospital's tables, chunk after chunk; ids of rows go on where the last chunk ended."""

    def __init__(self, mapping: OmopMapping, catalogue: Catalogue) -> None:
        self._mapping, self._catalogue = mapping, catalogue
        self._next: dict[str, int] = {}

    def tables(self, rng: np.random.Generator, observed: pl.DataFrame, first: int) -> dict[str, pl.DataFrame]:
        """The rows of these patients. observed: of `records.observe`; first: their first person_id."""
        chunk = _Chunk(rng, observed, first)
        for name, rows in self._mapping.facts.items():
            if rows.table != "person" and name not in _JOINT:
                chunk.invert(self._catalogue.fact(name), rows)
        chunk.visits(self._mapping.facts["visits_12m"])
        chunk.refills(self._mapping.facts["refills_90d"])
        chunk.outcomes(self._mapping.outcomes)
        events = {table: self._shaped(table, pl.concat(frames)) for table, frames in chunk.events.items()}
        return {"person": chunk.persons(), "observation_period": chunk.periods()} | events

    def _shaped(self, table: str, rows: pl.DataFrame) -> pl.DataFrame:
        """The columns of a CDM table: its own id, concept and date names, and values where it has them."""
        start = self._next.get(table, 1)
        self._next[table] = start + rows.height
        valued = [pl.col("number").alias("value_as_number")] if table in ("measurement", "observation") else []
        valued += [pl.col("text").alias("value_as_string")] if table == "observation" else []
        valued += [pl.lit(None, dtype=pl.Int64).alias("value_as_concept_id")] if valued else []
        named = [] if table == "death" else [pl.int_range(start, start + pl.len(), dtype=pl.Int64).alias(f"{table}_id")]
        concept = [pl.col("concept").alias(CONCEPT_COLUMN[table])] if table in CONCEPT_COLUMN else []
        # a death lies in the last month, so that the other events do not come long after it
        ago = pl.col("ago") % 30 + 1 if table == "death" else pl.col("ago")
        day = (pl.lit(SNAPSHOT) - pl.duration(days=ago)).cast(pl.Date).alias(DATE_COLUMN[table])
        return rows.select(*named, "person_id", *concept, day, *valued)


class _Chunk:
    """The events of one chunk of patients, collected by table."""

    def __init__(self, rng: np.random.Generator, observed: pl.DataFrame, first: int) -> None:
        self._rng, self._observed = rng, observed
        self._people = np.arange(first, first + observed.height, dtype=np.int64)
        self.events: dict[str, list[pl.DataFrame]] = {}

    def _emit(self, rows: OmopRows, people: Ints, ago: Any, number: Any = None, text: Any = None) -> None:
        """Add one event a person, `ago` days before the snapshot (negative: after it)."""
        concept = rows.concepts[0] if rows.concepts else 0
        frame = pl.DataFrame(
            {"person_id": people, "ago": np.broadcast_to(np.asarray(ago, dtype=np.int64), people.shape)}
        ).with_columns(
            concept=pl.lit(concept, dtype=pl.Int64),
            number=pl.lit(None, dtype=pl.Float64) if number is None else pl.Series(number, dtype=pl.Float64),
            text=pl.lit(None, dtype=pl.String) if text is None else pl.Series(text, dtype=pl.String),
        )
        self.events.setdefault(rows.table, []).append(frame)

    def _days(self, low: Any, high: Any, size: int) -> Ints:
        return self._rng.integers(low, np.maximum(low, high), size, endpoint=True)

    def invert(self, fact: Fact, rows: OmopRows) -> None:
        """Events from which the catalogue's derivation gives back the recorded value; none where it is missing."""
        column = self._observed[fact.name]
        known = column.is_not_null().to_numpy()
        people, values = self._people[known], column.drop_nulls()
        window = (fact.derive.lookback_days or WHOLE_HISTORY) - 1
        if fact.derive.how == "years_since":
            self._emit(rows, people, np.round(values.to_numpy() * 365.25))
        elif fact.type == "enum":
            self._emit(rows, people, self._days(1, min(window, 300), people.size), text=values)
        elif fact.derive.how in ("last", "ever"):
            self._single(fact, rows, people, values.cast(pl.Float64).to_numpy(), min(window, 300))
        else:
            self._many(fact, rows, people, values.cast(pl.Float64).to_numpy(), window)

    def _single(self, fact: Fact, rows: OmopRows, people: Ints, values: npt.NDArray[np.float64], window: int) -> None:
        if rows.value is None:  # the event itself is the fact
            people = people[values > 0]
            self._emit(rows, people, self._days(1, window, people.size))
            return
        days = self._days(1, max(1, window // 2), people.size)
        self._emit(rows, people, days, number=values)
        if fact.derive.how == "last" and fact.type == "float":
            self._emit(rows, people, days + self._days(1, 90, people.size), number=values * 1.03)

    def _many(self, fact: Fact, rows: OmopRows, people: Ints, values: npt.NDArray[np.float64], window: int) -> None:
        if fact.derive.how == "count":
            self._repeat(rows, people, values.astype(np.int64), 1, window)
            self._emit(rows, people[::7], window + 2)  # outside the window
        elif fact.derive.how == "mean":
            for sign in (-1.0, 1.0):
                self._emit(rows, people, self._days(0, window, people.size), number=values + sign * 3.0)
        elif fact.derive.how == "share":
            of = 30 if fact.derive.lookback_days == 30 else 8
            met = np.round(values * of)
            for index in range(of):
                self._emit(rows, people, index * window // of, number=(index < met).astype(np.float64))
        else:  # streak
            bound = rows.above or 0.0
            for day in range(int(values.max(initial=0.0)) + 1):
                reached = values >= day
                high = np.where(values[reached] > day, bound * 1.1, bound * 0.8)
                self._emit(rows, people[reached], day, number=np.round(high, 1))

    def _repeat(self, rows: OmopRows, people: Ints, counts: Ints, low: Any, high: Any) -> None:
        """`counts` events a person on random days from low to high days ago."""
        again = np.repeat(people, counts)
        low, high = (np.repeat(np.broadcast_to(np.asarray(bound), people.shape), counts) for bound in (low, high))
        self._emit(rows, again, self._days(low, high, again.size))

    def visits(self, rows: OmopRows) -> None:
        """The last visit on its day, the others of the last 12 months before it."""
        count, since = self._observed["visits_12m"].to_numpy(), self._observed["days_since_visit"].to_numpy()
        self._emit(rows, self._people, since)
        self._repeat(rows, self._people, np.maximum(count - 1, 0), since, np.maximum(since, 364))

    def refills(self, rows: OmopRows) -> None:
        """Refills of the last 30 days, and those of the 60 days before."""
        recent, all_90 = self._observed["refills_30d"].to_numpy(), self._observed["refills_90d"].to_numpy()
        self._repeat(rows, self._people, recent, 1, 29)
        self._repeat(rows, self._people, all_90 - recent, 31, 89)

    def outcomes(self, mapped: dict[str, OmopRows]) -> None:
        """Events after the snapshot date, where the recorded outcome has them."""
        for name, rows in mapped.items():
            happened = (self._observed[name] == (0 if rows.absent else 1)).fill_null(value=False).to_numpy()
            people = self._people[happened]
            self._emit(rows, people, -self._days(1, (rows.within_days or 1), people.size))

    def persons(self) -> pl.DataFrame:
        """The table `person`."""
        age = pl.col("age")
        birth = (pl.lit(SNAPSHOT) - pl.duration(days=(age * 365.25).round())).cast(pl.Datetime("us"))
        return self._observed.select(
            pl.Series("person_id", self._people),
            pl.col("sex").replace_strict(_GENDER, return_dtype=pl.Int64).alias("gender_concept_id"),
            birth.dt.year().cast(pl.Int64).alias("year_of_birth"),
            birth.alias("birth_datetime"),
            pl.col("person_id").alias("person_source_value"),
        )

    def periods(self) -> pl.DataFrame:
        """The table `observation_period`: to well after the snapshot, or its day where an outcome is not known."""
        lost = self._observed.select(
            (pl.col("t2d_within_12m").is_null() | pl.col("lapse_within_6m").is_null()).alias("lost")
        )["lost"]
        start = pl.lit(SNAPSHOT)
        return pl.DataFrame({"person_id": self._people, "lost": lost}).select(
            pl.col("person_id").alias("observation_period_id"),
            "person_id",
            (start - pl.duration(days=3650)).cast(pl.Date).alias("observation_period_start_date"),
            pl.when("lost")
            .then(start)
            .otherwise((start + pl.duration(days=500)).cast(pl.Date))
            .alias("observation_period_end_date"),
        )
