"""The door: a hospital's source becomes facts and outcomes under pseudonyms, with a quality report.

Order matters and is fixed: read, type, refuse what cannot be read, replace the person ids, score, clean as the
mapping says, derive outcomes, sort by pseudonym. The person id and the file order do not survive it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import polars as pl

from cameo_client.data import quality
from cameo_client.data.cleaning import Cleaned, clean, without_repeats
from cameo_client.data.findings import Finding, bad_file, refuse, rows_of, shown
from cameo_client.data.omop_checks import AFTER_DEATH, BEFORE_BIRTH, RowFaults
from cameo_client.data.pseudonyms import pseudonyms
from cameo_client.data.quality import QualityReport
from cameo_client.data.source import OmopSource, SourceConfig, TableMapping, TableSource
from cameo_client.data.table import read_table
from cameo_client.data.typed import numbers, typed_facts
from cameo_protocol.errors import OperatorError
from cameo_protocol.facts import Catalogue, LabelDefinition, check_label

LEAST_PATIENTS = 2


@dataclass(frozen=True, eq=False)
class HospitalData:
    """One hospital's patients; row i of facts and outcomes is one patient, rows are sorted by pseudonym.

    facts: `pseudonym` and one column a fact of the catalogue (Float64, Int64, Boolean, Enum), null = missing.
    outcomes: `pseudonym` and one Int8 column a label, named by its id: 1, 0, or null = unknown or left out.
    earlier: further records of some of these patients, oldest first, where the mapping allows several; None otherwise.
    dataset: the source's name, under which the ledger and the hold-out know this data set.
    synthetic: no real patient is behind it.
    """

    facts: pl.DataFrame = field(repr=False)
    outcomes: pl.DataFrame = field(repr=False)
    quality: QualityReport
    dataset: str
    catalogue: str
    snapshot: date | None
    synthetic: bool
    earlier: Earlier | None = None


@dataclass(frozen=True, eq=False)
class Earlier:
    """Records before the current one; columns as in `HospitalData`, row i of both is one record."""

    facts: pl.DataFrame = field(repr=False)
    outcomes: pl.DataFrame = field(repr=False)


def every_record(data: HospitalData) -> HospitalData:
    """All records for training: the earlier ones first, then each patient's current one, so it is its last row."""
    if data.earlier is None:
        return data
    facts = pl.concat([data.earlier.facts, data.facts])
    return replace(data, facts=facts, outcomes=pl.concat([data.earlier.outcomes, data.outcomes]), earlier=None)


def load(
    source: SourceConfig,
    catalogue: Catalogue,
    labels: Sequence[LabelDefinition],
    pseudonym_key: bytes,
    *,
    today: date | None = None,
    scratch: Path | None = None,
) -> HospitalData:
    """Read a hospital's source.

    labels: whose outcomes to derive; each must fit the catalogue.   pseudonym_key: >= 32 bytes, this hospital's.
    today: when given, an old snapshot costs quality points (the clock is the caller's).
    scratch: a folder of the node's home, for rows that have to be written down meanwhile; see `private_folder`.
    Every fault of the source is an `OperatorError` with exit code DATA: its code, table, column and how many rows,
    never a value. A low quality score is no error here: see `QualityReport.require`.
    """
    return inspect(source, catalogue, labels, today=today, scratch=scratch).data(pseudonym_key)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Inspection:
    """A source as it was read, before any id is replaced; row-level, so it lives only while it is looked at.

    unusable: what stops the load. doubtful: what stops it where the mapping says `impossible: refuse`, and else is
    passed over and counted. notes: what stops nothing but should be known. quality: the score before cleaning.
    """

    mapping: TableMapping
    table: str
    catalogue: Catalogue
    ids: list[str]
    facts: pl.DataFrame
    outcomes: pl.DataFrame
    unusable: tuple[Finding, ...]
    doubtful: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    quality: QualityReport

    @property
    def stopping(self) -> tuple[Finding, ...]:
        """The findings because of which nothing is loaded."""
        return self.unusable + (self.doubtful if self.mapping.impossible == "refuse" else ())

    def cleaned(self) -> tuple[Cleaned, QualityReport]:
        """The facts as they are used, and the report that says what was put right.

        The first finding that stops the load, and too few patients, are `OperatorError`s.
        """
        refuse(self.stopping)
        if self.facts.height < LEAST_PATIENTS:
            raise bad_file(
                "data-too-few-patients", f"{self.table}: fewer than {LEAST_PATIENTS} patients", "check the export"
            )
        found = clean(self.facts, self.catalogue, self.mapping)
        if int(found.kept.sum()) < LEAST_PATIENTS:
            raise bad_file(
                "data-too-few-patients",
                f"{self.table}: fewer than {LEAST_PATIENTS} patients have every fact that may not be missing",
                "run: cameo-node data check --rows all   (prints the row numbers on this machine only)",
            )
        dated = sum(len(finding.rows) for finding in self.notes if finding.code in (BEFORE_BIRTH, AFTER_DEATH))
        passed = dated if self.mapping.contradictions == "clear" else 0
        return found, replace(
            self.quality,
            cleaned=shown(found.impossible),
            left_out=shown(int((~found.kept).sum())),
            contradicting=shown(found.contradicting + passed),
        )

    def data(self, pseudonym_key: bytes) -> HospitalData:
        """The facts and outcomes under pseudonyms."""
        found, report = self.cleaned()
        kept, mapping = found.kept, self.mapping
        named = pl.Series("pseudonym", pseudonyms(pseudonym_key, self.ids)).filter(kept)
        now, before = _current(named)
        rows, results = (frame.filter(kept).insert_column(0, named) for frame in (found.facts, self.outcomes))
        return HospitalData(
            facts=rows[now],
            outcomes=results[now],
            earlier=Earlier(rows[before], results[before]) if before.len() else None,
            quality=replace(report, records=report.records.filter(kept)[now], failed=None),
            dataset=mapping.id,
            catalogue=self.catalogue.id,
            snapshot=mapping.snapshot,
            synthetic=mapping.synthetic or self.catalogue.synthetic,
        )


