"""OMOP sources: each way of deriving a fact on a few hand-written rows, no look past the snapshot, and bad sources."""

from __future__ import annotations

import re
import shutil
from datetime import date, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
import sqlglot

from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.hospital import HospitalData, check, load
from cameo_client.data.omop_engine import open_engine
from cameo_client.data.omop_mapping import OmopMapping, OmopRows
from cameo_client.data.omop_sql import fact_sql, outcome_sql
from cameo_client.data.pseudonyms import pseudonym
from cameo_client.data.source import OmopSource
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.facts import Catalogue, Derivation, Fact, LabelDefinition

KEY = bytes(range(32))
SNAPSHOT = date(2026, 6, 30)


def number(name: str, how: str, lookback: int | None = None, until: int = 0, **more: object) -> Fact:
    derive = Derivation(how=how, lookback_days=lookback, until_days=until)  # type: ignore[arg-type]
    body = {"type": "float", "group": "dynamic", "plausible": (-1e6, 1e6)} | more
    return Fact(name=name, meaning="A fact", derive=derive, **body)  # type: ignore[arg-type]


FLAG = {"type": "bool", "plausible": None, "missing": False}
CATALOGUE = Catalogue(
    id="tiny",
    version=1,
    title="Tiny",
    facts=(
        number("age", "given", unit="years"),
        number("sex", "given", type="enum", values=("female", "male"), plausible=None),
        number("bp", "last", 365),
        number("bp_before", "last", 365, 30),
        number("bp_mean", "mean", 90),
        number("fills", "count", 90, type="int", missing=False),
        number("dx", "ever", None, **FLAG),
        number("dx_years", "years_since", None, unit="years"),
        number("seen", "days_since", None, type="int"),
        number("streak", "streak", 30, type="int"),
        number("smoker", "ever", None, type="bool", plausible=None),
        number("region", "last", None, type="enum", values=("town", "land"), plausible=None),
        number("dead", "ever", None, **FLAG),
    ),
)
LABELS = (
    LabelDefinition(id="event", version=1, meaning="Event", catalogue="tiny", outcome="event", window_days=365),
    LabelDefinition(id="lapse", version=1, meaning="Lapse", catalogue="tiny", outcome="lapse", window_days=180),
)
BP = {"table": "measurement", "concepts": [1], "value": "value_as_number"}
MAPPING = OmopMapping.model_validate(
    {
        "id": "clinic", "version": 1, "title": "Clinic", "kind": "omop", "catalogue": "tiny", "snapshot": SNAPSHOT,
        "facts": {
            "age": {"table": "person", "value": "birth_datetime"},
            "sex": {"table": "person", "value": "gender_concept_id", "values": {"8507": "male", "8532": "female"}},
            "bp": BP, "bp_before": BP, "bp_mean": BP, "streak": BP | {"above": 134.5},
            "fills": {"table": "drug_exposure", "concepts": [5]},
            "dx": {"table": "condition_occurrence", "concepts": [10]},
            "dx_years": {"table": "condition_occurrence", "concepts": [10]},
            "seen": {"table": "visit_occurrence"},
            "smoker": {"table": "observation", "concepts": [20], "value": "value_as_number"},
            "region": {"table": "observation", "concepts": [21], "value": "value_as_string"},
            "dead": {"table": "death"},
        },
        "outcomes": {
            "event": {"table": "condition_occurrence", "concepts": [10], "within_days": 365},
            "lapse": {"table": "visit_occurrence", "within_days": 180, "absent": True},
        },
    }
)  # fmt: skip


def ago(days: int) -> date:
    return SNAPSHOT - timedelta(days=days)


