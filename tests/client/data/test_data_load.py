"""The door: good tables become typed facts under pseudonyms; every kind of bad table is refused without a value."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cameo_client.data import table as table_module
from cameo_client.data.catalogue import load_catalogue, load_labels, load_source
from cameo_client.data.columns import model_columns, outcome_column
from cameo_client.data.describe import describe
from cameo_client.data.hospital import HospitalData, check, load
from cameo_client.data.pseudonyms import derive_key, pseudonym
from cameo_client.data.source import TableMapping, TableSource
from cameo_protocol.errors import Bug, ExitCode, OperatorError
from cameo_protocol.facts import Catalogue, Fact, LabelDefinition

KEY = bytes(range(32))
CATALOGUE = Catalogue(
    id="tiny",
    version=1,
    title="Tiny",
    facts=(
        Fact(name="age", meaning="Age", type="float", group="static", plausible=(0, 120), scale=(20, 90), model=True,
             missing=False, required=True),
        Fact(name="sex", meaning="Sex", type="enum", group="static", values=("female", "male"), model=True),
        Fact(name="ldl", meaning="LDL", type="float", group="dynamic", unit="mmol/L", plausible=(0.2, 15), scale=(1, 6),
             model=True, required=True, zero_is_missing=True),
        Fact(name="visits", meaning="Visits", type="int", group="behaviour", plausible=(0, 366)),
        Fact(name="dx", meaning="Diabetes", type="bool", group="dynamic"),
        Fact(name="since", meaning="Days since", type="int", group="need", plausible=(0, 36525)),
    ),
)  # fmt: skip
LABEL = LabelDefinition(id="event", version=1, meaning="Event", catalogue="tiny", outcome="out", exclude=("dx",))
MAPPING = TableMapping.model_validate(
    {
        "id": "clinic", "version": 1, "title": "Clinic", "catalogue": "tiny", "person_id": "pid",
        "missing": ["?", "NA"], "snapshot": date(2026, 1, 31),
        "facts": {
            "age": "age", "sex": {"column": "sex", "values": {"1": "male", "2": "female"}},
            "ldl": {"column": "ldl_mg", "factor": 0.5}, "visits": "visits", "dx": "dx",
            "since": {"column": "last", "date": True},
        },
        "outcomes": {"out": "out"},
        "ignore": ["name"],
    }
)  # fmt: skip
HEADER = "pid,name,age,sex,ldl_mg,visits,dx,last,out"
ROWS = [
    "p1,Ann Secret,60,2,8,3,0,2026-01-01,1",
    "p2,Bob Secret,70.5,1,?,0,1,2026-01-31,1",
    "p3,Cem Secret,80, 1 ,0,,true,NA,0",
    "p4,Dia Secret,50,?,6,12,,2025-01-31,1",
]


def write(path: Path, rows: list[str] | None = None, header: str = HEADER) -> Path:
    file = path / "clinic.csv"
    file.write_text("\n".join([header, *(ROWS if rows is None else rows)]) + "\n")
    return file


def read(file: Path, mapping: TableMapping = MAPPING) -> HospitalData:
    return load(TableSource(mapping=mapping, path=file), CATALOGUE, (LABEL,), KEY)


def row_of(data: HospitalData, person: str) -> dict[str, object]:
    return data.facts.row(by_predicate=pl.col("pseudonym") == pseudonym(KEY, person), named=True)


def test_facts_are_typed_and_converted(tmp_path: Path) -> None:
    data = read(write(tmp_path))
    assert data.facts.schema == {
        "pseudonym": pl.String, "age": pl.Float64, "sex": pl.Enum(["female", "male"]), "ldl": pl.Float64,
        "visits": pl.Int64, "dx": pl.Boolean, "since": pl.Int64,
    }  # fmt: skip
    first, third = row_of(data, "p1"), row_of(data, "p3")
    first.pop("pseudonym")
    assert first == {"age": 60.0, "sex": "female", "ldl": 4.0, "visits": 3, "dx": False, "since": 30}
    assert (third["sex"], third["ldl"], third["visits"], third["dx"], third["since"]) == (
        "male",
        None,
        None,
        True,
        None,
    )
    assert data.snapshot == date(2026, 1, 31)


def test_person_ids_do_not_survive(tmp_path: Path) -> None:
    data = read(write(tmp_path))
    names = (
        hmac.new(KEY, b"cameo/pseudonym/1\0" + p, hashlib.sha256).hexdigest() for p in (b"p1", b"p2", b"p3", b"p4")
    )
    expected = sorted(name[:32] for name in names)
    assert data.facts["pseudonym"].to_list() == expected
    assert data.outcomes["pseudonym"].to_list() == expected
    assert "Secret" not in repr(data)
    assert "60" not in repr(data)
    assert pl.DataFrame not in {type(value) for value in vars(data.quality).values()}


def test_direct_identifiers_are_not_read(tmp_path: Path) -> None:
    frame = table_module.read_table(TableSource(mapping=MAPPING, path=write(tmp_path)))
    assert "name" not in frame.columns
    assert not any("Secret" in str(value) for row in frame.rows() for value in row)


def test_outcomes_leave_out_the_excluded_and_the_unknown(tmp_path: Path) -> None:
    data = read(write(tmp_path, [*ROWS, "p5,x,60,1,8,3,0,,?", "p6,x,61,1,8,3,0,,0"]))
    by_person = dict(zip(data.outcomes["pseudonym"], data.outcomes["event"], strict=True))
    found = [by_person[pseudonym(KEY, f"p{number}")] for number in range(1, 7)]
    assert found == [1, None, None, None, None, 0]  # p2, p3 have the disease; p4's disease, p5's outcome is unknown
    assert data.outcomes.schema["event"] == pl.Int8
    assert int(np.isnan(outcome_column(data, "event")).sum()) == 4


def test_a_required_fact_keeps_only_those_for_whom_it_is_true(tmp_path: Path) -> None:
    label = LABEL.model_copy(update={"exclude": (), "require": ("dx",)})
    data = load(TableSource(mapping=MAPPING, path=write(tmp_path)), CATALOGUE, (label,), KEY)
    by_person = dict(zip(data.outcomes["pseudonym"], data.outcomes["event"], strict=True))
    assert [by_person[pseudonym(KEY, f"p{number}")] for number in range(1, 5)] == [None, 1, 0, None]


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    one = read(write(tmp_path))
    two = read(write(tmp_path, list(reversed(ROWS))))
    assert one.facts.equals(two.facts)
    assert one.outcomes.equals(two.outcomes)


def test_model_columns(tmp_path: Path) -> None:
    data = read(write(tmp_path))
    columns = model_columns(data, CATALOGUE)
    assert list(columns) == ["age", "sex", "ldl"]
    assert columns["sex"].dtype == np.int64
    assert sorted(columns["sex"].tolist()) == [-1, 0, 1, 1]
    assert columns["ldl"].dtype == np.float64
    assert int(np.isnan(columns["ldl"]).sum()) == 2
    with pytest.raises(Bug):
        model_columns(data, load_catalogue("heart"))


def test_parquet_gives_the_same_facts(tmp_path: Path) -> None:
    text = pl.read_csv(write(tmp_path), infer_schema=False)
    typed = text.with_columns(
        pl.col("age").cast(pl.Float32), pl.col("last").str.to_date("%Y-%m-%d", strict=False),
        pl.col("dx").replace({"0": "false", "1": "true"}),
    )  # fmt: skip
    typed.write_parquet(tmp_path / "clinic.parquet")
    assert read(tmp_path / "clinic.parquet").facts.equals(read(tmp_path / "clinic.csv").facts)


def test_crlf_quotes_and_semicolons(tmp_path: Path) -> None:
    body = "\r\n".join(line.replace(",", ";").replace("Ann Secret", '"Ann; ""Secret"""') for line in [HEADER, *ROWS])
    file = tmp_path / "clinic.csv"
    file.write_bytes(body.encode() + b"\r\n")
    plain = read(write(tmp_path)).facts
    file.write_bytes(body.encode() + b"\r\n")
    assert read(file, MAPPING.model_copy(update={"delimiter": ";"})).facts.equals(plain)


