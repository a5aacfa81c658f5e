"""The control table names tests that exist, and answers every paragraph that a review asks about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "security-review.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
HIPAA = ("(a)(1)", "(a)(2)(i)", "(a)(2)(ii)", "(a)(2)(iii)", "(a)(2)(iv)", "(b)", "(c)(1)", "(c)(2)", "(d)", "(e)(1)",
         "(e)(2)(i)", "(e)(2)(ii)")  # fmt: skip
GDPR = ("25(1)", "25(2)", "32(1)(a)", "32(1)(b)", "32(1)(c)", "32(1)(d)", "32(4)", "35(7)(a)", "35(7)(b)", "35(7)(c)",
        "35(7)(d)")  # fmt: skip
PIPL = ("6", "8", "9", "13", "14", "15", "19", "20", "21", "23", "24", "28", "29", "31", "38", "40", "44", "45", "47",
        "48", "51", "54", "55", "56", "57")  # fmt: skip


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def section(title: str) -> list[list[str]]:
    """The rows of the table under a heading, as cells."""
    text = PAGE.split(f"## {title}")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 60
    missing = [f"{file}::{test}" for file, test in named if not (REPO / file).exists()]
    missing += [f"{f}::{t}" for f, t in named if t and (REPO / f).exists() and t not in functions(REPO / f)]
    assert not missing


def test_every_row_is_filled() -> None:
    for title in ("HIPAA", "Personal Information", "GDPR"):
        for row in section(title):
            assert len(row) == 4, row
            assert row[0], row
            assert row[1], row
            assert NAMED.search(row[2]) or "inputs below" in row[1], f"{row[0]}: no test is named"


def test_every_paragraph_has_its_row() -> None:
    assert [row[0].split()[0] for row in section("HIPAA")] == list(HIPAA)
    assert [row[0].split()[0] for row in section("GDPR")] == list(GDPR)
    numbers = {number for row in section("Personal Information") for number in re.findall(r"\d+", row[0])}
    assert set(PIPL) <= numbers