COLUMNS = {
    "person": "person_id gender_concept_id birth_datetime person_source_value",
    "measurement": "measurement_id person_id measurement_concept_id measurement_date value_as_number",
    "drug_exposure": "drug_exposure_id person_id drug_concept_id drug_exposure_start_date",
    "condition_occurrence": "condition_occurrence_id person_id condition_concept_id condition_start_date",
    "visit_occurrence": "visit_occurrence_id person_id visit_concept_id visit_start_date",
    "observation": "observation_id person_id observation_concept_id observation_date value_as_number value_as_string",
    "death": "person_id death_date",
    "observation_period": "person_id observation_period_end_date",
}
ROWS: dict[str, list[tuple[object, ...]]] = {
    "person": [(1, 8507, date(1956, 6, 30), "s1"), (2, 8532, None, "s2"), (3, 8532, date(1990, 1, 1), "s3")],
    "measurement": [
        (1, 1, 1, ago(2), 140.0), (2, 1, 1, ago(1), 150.0), (3, 1, 1, ago(1), 152.0), (4, 1, 1, ago(0), 160.0),
        (5, 1, 1, ago(-1), 999.0), (6, 1, 1, ago(45), 120.0), (7, 1, 2, ago(0), 7.0), (8, 2, 1, ago(366), 111.0),
        (9, 3, 1, ago(1), 140.0), (10, 3, 1, ago(0), 100.0), (11, 1, 1, ago(4), 145.0), (12, 1, 1, ago(0), None),
    ],
    "drug_exposure": [(1, 1, 5, ago(90)), (2, 1, 5, ago(0)), (3, 1, 5, ago(91)), (4, 1, 6, ago(1)), (5, 1, 5, ago(-1))],
    "condition_occurrence": [
        (1, 1, 10, ago(730)), (2, 1, 10, ago(10)), (3, 2, 10, ago(-365)), (4, 3, 10, ago(-366)), (5, 2, 11, ago(5)),
    ],
    "visit_occurrence": [(1, 1, 9, ago(3)), (2, 1, 9, ago(400)), (3, 2, 9, ago(-10)), (4, 3, 9, ago(-181))],
    "observation": [
        (1, 1, 20, ago(5), 1.0, None), (2, 1, 20, ago(1), 0.0, None), (3, 2, 20, ago(1), 0.0, None),
        (4, 1, 21, ago(9), None, "town"), (5, 1, 21, ago(8), None, "land"),
    ],
    "death": [(2, ago(1)), (3, ago(-1))],
    "observation_period": [(1, ago(-500)), (2, ago(-5)), (3, ago(-500))],
}  # fmt: skip
EXPECTED = {
    "age": [70.0, None, None],
    "sex": ["male", "female", "female"],
    "bp": [160.0, None, 100.0],
    "bp_before": [120.0, None, None],
    "bp_mean": [144.5, None, 120.0],
    "fills": [2, 0, 0],
    "dx": [True, False, False],
    "dx_years": [730 / 365.25, None, None],
    "seen": [3, None, None],
    "streak": [3, None, 0],
    "smoker": [True, False, None],
    "region": ["land", None, None],
    "dead": [False, True, False],
}


def frames() -> dict[str, pl.DataFrame]:
    return {name: pl.DataFrame(ROWS[name], schema=COLUMNS[name].split(), orient="row") for name in ROWS}


