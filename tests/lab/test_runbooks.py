"""The commands of the runbooks are there, with the options the page gives them; the hospital's own are carried out."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import typer

from cameo_client.cli import app as node_app
from cameo_client.home import NodeHome
from cameo_client.node.service import open_ledger
from cameo_lab.cli import app as cameo_app
from cameo_protocol.console import execute

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runbooks.md").read_text()
LINE = re.compile(r"^(?:coordinator|hospital|others) +(cameo(?:-node)? .*?)(?: {2,}.*)?$", re.M)
COMMANDS = sorted({found.strip() for block in PAGE.split("```")[1::2] for found in LINE.findall(block)})
RUNBOOKS = ("A lost hospital", "A spent budget", "A leaked key", "A breach: the first 24 hours",
            "A damaged audit log", "Restore from a backup")  # fmt: skip


def parsed(command: str) -> click.Command:
    """The command that a line calls; its words are taken by the program's own parser, and nothing is run."""
    program, *words = shlex.split(command)
    group = typer.main.get_command(cameo_app if program == "cameo" else node_app)
    context = click.Context(group, info_name=program)
    while isinstance(group, click.Group):
        name, found, words = group.resolve_command(context, words)
        assert found is not None, f"{command}: {name} is no command"
        context, group = click.Context(found, info_name=name, parent=context), found
    group.make_parser(context).parse_args(list(words))
    return group


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_exists(command: str) -> None:
    assert parsed(command).name


def test_what_is_no_command_or_option_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        parsed("cameo-node audit verify --nothing")
    with pytest.raises(click.UsageError):
        parsed("cameo-node audit unheard")


def test_there_is_a_page_for_each_case() -> None:
    assert [f"## {title}" in PAGE for title in RUNBOOKS] == [True] * len(RUNBOOKS)
    assert len(COMMANDS) > 25
    assert "RUN" in PAGE


def test_a_hospitals_own_steps_are_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first hour of a breach and a restore on another machine, on a node that has not joined yet."""
    old, new, kept = tmp_path / "old", tmp_path / "new", tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "p.csv").write_text("person_id\n1\n")

    def run(home: Path, command: str) -> str:
        words = ["cameo-node", *shlex.split(command), "--home", str(home)]
        monkeypatch.setattr(sys, "argv", words)
        code = execute(node_app, "cameo-node")
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    run(old, f"init --name a --source table --data {tmp_path / 'p.csv'} --mapping heart")
    open_ledger(NodeHome(old)).shut()
    run(old, "pause")
    assert "all sound" in run(old, "audit verify")
    seen = run(old, "audit head --json").split('"last": "')[1][:64]
    assert "log-opened" in run(old, "audit export")
    run(old, f"audit verify --seen {seen}")
    run(old, f"backup {kept / 'a.sealed'}")
    run(old, "consent counts")
    for key in ("keys/kek.key", "pseudonym/hmac.key"):
        (kept / Path(key).name).write_bytes((old / key).read_bytes())
        (kept / Path(key).name).chmod(0o600)
    run(new, f"restore {kept / 'a.sealed'} --kek-file {kept / 'kek.key'}")
    (new / "pseudonym").mkdir()
    (new / "pseudonym" / "hmac.key").write_bytes((kept / "hmac.key").read_bytes())
    (new / "pseudonym" / "hmac.key").chmod(0o600)
    run(new, f"audit verify --seen {seen}")
    one, two = (run(home, "status").split("fingerprint")[1].split()[0] for home in (old, new))
    assert one == two, "the same hospital"
    run(new, "resume")
    run(old, "tags rotate-key")
