"""docs/tags.md lists every reason, every finding and every error, and nothing else; its example rule works."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

import cameo_client.tags
from cameo_client.tags import author
from cameo_client.tags.reasons import REASONS
from cameo_client.tags.roles import MAY, ROLES

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "tags.md"
SOURCES = [path.read_text() for path in sorted(Path(cameo_client.tags.__path__[0]).glob("*.py"))]


def table(name: str) -> list[list[str]]:
    """The body of a table between its two marks."""
    match = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", PAGE.read_text(), re.DOTALL)
    assert match
    return [[cell.strip().strip("`") for cell in line.strip("|\n").split("|")] for line in match[1].splitlines()[2:]]


def codes(pattern: str) -> set[str]:
    return {code for source in SOURCES for code in re.findall(pattern, source)}


def test_every_reason_is_listed_as_it_is() -> None:
    assert table("reasons") == [[str(r.guard), r.code, r.effect, r.staff] for r in REASONS.values()]


def test_every_finding_is_listed() -> None:
    found = codes(r'Fault\(\s*"([a-z-]+)"') | codes(r'"(pack-field-[a-z]+)"')
    assert {row[0] for row in table("findings")} == found


def test_every_error_is_listed() -> None:
    found = codes(r'OperatorError\(\s*"([a-z-]+)"') | codes(r'_bad\("([a-z-]+)"')
    assert {row[0] for row in table("errors")} == found


def test_the_table_of_roles_is_that_of_the_code() -> None:
    names = {"diff --models": "diff-models", "approve --pack": "approve-pack", "export --counts": "export-counts"}
    shown = {}
    for first, *cells in table("roles"):
        allowed = {role for role, cell in zip(ROLES, cells, strict=True) if cell == "yes"}
        for command in re.findall(r"[a-z-]+(?: --[a-z]+)?", first.replace("`", "").split(" (")[0]):
            shown[names.get(command, command)] = allowed
    assert shown == {action: set(allowed) for action, allowed in MAY.items()}


def test_the_example_rule_lints_and_its_examples_hold(heart: Any, packs: Any, tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block
    rule = yaml.safe_load("\n".join(line.removeprefix("   ") for line in block[1].splitlines()))
    path = tmp_path / "heart.yaml"
    path.write_text((packs / "heart.yaml").read_text() + "\n" + "\n".join(
        line.removeprefix("   ") for line in block[1].splitlines()))  # fmt: skip
    assert rule[0]["id"] == "resting-bp-very-high"
    found = author.lint([path], heart.catalogue, today=date(2026, 6, 1))
    assert found["ok"], found["findings"]
    tested = author.test([path], heart.catalogue, today=date(2026, 6, 1))
    assert tested["ok"]
    assert sum(case["rule"] == rule[0]["id"] for case in tested["cases"]) == 3


@pytest.mark.parametrize("field", ["when", "on_unknown", "hysteresis", "funding", "review_by", "facts_schema"])
def test_the_fields_are_described(field: str) -> None:
    assert field in PAGE.read_text()