def with_row(row: str) -> Callable[[Path], Path]:
    return lambda path: write(path, [*ROWS, row])


def raw(data: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (path / "clinic.csv").write_bytes(data)
        return path / "clinic.csv"

    return make


GOOD = "\n".join([HEADER, *ROWS]).encode() + b"\n"
BAD: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "no such file": (lambda path: path / "gone.csv", "data-missing-file", "/gone.csv: no such file"),
    "a folder": (lambda path: path, "data-missing-file", ""),
    "empty file": (raw(b""), "data-empty", "empty"),
    "header only": (raw(HEADER.encode() + b"\n"), "data-empty", "no rows"),
    "byte-order mark": (raw(b"\xef\xbb\xbf" + GOOD), "data-encoding", "byte-order mark"),
    "utf-16": (raw(GOOD.decode().encode("utf-16")), "data-encoding", "byte-order mark"),
    "latin-1": (raw(GOOD.replace(b"Ann", b"\xc4nn")), "data-encoding", "UTF-8"),
    "cut in a character": (raw(GOOD + b"\xc2"), "data-encoding", "UTF-8"),
    "nul": (raw(GOOD.replace(b"Ann", b"A\0n")), "data-nul", "NUL"),
    "wrong delimiter": (raw(GOOD.replace(b",", b";")), "data-delimiter", "delimiter"),
    "a cell of a million characters": (with_row("p5,x,60,1,8,3,0,," + "9" * 10**6), "data-line-too-long", "128 KiB"),
    "a cell of 5,000 characters": (with_row("p5,x,60,1,8,3,0,," + "9" * 5000), "data-cell-too-long", "1000"),
    "a short row": (with_row("p5,x,60"), "data-ragged", "fields"),
    "a long row": (with_row("p5,x,60,1,8,3,0,,1,7"), "data-ragged", "fields"),
    "a blank line inside": (with_row("\np5,x,60,1,8,3,0,,1"), "data-ragged", "fields"),
    "an open quote": (with_row('p5,"x,60,1,8,3,0,,1'), "data-malformed", "quotes"),
    "an unknown column": (raw(GOOD.replace(b"pid,name", b"pid,ssn")), "data-column-unknown", "column 2"),
    "a missing column": (raw(GOOD.replace(b"ldl_mg", b"ldl_mmol")), "data-column-missing", "ldl_mg"),
    "a column twice": (raw(GOOD.replace(b"visits,dx", b"dx,dx")), "data-column-twice", "column 7"),
    "no header": (raw("\n".join(ROWS).encode()), "data-column-missing", "pid"),
    "text for a number": (with_row("p5,x,sixty7,1,8,3,0,,1"), "data-type", "column age"),
    "a formula cell": (with_row("p5,x,=1+1,1,8,3,0,,1"), "data-type", "column age"),
    "nan": (with_row("p5,x,60,1,nan,3,0,,1"), "data-type", "column ldl"),
    "infinity": (with_row("p5,x,60,1,1e999,3,0,,1"), "data-type", "column ldl"),
    "a broken whole number": (with_row("p5,x,60,1,8,3.5,0,,1"), "data-type", "column visits"),
    "a huge whole number": (with_row("p5,x,60,1,8,1e30,0,,1"), "data-type", "column visits"),
    "an unknown code": (with_row("p5,x,60,9,8,3,0,,1"), "data-value-unknown", "column sex"),
    "a bool that is none": (with_row("p5,x,60,1,8,3,maybe,,1"), "data-value-unknown", "column dx"),
    "a wrong date": (with_row("p5,x,60,1,8,3,0,31.12.2025,1"), "data-type", "column since"),
    "a date after the snapshot": (with_row("p5,x,60,1,8,3,0,2026-02-01,1"), "data-after-snapshot", "column since"),
    "an impossible value": (with_row("p5,x,6000,1,8,3,0,,1"), "data-impossible", "column age"),
    "a missing age": (with_row("p5,x,?,1,8,3,0,,1"), "data-required-missing", "column age"),
    "an outcome that is no number": (with_row("p5,x,60,1,8,3,0,,ill"), "data-type", "column out"),
    "an id twice": (with_row("p1,x,60,1,8,3,0,,1"), "data-duplicate-id", "column pid"),
    "no id": (with_row(",x,60,1,8,3,0,,1"), "data-id-missing", "column pid"),
    "one patient": (raw(b"\n".join(GOOD.splitlines()[:2]) + b"\n"), "data-too-few-patients", "fewer than 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused_by_code_column_and_no_value(name: str, tmp_path: Path) -> None:
    make, code, words = BAD[name]
    with pytest.raises(OperatorError) as caught:
        read(make(tmp_path))
    error = caught.value
    assert error.code == code
    assert words in error.what
    assert error.exit_code is ExitCode.DATA
    assert error.do
    text = f"{error} {error.do}"
    assert not any(
        value in text for value in ("Secret", "sixty7", "6000", "9999", "maybe", "ill ", "p5", "p1", "31.12")
    )
    assert error.__cause__ is None


@pytest.mark.parametrize("content", [b"not parquet", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_broken_parquet_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "clinic.parquet").write_bytes(content)
    with pytest.raises(OperatorError, match="data-unreadable"):
        read(tmp_path / "clinic.parquet")


def test_nested_parquet_columns_are_refused(tmp_path: Path) -> None:
    frame = pl.read_csv(write(tmp_path), infer_schema=False).with_columns(pl.concat_list("age").alias("age"))
    frame.write_parquet(tmp_path / "clinic.parquet")
    with pytest.raises(OperatorError, match="column age: no text, number or date"):
        read(tmp_path / "clinic.parquet")


def test_counts_below_eleven_are_hidden(tmp_path: Path) -> None:
    def rows(bad: int) -> list[str]:
        return [f"p{i},x,{'x' if i < bad else 60},1,8,3,0,,1" for i in range(40)]

    with pytest.raises(OperatorError, match="fewer than 11 rows"):
        read(write(tmp_path, rows(10)))
    with pytest.raises(OperatorError, match="11 rows hold no number"):
        read(write(tmp_path, rows(11)))


def test_check_lists_row_numbers_for_the_hospitals_own_screen(tmp_path: Path) -> None:
    file = write(tmp_path, [*ROWS, "p5,x,6000,9,8,3,0,,1", "p1,x,60,1,x,3,0,,1"])
    found = {f.code: f.rows for f in check(TableSource(mapping=MAPPING, path=file), CATALOGUE, (LABEL,))}
    assert found == {
        "data-value-unknown": (5,), "data-type": (6,), "data-duplicate-id": (1, 6), "data-impossible": (5,),
    }  # fmt: skip
    with pytest.raises(OperatorError, match="and 3 more faults"):
        read(file)


def test_impossible_values_are_cleared_only_where_the_mapping_says_so(tmp_path: Path) -> None:
    clearing = MAPPING.model_copy(update={"impossible": "clear"})
    rows = [f"p{i},x,60,1,8,3,0,,1" for i in range(100)]
    rows[0], rows[1] = "p0,x,6000,1,8,3,0,,1", "p1,x,60,1,400,3,0,,1"
    data = read(write(tmp_path, rows), clearing)
    assert data.facts.height == 99  # age may not be missing: that patient is left out, and the report says so
    assert row_of(data, "p1")["ldl"] is None
    assert (data.quality.cleaned, data.quality.left_out) == ("fewer than 11", "fewer than 11")
    assert {rule.id for rule in data.quality.rules} >= {"impossible:age", "impossible:ldl"}
    assert data.quality.records.len() == 99
    with pytest.raises(OperatorError, match="data-impossible"):
        read(write(tmp_path, rows))


def test_cleaning_that_leaves_nobody_is_refused(tmp_path: Path) -> None:
    clearing = MAPPING.model_copy(update={"impossible": "clear"})
    with pytest.raises(OperatorError, match="data-too-few-patients"):
        read(write(tmp_path, ["p1,x,6000,1,8,3,0,,1", "p2,x,6000,1,8,3,0,,1"]), clearing)


def test_an_outcome_over_another_window_is_refused(tmp_path: Path) -> None:
    source = TableSource(mapping=MAPPING, path=write(tmp_path))
    with pytest.raises(OperatorError, match="data-outcome-unmapped"):
        load(source, CATALOGUE, (LABEL.model_copy(update={"window_days": 365}),), KEY)


def test_a_short_key_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(Bug):
        load(TableSource(mapping=MAPPING, path=write(tmp_path)), CATALOGUE, (LABEL,), b"short")
    assert derive_key(KEY, "a") != derive_key(KEY, "b")


def test_describe_rounds(tmp_path: Path) -> None:
    lines = {line.name: line.known for line in describe(read(write(tmp_path)), CATALOGUE)}
    assert lines == {"age": 100, "sex": 75, "ldl": 50, "visits": 75, "dx": 75, "since": 75}


HEART_ROWS = [
    "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0",
    "35,1,4,?,0,?,0,130,1,-.5,?,?,7,3",
]


def test_heart_rows_of_both_number_styles(tmp_path: Path) -> None:
    file = tmp_path / "processed.test.data"
    file.write_text("\n".join(HEART_ROWS) + "\n")
    catalogue = load_catalogue("heart")
    data = load(load_source("heart", file), catalogue, load_labels(catalogue), KEY)
    first, second = row_of(data, "row 1"), row_of(data, "row 2")
    assert (first["cp"], first["thal"], first["ca"], first["fbs"]) == ("typical_angina", "fixed_defect", 0, True)
    assert (second["chol"], second["trestbps"], second["oldpeak"], second["thal"]) == (
        None,
        None,
        -0.5,
        "reversible_defect",
    )
    assert sorted(data.outcomes["heart_disease"].to_list()) == [0, 1]
