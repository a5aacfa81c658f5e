"""The predicate language: what it takes, and everything that must not get through it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cameo_client.tags.finding import Fault
from cameo_client.tags.predicate import And, Compare, Missing, Not, OneOf, Or, Surely, parse, to_sql
from cameo_client.tags.typecheck import check


def code_of(text: str) -> str:
    with pytest.raises(Fault) as caught:
        parse(text)
    return caught.value.code


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("sbp >= 140", Compare("sbp", ">=", 140.0)),
        ("140 <= sbp", Compare("sbp", ">=", 140.0)),
        ("oldpeak > -1.5", Compare("oldpeak", ">", -1.5)),
        ("dx", Compare("dx", "=", True)),
        ("dx = FALSE", Compare("dx", "=", False)),
        ("dx IS NOT TRUE", Not(Surely("dx", True))),
        ("sex <> 'it''s'", Compare("sex", "<>", "it's")),
        ("sex != 'a'", Compare("sex", "<>", "a")),
        ("sex IN ('a', 'b')", OneOf("sex", ("a", "b"))),
        ("sex NOT IN ('a')", Not(OneOf("sex", ("a",)))),
        ("a BETWEEN 1 AND 2", And((Compare("a", ">=", 1.0), Compare("a", "<=", 2.0)))),
        ("a IS NULL", Missing("a")),
        ("a IS NOT NULL", Not(Missing("a"))),
        (
            "NOT a AND b OR c",
            Or((And((Not(Compare("a", "=", True)), Compare("b", "=", True))), Compare("c", "=", True))),
        ),
        ("a OR b\n OR c", Or(tuple(Compare(name, "=", True) for name in "abc"))),
    ],
)
def test_takes(text: str, tree: object) -> None:
    assert parse(text) == tree
    assert parse(to_sql(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        # files, network, other tables
        ("sbp IN (SELECT 1)", "predicate-not-allowed"),
        ("sbp IN (SELECT column0 FROM read_csv('/etc/passwd'))", "predicate-not-allowed"),
        ("sbp IN (SELECT * FROM read_csv('http://127.0.0.1:9/x'))", "predicate-token"),
        ("EXISTS (SELECT 1)", "predicate-not-allowed"),
        ("sbp > (SELECT max(sbp) FROM self)", "predicate-not-allowed"),
        ("(SELECT TRUE)", "predicate-not-allowed"),
        ("sbp > 1 UNION SELECT 2", "predicate-syntax"),
        ("sbp > 1; DROP TABLE tags", "predicate-token"),
        ("sbp > 1 -- AND dx", "predicate-token"),
        ("sbp > 1 /* dx */", "predicate-token"),
        ("other.sbp > 1", "predicate-token"),
        ('"sbp" > 1', "predicate-token"),
        ("sbp > $1", "predicate-token"),
        ("sbp > ?", "predicate-token"),
        ("sbp > {x}", "predicate-token"),
        ("sbp > 0x10", "predicate-token"),
        ("sbp::int > 1", "predicate-token"),
        ("sex = e'\\x41'", "predicate-token"),
        ("sbp > 1\x00", "predicate-token"),
        ("ｓbp > 1", "predicate-token"),
        # functions, aggregates, windows, casts
        ("lpad(sex, 1000000000) = 'a'", "predicate-constant"),
        ("count(sbp) > dbp", "predicate-not-allowed"),
        ("count(sbp) > 1", "predicate-constant"),
        ("avg(sbp) OVER () > 1", "predicate-constant"),
        ("CAST(sbp AS int) > 1", "predicate-constant"),
        ("CASE WHEN dx THEN TRUE END", "predicate-not-allowed"),
        ("coalesce(sbp, 200) > 140", "predicate-constant"),
        ("random() > sbp", "predicate-not-allowed"),
        ("CURRENT_DATE > sbp", "predicate-not-allowed"),
        ("sex LIKE '%a'", "predicate-not-allowed"),
        ("sbp + 1 > 2", "predicate-token"),
        ("sbp > dbp", "predicate-two-columns"),
        ("sbp > - dbp", "predicate-not-allowed"),
        ("(sbp, dbp) = (1, 2)", "predicate-constant"),
        ("sbp = ANY (1)", "predicate-not-allowed"),
        ("sbp BETWEEN SYMMETRIC 2 AND 1", "predicate-not-allowed"),
        ("sbp IS DISTINCT FROM 1", "predicate-not-allowed"),
        ("sex = 'a' 'b'", "predicate-not-allowed"),
        ("sbp > 1 > 0", "predicate-constant"),
        # constants and nulls
        ("TRUE", "predicate-constant"),
        ("NOT FALSE", "predicate-constant"),
        ("NULL", "predicate-constant"),
        ("1", "predicate-constant"),
        ("1 = 1", "predicate-constant"),
        ("'a' = 'a'", "predicate-constant"),
        ("dx OR TRUE", "predicate-constant"),
        ("NULL IS NULL", "predicate-not-allowed"),
        ("sbp = NULL", "predicate-null"),
        ("sbp IN (1, NULL)", "predicate-null"),
        ("sbp > 1e999", "predicate-number"),
        # form and size
        ("", "predicate-syntax"),
        ("   ", "predicate-syntax"),
        ("sbp >=", "predicate-syntax"),
        ("AND", "predicate-syntax"),
        ("(sbp > 1", "predicate-syntax"),
        ("sbp > 1)", "predicate-syntax"),
        ("sbp > 1 sbp", "predicate-syntax"),
        ("sbp IN ()", "predicate-not-allowed"),
        ("x" * 2001, "predicate-too-long"),
        (" OR ".join(["dx"] * 8000), "predicate-too-long"),
        (" OR ".join(["dx"] * 41), "predicate-too-large"),
        ("sbp IN (" + ",".join(["1"] * 41) + ")", "predicate-too-large"),
        ("(" * 10_000 + "dx" + ")" * 10_000, "predicate-too-long"),
        ("(" * 900 + "dx" + ")" * 900, "predicate-too-deep"),
        ("(" * 17 + "dx" + ")" * 17, "predicate-too-deep"),
        ("NOT " * 400 + "dx", "predicate-too-deep"),
        ("sbp > " + "- " * 400 + "1", "predicate-too-deep"),
        ("NOT (" * 380 + "dx" + ")" * 380, "predicate-too-long"),
        ("NOT (" * 300 + "dx" + ")" * 300, "predicate-too-deep"),
    ],
)
def test_refuses(text: str, code: str) -> None:
    started = time.monotonic()
    assert code_of(text) == code
    assert time.monotonic() - started < 1


def test_forty_comparisons_and_sixteen_brackets_pass() -> None:
    assert len(parse(" OR ".join(["dx"] * 40)).parts) == 40  # type: ignore[union-attr]
    assert parse("(" * 16 + "dx" + ")" * 16) == Compare("dx", "=", True)


def test_no_file_is_opened_while_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hazard that keeps rule text away from the data engine: parsing alone must touch nothing."""
    import builtins
    import socket

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("parsing opened something")

    code_of("sbp IN (SELECT 1)")  # imports are done before the doors close
    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    assert code_of(f"sbp IN (SELECT a FROM read_csv('{tmp_path}/x.csv'))") == "predicate-not-allowed"


