"""docs/errors.md lists every code of the product, and every command that a text names exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer

from cameo_client.cli import app as node_app
from cameo_lab.cli import app as cameo_app

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"\b(cameo-node|cameo)((?: [a-z][a-z-]*)+)")


def error_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("error_table", ROOT / "scripts" / "error_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["error_table"] = module
    spec.loader.exec_module(module)
    return module


def test_every_code_of_the_source_is_in_the_table() -> None:
    table = error_table()
    page = (ROOT / "docs" / "errors.md").read_text()
    section = {
        kind: page.partition(intro.splitlines()[0])[2].partition("\n## ")[0] for kind, intro in table.SECTIONS.items()
    }
    missing = [code for kind, code in table.collect() if f"\n| `{code}` |" not in section[kind]]
    assert not missing, f"run: python scripts/error_table.py   (docs/errors.md lacks {missing})"


def test_the_collector_sees_every_way_to_raise(tmp_path: Path) -> None:
    table = error_table()
    room = tmp_path / "client"
    room.mkdir()
    (room / "a.py").write_text(
        "raise OperatorError('one-code', what=f'x {y}', do='z', exit=ExitCode.DATA)\n"
        "def helper(code, what):\n    return Reject(code, what=what)\n"
        "raise helper('two-code', 'w')\n"
        "what = 'v'\nrefusal = Refusal('three-code', 'floors.sigma', what)\n"
        "raise Bug('four-code', what='u')\n"
        "raise PartyFault('five-code', 3, what=f'box {n}')\n"
        "def closed():\n    return Void(round_no, 'six-code')\n"
        "_SAME = {'run_id': 'seven-code'}\n"
    )
    found = {key: value for key, value in table.collect(tmp_path).items() if key not in table.SPOKEN}
    assert found.keys() == {
        ("operator", "one-code"), ("peer", "two-code"), ("policy", "three-code"), ("bug", "four-code"),
        ("peer", "five-code"), ("void", "six-code"), ("peer", "seven-code"),
    }  # fmt: skip
    assert found["peer", "five-code"].whats == ["box …"]
    assert found["peer", "seven-code"].whats == ["its advert has another run id than our plan"]
    assert (found["operator", "one-code"].exits, found["operator", "one-code"].whats) == ({"6"}, ["x …"])
    assert found["policy", "three-code"].dos == ["v"]


def test_results_without_a_text_of_their_own_are_explained() -> None:
    assert all(entry.whats for (kind, _), entry in error_table().collect().items() if kind == "void")


def test_codes_are_kebab_case() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", code) for _, code in error_table().collect())


def tree(app: typer.Typer) -> click.Command:
    return typer.main.get_command(app)


def unknown(text: str) -> list[str]:
    """Commands that a text names and that do not exist; words after a full command are its arguments."""
    found = []
    for match in COMMAND.finditer(text):
        node: click.Command | None = tree(node_app if match[1] == "cameo-node" else cameo_app)
        for word in match[2].split():
            if not isinstance(node, click.Group):
                break
            if (child := node.commands.get(word)) is None:
                found.append(match[0])
                break
            node = child
    return found


SOURCES = [
    path
    for room in ("protocol", "models", "server", "client", "scripts/cameo_lab")
    for path in (ROOT / room).rglob("*.py")
]


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "docs" / "operators.md"], ids=lambda path: path.name)
def test_every_command_that_a_text_names_exists(path: Path) -> None:
    if path.suffix == ".md":
        texts = re.findall(r"`([^`\n]+)`", path.read_text())
    else:
        nodes = ast.walk(ast.parse(path.read_text()))
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    wrong = [name for text in texts for name in unknown(text) if not name.startswith("cameo is")]
    assert not wrong