def write(folder: Path, tables: dict[str, pl.DataFrame] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in (tables or frames()).items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


def read(path: Path, mapping: OmopMapping = MAPPING) -> HospitalData:
    return load(OmopSource(mapping=mapping, path=path), CATALOGUE, LABELS, KEY)


def column(frame: pl.DataFrame, name: str, ids: tuple[str, ...] = ("1", "2", "3")) -> list[object]:
    found = dict(zip(frame["pseudonym"], frame[name], strict=True))
    return [found[pseudonym(KEY, person)] for person in ids]


@pytest.mark.parametrize("name", [fact.name for fact in CATALOGUE.facts])
def test_each_way_of_deriving_a_fact(name: str, tmp_path: Path) -> None:
    found = column(read(write(tmp_path)).facts, name)
    expected = EXPECTED[name]
    if name == "age":
        assert found[0] == pytest.approx(70.0, abs=0.01)
        assert (found[1], found[2]) == (None, pytest.approx(36.49, abs=0.01))
    else:
        assert found == expected


def test_outcomes_look_forward_within_their_window_only(tmp_path: Path) -> None:
    outcomes = read(write(tmp_path)).outcomes
    assert column(outcomes, "event") == [0, 1, 0]  # day 365 is in, day 366 is not
    assert column(outcomes, "lapse") == [1, 0, 1]  # 2 was seen though observed for 5 days only


def test_an_outcome_is_unknown_where_observation_ended_early(tmp_path: Path) -> None:
    tables = frames() | {
        "observation_period": pl.DataFrame({"person_id": [1, 2, 3], "observation_period_end_date": [ago(0)] * 3})
    }
    outcomes = read(write(tmp_path, tables)).outcomes
    assert column(outcomes, "event") == [None, 1, None]
    assert column(outcomes, "lapse") == [None, 0, None]


def test_no_fact_changes_when_the_future_does(tmp_path: Path) -> None:
    past = frames()
    for name, day in (("measurement", "measurement_date"), ("condition_occurrence", "condition_start_date"),
                      ("drug_exposure", "drug_exposure_start_date"), ("visit_occurrence", "visit_start_date"),
                      ("death", "death_date")):  # fmt: skip
        past[name] = past[name].filter(pl.col(day) <= SNAPSHOT)
    one = read(write(tmp_path / "all")).facts
    assert read(write(tmp_path / "past", past)).facts.equals(one)


def test_descendants_count_where_the_source_has_concept_ancestor(tmp_path: Path) -> None:
    tables = frames() | {"concept_ancestor": pl.DataFrame({"ancestor_concept_id": [10], "descendant_concept_id": [11]})}
    assert column(read(write(tmp_path, tables)).facts, "dx") == [True, True, False]


def test_a_duckdb_file_csv_files_and_parts_give_the_same(tmp_path: Path) -> None:
    expected = read(write(tmp_path / "parquet")).facts
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as db:
        for name in ROWS:
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{tmp_path}/parquet/{name}.parquet')")
    assert read(tmp_path / "cdm.duckdb").facts.equals(expected)
    csv, parts = tmp_path / "csv", tmp_path / "parts"
    csv.mkdir()
    for name, frame in frames().items():
        frame.write_csv(csv / f"{name}.csv")
        (parts / name).mkdir(parents=True)
        frame.head(1).write_parquet(parts / name / "part-0.parquet")
        frame.slice(1).write_parquet(parts / name / "part-1.parquet")
    assert read(csv).facts.equals(expected)
    assert read(parts).facts.equals(expected)


def test_the_source_value_can_be_the_person_id(tmp_path: Path) -> None:
    data = read(write(tmp_path), MAPPING.model_copy(update={"person_id": "person_source_value"}))
    assert column(data.facts, "fills", ("s1", "s2", "s3")) == [2, 0, 0]


def test_the_sql_is_read_alike_by_postgresql() -> None:
    """Each text parses in both dialects and means the same in both, but for how each dialect is written down."""
    texts = [fact_sql(CATALOGUE.fact(n), r, SNAPSHOT, descendants=True) for n, r in MAPPING.facts.items()]
    texts += [outcome_sql(rows, SNAPSHOT, descendants=True) for rows in MAPPING.outcomes.values()]
    for text in texts:
        one, two = (sqlglot.transpile(text, read=dialect, write="")[0] for dialect in ("postgres", "duckdb"))
        alike = two.replace(" NULLS LAST", "").replace("TEXT", "VARCHAR")
        for column in ("value", "birth_datetime", "gender_concept_id"):
            alike = alike.replace(f"NOT {column} IS NULL", f"{column} IS NOT NULL")
        assert one.replace(" NULLS FIRST", "").replace("NOT value IS NULL", "value IS NOT NULL") == alike


@pytest.mark.parametrize("rows", [*MAPPING.facts.items()], ids=[*MAPPING.facts])
def test_every_query_of_a_fact_ends_at_the_snapshot(rows: tuple[str, OmopRows]) -> None:
    """Whatever the catalogue says: each table of events is read under `date <= snapshot`, and nothing adds days."""
    name, where = rows
    text = fact_sql(CATALOGUE.fact(name), where, SNAPSHOT, descendants=True)
    limits = [date.fromisoformat(found) for found in re.findall(r"<= DATE '([-0-9]+)'", text)]
    assert all(limit <= SNAPSHOT for limit in limits)
    assert len(limits) == text.count(f"FROM {where.table} WHERE") - (where.table == "person")
    assert all(date.fromisoformat(found) <= SNAPSHOT for found in re.findall(r"DATE '([-0-9]+)'", text))


def test_no_window_can_be_written_that_ends_after_the_snapshot() -> None:
    for window in ({"until_days": -1}, {"lookback_days": -5}, {"lookback_days": 30, "until_days": 30}):
        with pytest.raises(ValueError, match=r"window|greater"):
            Derivation.model_validate({"how": "last"} | window)


def test_a_csv_folder_is_checked_cell_by_cell(tmp_path: Path) -> None:
    """Each bad cell's table and column are named; an empty table is one; other columns are not read at all."""
    folder = tmp_path / "csv"
    folder.mkdir()
    tables = frames() | {"death": frames()["death"].clear()}
    for name, frame in tables.items():
        frame.with_columns(note=pl.lit("Jane Canary")).write_csv(folder / f"{name}.csv")
    assert read(folder).facts["dead"].sum() == 0
    with open_engine(folder) as engine:
        assert "note" not in engine.query("SELECT * FROM person", "x").columns
    bad = tables["measurement"].with_columns(pl.lit("high 4711").alias("value_as_number"))
    bad.write_csv(folder / "measurement.csv")
    with pytest.raises(OperatorError, match="data-type") as caught:
        read(folder)
    assert "measurement.csv, column value_as_number: 12 rows" in caught.value.what
    assert "4711" not in caught.value.what
    (folder / "measurement.csv").write_text("just;text\n1;2\n")
    with pytest.raises(OperatorError, match="data-delimiter"):
        read(folder)


@pytest.mark.parametrize(("lines", "code"), [
    ("\0", "data-nul"), ("\n1" + "," * 40, "data-no-columns"), ('\n"open', "data-no-columns"),
    ("\n" + "x" * 1_000_000, "data-line-too-long"), ("\n1,2026-01-01\n\0,2026-01-01", "data-nul"),
    ("\n1,2026-01-01\n2;2026-01-01", "data-no-columns"), ("\n1,2026-13-01", "data-type"),
    ("\n1,2026-01-01\n1," + "9" * 3_000_000, "data-line-too-long"),
])  # fmt: skip
def test_a_broken_csv_is_refused(lines: str, code: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    (folder / "death.parquet").unlink()
    (folder / "death.csv").write_text("person_id,death_date\n2,2026-01-01\n")
    assert read(folder).facts["dead"].sum() == 1
    (folder / "death.csv").write_text("person_id,death_date" + lines)
    with pytest.raises(OperatorError, match=code) as caught:
        read(folder)
    assert "death" in caught.value.what
    assert caught.value.__cause__ is None


def test_person_ids_that_are_words_are_refused(tmp_path: Path) -> None:
    tables = frames() | {"person": frames()["person"].with_columns(person_id=pl.lit("MRN 4711"))}
    with pytest.raises(OperatorError, match="data-type") as caught:
        read(write(tmp_path, tables))
    assert "4711" not in caught.value.what


def broken(path: Path, name: str) -> Path:
    tables = frames()
    if name == "no such path":
        return path / "gone"
    if name == "no database":
        (path / "x.duckdb").write_bytes(b"nothing" * 100)
        return path / "x.duckdb"
    if name == "empty folder":
        return path
    if name == "table missing":
        tables.pop("death")
    elif name == "column missing":
        tables["measurement"] = tables["measurement"].drop("value_as_number")
    elif name == "text for numbers":
        tables["measurement"] = tables["measurement"].with_columns(value_as_number=pl.lit("high 4711"))
    elif name == "person twice":
        tables["person"] = pl.concat([tables["person"], tables["person"].head(1)])
    elif name == "nobody":
        tables["person"] = tables["person"].clear()
    elif name == "unknown gender":
        tables["person"] = tables["person"].with_columns(gender_concept_id=pl.lit(4711))
    write(path, tables)
    if name == "broken parquet":
        (path / "death.parquet").write_bytes(b"PAR1garbage")
    if name == "quote in the path":
        return write(path / "it's", tables)
    return path


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("no such path", "data-missing-file"), ("no database", "data-unreadable"),
        ("empty folder", "data-table-missing"), ("table missing", "data-table-missing"),
        ("column missing", "data-column-missing"), ("text for numbers", "data-unreadable"),
        ("person twice", "data-duplicate-id"), ("nobody", "data-empty"), ("unknown gender", "data-value-unknown"),
        ("broken parquet", "data-unreadable"), ("quote in the path", "data-path"),
    ],
)  # fmt: skip
def test_a_bad_source_is_refused_without_a_value(name: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        read(broken(tmp_path, name))
    assert caught.value.code == code
    assert caught.value.exit_code is ExitCode.DATA
    assert "4711" not in f"{caught.value} {caught.value.do}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("facts", {"bp": BP | {"value": "birth_datetime"}}, "measurement has no"),
        ("facts", {"bp": BP | {"table": "pg_catalog"}}, "table"),
        ("facts", {"bp": BP | {"concepts": ["1); DROP TABLE person; --"]}}, "concepts"),
        ("facts", {"bp": BP | {"within_days": 3}}, "looks back only"),
        ("facts", {"age": {"table": "person", "concepts": [1]}}, "person table"),
        ("facts", {"dead": {"table": "death", "concepts": [1]}}, "no concept"),
        ("outcomes", {"event": {"table": "death"}}, "within_days"),
    ],
)
def test_a_mapping_holds_no_sql_and_no_nonsense(name: str, rows: dict[str, object], words: str) -> None:
    body = MAPPING.model_dump()
    body[name] |= rows
    with pytest.raises(ValueError, match=words):
        OmopMapping.model_validate(body)


