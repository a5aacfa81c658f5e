"""Hostile packs as whole files: refused at lint with file, line and remedy, in bounded time; nothing is compiled."""

from __future__ import annotations

import builtins
import json
import re
import socket
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import cameo_client
from cameo_client.cli import app
from cameo_client.tags import bind, compile, engine
from cameo_client.tags.finding import errors
from cameo_client.tags.lint import bind_pack, lint
from cameo_protocol.console import execute
from cameo_protocol.errors import OperatorError

TODAY = date(2026, 6, 1)

HOSTILE_WHEN = {
    "file access": ("sbp IN (SELECT a FROM read_csv('/etc/passwd'))", "predicate-not-allowed"),
    "network access": ("sbp IN (SELECT a FROM read_parquet('https://example.org/x'))", "predicate-not-allowed"),
    "glob of files": ("sbp IN (SELECT a FROM '/home/*.csv')", "predicate-not-allowed"),
    "another table": ("sbp > (SELECT max(sbp) FROM self)", "predicate-not-allowed"),
    "subquery": ("EXISTS (SELECT 1)", "predicate-not-allowed"),
    "two statements": ("sbp > 1; DROP TABLE tags", "predicate-token"),
    "comment": ("sbp > 1 -- AND dx_t2d", "predicate-token"),
    "aggregate": ("count(sbp) > 1", "predicate-constant"),
    "aggregate as a condition": ("bool_or(dx_t2d)", "predicate-not-allowed"),
    "window": ("avg(sbp) OVER (PARTITION BY sex) > 1", "predicate-constant"),
    "function that fills memory": ("lpad(sex, 1000000000) = 'a'", "predicate-constant"),
    "function as a condition": ("regexp_matches(sex, '(a+)+$')", "predicate-not-allowed"),
    "cast": ("CAST(sbp AS INT) > 1", "predicate-constant"),
    "extension": ("LOAD httpfs", "predicate-syntax"),
    "8,000 ORs": (" OR ".join(["dx_t2d"] * 8000), "predicate-too-long"),
    "41 ORs": (" OR ".join(["dx_t2d"] * 41), "predicate-too-large"),
    "10,000 nested brackets": ("(" * 10_000 + "dx_t2d" + ")" * 10_000, "predicate-too-long"),
    "900 nested brackets": ("(" * 900 + "dx_t2d" + ")" * 900, "predicate-too-deep"),
    "constant": ("TRUE", "predicate-constant"),
    "constant in an OR": ("dx_t2d OR 1 = 1", "predicate-constant"),
    "always true": ("sbp >= 60 OR sbp < 60", "always-true"),
    "never true": ("sbp > 150 AND sbp < 140", "never-true"),
    "slip of a digit": ("sbp >= 1400", "implausible"),
    "mg/dL for mmol/L": ("ldl >= 130", "implausible"),
    "percent for a share": ("risk_t2d_12m >= 30", "implausible"),
    "unknown enum value": ("ckd_stage = 'g9'", "enum-value-unknown"),
    "unknown column": ("spb >= 140", "column-unknown"),
}
HOSTILE_FIELDS = {
    "purpose the columns forbid": ({"purpose": "marketing", "review": "always"}, "purpose", "purpose-forbids-column"),
    "self-review": ({"owner": "a clinic", "reviewer": "a  clinic"}, "reviewer", "self-review"),
    "hostile unless": ({"unless": "sbp IN (SELECT 1)"}, "unless", "predicate-not-allowed"),
    "template that reaches into objects": ({"explain": "You: {sbp.__class__}"}, "explain", "explain-brace"),
}  # fmt: skip
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]\n" for i in range(12)
)
HOSTILE_FILES = {
    "alias bomb": (BOMB, "yaml-alias", 1),
    "duplicate key": ("pack:\n  id: a\n  id: b\n", "yaml-duplicate-key", 3),
    "python object": ("pack: !!python/object/apply:os.system [id]\n", "yaml-tag", 1),
    "deep nesting": ("pack: " + "[" * 10_000, "yaml-too-deep", 1),
    "large file": ("# " + "x" * 300_000, "yaml-too-long", 0),
    "binary": ("\x00\x01", "yaml-syntax", 0),
}


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no socket, and no expression of the data engine while a pack is checked."""
    lint("a: 1", "warm.yaml", object(), today=TODAY)  # type: ignore[arg-type]
    bind.parse("a IN (1)")

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a pack reached the data engine, a file or the network")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(pl, "sql_expr", refuse)
    monkeypatch.setattr(pl, "col", refuse)
    monkeypatch.setattr(pl, "lit", refuse)
    monkeypatch.setattr(bind, "compile_tree", refuse)
    monkeypatch.setattr(engine, "compile_leaf", refuse)
    monkeypatch.setattr(compile, "compile_leaf", refuse)


def line_of(text: str, field: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if re.match(rf"\s+(- )?{field}:", line))


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("kind", HOSTILE_WHEN)
def test_a_hostile_predicate_is_refused_on_its_line(kit: Any, kind: str) -> None:
    when, code = HOSTILE_WHEN[kind]
    text = kit.text(kit.rule(id="sound"), kit.rule(id="evil", when=when))
    began = time.process_time()
    _, bound, found = lint(text, "evil.yaml", kit.schema, today=TODAY)
    assert time.process_time() - began < 2
    (finding,) = (one for one in errors(found) if one.code == code)
    place = text.splitlines()[: finding.line]
    assert place[-1].lstrip().startswith("when:")
    assert sum(line.lstrip("- ").startswith("id:") for line in place) == 3  # the pack's, the sound and the evil rule's
    assert (finding.file, finding.rule, bool(finding.do)) == ("evil.yaml", "evil", True)
    assert code in ("always-true", "never-true", "implausible") or [item.rule.id for item in bound] == ["sound"]
    with pytest.raises(OperatorError, match="tag-pack-invalid"):
        bind_pack(text, "evil.yaml", kit.schema, today=TODAY)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("kind", HOSTILE_FIELDS)
def test_a_hostile_field_is_refused_on_its_line(kit: Any, kind: str) -> None:
    changes, field, code = HOSTILE_FIELDS[kind]
    text = kit.text(kit.rule(**changes))
    found = {one.code: one for one in errors(lint(text, "evil.yaml", kit.schema, today=TODAY)[2])}
    assert found[code].line == line_of(text, field)
    assert found[code].do


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("kind", HOSTILE_FILES)
def test_a_hostile_file_is_refused_on_its_line(kit: Any, kind: str) -> None:
    text, code, line = HOSTILE_FILES[kind]
    began = time.process_time()
    pack, bound, (finding,) = lint(text, "evil.yaml", kit.schema, today=TODAY)
    assert time.process_time() - began < 2
    assert (pack, bound) == (None, ())
    assert (finding.file, finding.line, finding.code, bool(finding.do)) == ("evil.yaml", line, code, True)


def test_the_remedies_help(kit: Any) -> None:
    def remedy(when: str) -> str:
        return lint(kit.text(kit.rule(when=when)), "p.yaml", kit.schema, today=TODAY)[2][0].do

    assert "did you mean sbp" in remedy("spb >= 140")
    assert "did you mean 'g3'" in remedy("ckd_stage = 'G3'")
    assert "mmol/L" in remedy("ldl >= 130")
    assert "split" in remedy(" OR ".join(["dx_t2d"] * 41))


def test_every_fault_of_a_rule_is_told_at_once(kit: Any) -> None:
    text = kit.text(kit.rule(when="spb >= 140 AND ldl >= 130", unless="ckd_stage = 'g9'"))
    found = lint(text, "p.yaml", kit.schema, today=TODAY)[2]
    assert {one.code for one in found} == {"column-unknown", "implausible", "enum-value-unknown"}


def test_a_pack_of_many_tangled_rules_is_refused_in_bounded_time(kit: Any) -> None:
    tangled = " AND ".join(f"(sbp > {90 + i} OR dbp > {60 + i})" for i in range(9))
    rules = [kit.rule(id=f"r{i}", when=f"{tangled} AND age > {i}", owner="a clinic") for i in range(60)]
    began = time.process_time()
    found = lint(kit.text(*rules), "p.yaml", kit.schema, today=TODAY)[2]
    assert "pack-too-entangled" in {one.code for one in errors(found)}
    assert time.process_time() - began < 20


def test_the_command_refuses_with_file_line_and_remedy(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(
        kit.text(*(kit.rule(id=f"evil-{i}", when=when) for i, (when, _) in enumerate(HOSTILE_WHEN.values())))
    )
    monkeypatch.setattr(
        sys, "argv", ["cameo-node", "tags", "lint", str(file), "--catalogue", "cardiometabolic", "--json"]
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert execute(app, "cameo-node") == 2
    answer = json.loads(capsys.readouterr().out)
    refused = {row["rule"] for row in answer["findings"] if row["level"] == "error"}
    assert refused == {f"evil-{i}" for i in range(len(HOSTILE_WHEN))}
    assert all(row["file"] == str(file) and row["line"] > 0 and row["do"] for row in answer["findings"])


def test_no_text_of_a_rule_can_reach_the_data_engines_parser() -> None:
    """The client's source calls none of Polars' SQL entries."""
    for file in Path(cameo_client.__path__[0]).rglob("*.py"):
        assert not re.search(r"\b(sql_expr|SQLContext|pl\.sql|polars\.sql)\b", file.read_text()), file
