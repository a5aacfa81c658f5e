"""The handbooks tell the truth: every command and option that they name exists, and their tables are the program's."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from cameo_client.cli import app as node_app
from cameo_lab.cli import app as cameo_app
from cameo_server.api.access import ACCESS
from cameo_server.pki import ROLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/operators.md", "docs/coordinator.md", "docs/audit.md")
APPS = {"cameo": cameo_app, "cameo-node": node_app}
SPAN = re.compile(r"`(cameo(?:-node)? [^`]+)`")
# Plain words in a code span that go on after a command, as in "`--ttl 30m`, `3d`".
ELLIPSIS = {"…", "..."}


def commands(page: str) -> Iterator[str]:
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    yield from SPAN.findall(prose)
    for block in blocks:
        for line in block.splitlines():
            found = re.match(r"^(?:\w+\$?\s+)?(cameo(?:-node)? .*)$", line)
            if found:
                yield re.split(r"\s{2,}|\s#", found[1])[0]


def fault(command: str) -> str | None:
    """What is wrong with a command line, judged by the program's own tree of commands."""
    words = [word for word in shlex.split(command) if word not in ELLIPSIS]
    at: click.Command = typer.main.get_command(APPS[words[0]])
    rest = words[1:]
    while rest and hasattr(at, "commands"):
        if rest[0] in ("-h", "--help"):
            return None
        if rest[0] not in at.commands:
            return f"no command {rest[0]}"
        at, rest = at.commands[rest[0]], rest[1:]
    if hasattr(at, "commands"):
        return None if not rest else f"not a command: {rest}"
    known = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    unknown = [word for word in rest if word.startswith("--") and word not in known]
    return f"no option {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists_with_its_options(page: str) -> None:
    named = list(commands(page))
    assert len(named) > 3
    assert {command: found for command in named if (found := fault(command))} == {}


@pytest.mark.parametrize("bad", ["cameo site invent x", "cameo-node join A:1 --tokens T", "cameo coordinator beginn"])
def test_a_wrong_command_would_be_seen(bad: str) -> None:
    assert fault(bad)


def test_the_roles_table_is_the_access_table() -> None:
    page = (ROOT / "docs" / "coordinator.md").read_text().partition("## Roles")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| `")]
    header = next(row for row in page.splitlines() if row.startswith("| method"))
    columns = [cell.strip().split(" ")[0] for cell in header.split("|")[2:-1]]
    assert tuple(columns) == ROLES
    told = {
        row[0].strip("`"): {role for role, cell in zip(ROLES, row[1:], strict=True) if cell == "yes"} for row in rows
    }
    assert told == {method: set(roles) for method, roles in ACCESS.items()}


def test_systemd_takes_the_coordinators_unit(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "coordinator.md").read_text()
    unit = re.search(r"^```ini\n(.*?)^```", page, re.M | re.S)
    assert unit is not None
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze on this machine")
    path = tmp_path / "cameo-coordinator.service"
    path.write_text(unit[1].replace("/opt/cameo/.venv/bin/cameo ", "/bin/true "))
    done = subprocess.run([verify, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "cameo-coordinator" in line] == []