def test_a_derivation_without_its_value_is_refused(tmp_path: Path) -> None:
    for name in ("bp_mean", "streak"):
        with pytest.raises(OperatorError, match="source-mismatch"):
            fact_sql(CATALOGUE.fact(name), OmopRows(table="measurement"), SNAPSHOT, descendants=False)


def test_check_finds_impossible_values(tmp_path: Path) -> None:
    tables = frames()
    tables["measurement"] = tables["measurement"].with_columns(pl.col("value_as_number") * 1e6)
    found = check(OmopSource(mapping=MAPPING, path=write(tmp_path, tables)), CATALOGUE, LABELS)
    assert {finding.column for finding in found} == {"bp", "bp_before", "bp_mean"}


def test_nothing_but_the_source_can_be_read(tmp_path: Path) -> None:
    """A view in a hospital's own DuckDB file that points elsewhere is refused by the engine."""
    write(tmp_path / "secret")
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as db:
        for name in ROWS:
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{tmp_path}/secret/{name}.parquet')")
    with pytest.raises(OperatorError, match="data-unreadable"):
        read(tmp_path / "cdm.duckdb")
    shutil.rmtree(tmp_path / "secret")


def test_the_shipped_mapping_fits_the_shipped_catalogue() -> None:
    catalogue = load_catalogue("cardiometabolic")
    source = load_source("cardiometabolic-omop", Path("x"))
    assert isinstance(source, OmopSource)
    source.mapping.check(catalogue)
    assert set(source.mapping.facts) == {fact.name for fact in catalogue.facts}
    assert all(
        source.mapping.outcomes[label.outcome].within_days == label.window_days for label in load_labels(catalogue)
    )
    for name, rows in source.mapping.facts.items():
        assert fact_sql(catalogue.fact(name), rows, SNAPSHOT, descendants=False)