def inspect(
    source: SourceConfig,
    catalogue: Catalogue,
    labels: Sequence[LabelDefinition],
    *,
    today: date | None = None,
    scratch: Path | None = None,
) -> Inspection:
    """Read a source and find everything that is wrong with it; see `load`. One that cannot be read: `OperatorError`."""
    raw = _read(source, catalogue, today, scratch)
    mapping, table = raw.flat.mapping, raw.flat.path.name
    text, repeats = without_repeats(raw.text, mapping)
    contradicted = raw.contradicted if repeats == 0 else None
    facts, findings = typed_facts(text, mapping, catalogue, table)
    outcomes, outcome_findings = _outcomes(text, raw.flat, facts, labels, catalogue)
    ids, id_findings = _person_ids(text, raw.flat)
    age = quality.age_days(mapping.snapshot, today)
    report = quality.assess(
        facts, catalogue, age_days=age, max_age_days=mapping.max_age_days, contradicted=contradicted
    )
    twice = () if mapping.duplicates == "drop" else raw.faults.twice
    repeats += sum(len(finding.rows) for finding in raw.faults.twice if mapping.duplicates == "drop")
    return Inspection(
        mapping=mapping,
        table=table,
        catalogue=catalogue,
        ids=ids,
        facts=facts,
        outcomes=outcomes,
        unusable=(*raw.unused, *findings, *outcome_findings, *id_findings, *twice, *raw.faults.units),
        doubtful=(*raw.faults.bad, *_impossible(facts, catalogue, table)),
        notes=(*raw.faults.dates, *raw.faults.empty, *_empty(facts, outcomes, mapping, table)),
        quality=replace(report, repeated=shown(repeats)),
    )


def _empty(facts: pl.DataFrame, outcomes: pl.DataFrame, mapping: TableMapping, table: str) -> list[Finding]:
    """Mapped columns without any value, and labels whose outcome is the same for everybody."""
    everyone = tuple(range(1, facts.height + 1))
    found = [
        Finding("data-column-empty", table, name, "hold no value: the column is empty", everyone)
        for name in mapping.facts
        if facts.height and facts[name].null_count() == facts.height
    ]
    for name in outcomes.columns:
        known = rows_of(outcomes[name].is_not_null())
        if known and outcomes[name].drop_nulls().n_unique() == 1:
            found.append(Finding("data-one-outcome", table, name, "have the same outcome: nobody has the other", known))
    return found