@pytest.mark.parametrize(
    ("text", "code", "remedy"),
    [
        ("spb >= 140", "column-unknown", "sbp"),
        ("SBP >= 140", "column-unknown", "sbp"),
        ("sbp >= 1400", "implausible", "mmHg"),
        ("ldl >= 130", "implausible", "mmol/L"),
        ("risk_t2d_12m >= 30", "implausible", "check the number"),
        ("segment = 0", "implausible", "check the number"),
        ("ckd_stage = 'G3'", "enum-value-unknown", "'g3'"),
        ("ckd_stage IN ('g2', 'g9')", "enum-value-unknown", "g"),
        ("ckd_stage >= 'g3'", "type-mismatch", "IN"),
        ("ckd_stage", "type-mismatch", "compare"),
        ("sbp", "type-mismatch", "compare"),
        ("sbp = '140'", "type-mismatch", "without quotes"),
        ("sbp = TRUE", "type-mismatch", "compare"),
        ("sbp IS TRUE", "type-mismatch", "yes/no"),
        ("dx_t2d = 1", "type-mismatch", "NOT dx_t2d"),
        ("dx_t2d > FALSE", "type-mismatch", "="),
        ("sex = 'Male'", "enum-value-unknown", "'male'"),
    ],
)
def test_type_check(kit: Any, text: str, code: str, remedy: str) -> None:
    faults = check(parse(text), kit.schema)
    assert [fault.code for fault in faults] == [code]
    assert remedy in faults[0].do + faults[0].what


def test_every_fault_of_a_predicate_is_reported(kit: Any) -> None:
    faults = check(parse("spb > 140 AND ldl > 130 AND sex = 'x'"), kit.schema)
    assert [fault.code for fault in faults] == ["column-unknown", "implausible", "enum-value-unknown"]