def _current(named: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(rows of the current records, rows of the earlier ones), both by pseudonym, the oldest first."""
    order = pl.DataFrame([named]).with_row_index("row").sort("pseudonym", maintain_order=True)
    last = order["pseudonym"].is_last_distinct()
    return order["row"].filter(last), order["row"].filter(~last)


def check(
    source: SourceConfig, catalogue: Catalogue, labels: Sequence[LabelDefinition], *, today: date | None = None
) -> tuple[Finding, ...]:
    """Every unreadable or impossible cell of a readable source, with row numbers, for the hospital's own screen."""
    found = inspect(source, catalogue, labels, today=today)
    return found.unusable + found.doubtful


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class _Raw:
    """A source as text. flat: the flat mapping that reads it. unused: records that could not be used."""

    text: pl.DataFrame
    flat: TableSource
    unused: tuple[Finding, ...] = ()
    faults: RowFaults = field(default_factory=RowFaults)
    contradicted: pl.Series | None = None


def _read(source: SourceConfig, catalogue: Catalogue, today: date | None, scratch: Path | None) -> _Raw:
    source.mapping.check(catalogue)
    if isinstance(source, TableSource):
        return _Raw(text=read_table(source), flat=source)
    from cameo_client.data.omop import read_omop

    flat = TableSource(mapping=source.mapping.as_table(), path=Path(source.path.name))
    if isinstance(source, OmopSource):
        found = read_omop(source, catalogue, today, scratch)
        return _Raw(text=found.text, flat=flat, faults=found.faults, contradicted=found.contradicted)
    from cameo_client.data.fhir import as_omop

    with as_omop(source, scratch) as converted:
        unused = converted.findings
        try:
            found = read_omop(converted.source, catalogue, today, scratch)
        except OperatorError:
            refuse(unused)  # what could not be used goes before what is therefore missing
            raise
    return _Raw(text=found.text, flat=flat, unused=unused, faults=found.faults, contradicted=found.contradicted)


def _person_ids(text: pl.DataFrame, source: TableSource) -> tuple[list[str], list[Finding]]:
    """One id a row; missing ids, and ids that occur twice where each patient has one record, are findings."""
    if source.mapping.person_id == "row":
        return [f"row {number}" for number in range(1, text.height + 1)], []
    ids = text[str(source.mapping.person_id)]
    twice = ids.is_duplicated() & ids.is_not_null() & (source.mapping.records == "one")
    findings = [
        Finding(code, source.path.name, str(source.mapping.person_id), problem, rows_of(bad))
        for code, problem, bad in (
            ("data-id-missing", "have no person id", ids.is_null()),
            ("data-duplicate-id", "share their person id with another row", twice),
        )
        if bad.any()
    ]
    return ids.fill_null("").to_list(), findings


def _impossible(facts: pl.DataFrame, catalogue: Catalogue, table: str) -> list[Finding]:
    """Values outside the plausible range, and nulls in facts that may not be null."""
    tests = {
        f"data-impossible:{name}": (name, "hold a value outside the plausible range", fails)
        for name, fails in quality.impossible(catalogue).items()
    } | {
        f"data-required-missing:{fact.name}": (
            fact.name,
            "lack a fact that may not be missing",
            pl.col(fact.name).is_null(),
        )
        for fact in catalogue.facts
        if not fact.missing
    }
    failed = facts.select(fails.fill_null(value=False).alias(key) for key, (_, _, fails) in tests.items())
    return [
        Finding(key.split(":")[0], table, name, problem, rows_of(failed[key]))
        for key, (name, problem, _) in tests.items()
        if failed[key].any()
    ]


def _outcomes(
    text: pl.DataFrame,
    source: TableSource,
    facts: pl.DataFrame,
    labels: Sequence[LabelDefinition],
    catalogue: Catalogue,
) -> tuple[pl.DataFrame, list[Finding]]:
    """One Int8 column a label; excluded patients and unknown outcomes are null."""
    columns, findings = [], []
    for label in labels:
        check_label(label, catalogue)
        column = source.mapping.outcomes.get(label.outcome)
        if column is None or column.window_days != label.window_days:
            raise bad_file(
                "data-outcome-unmapped",
                f"{source.path.name}: label {label.id} needs {label.outcome} over {label.window_days} days",
                "map it under `outcomes` in the mapping, with the window the extract covers",
            )
        cells = text[str(column.column)]
        number = numbers(cells)
        unread = cells.is_not_null() & number.is_null()
        if unread.any():
            findings.append(Finding("data-type", source.path.name, label.outcome, "hold no number", rows_of(unread)))
        counted = facts.with_columns(
            pl.all_horizontal(
                pl.lit(value=True), *(~pl.col(name) for name in label.exclude), *map(pl.col, label.require)
            ).alias("in")
        )["in"]
        positive = (number > label.positive_above).cast(pl.Int8)
        unknown = pl.Series([None], dtype=pl.Int8)
        columns.append(positive.zip_with(counted.fill_null(value=False), unknown).alias(label.id))
    return pl.DataFrame(columns), findings
