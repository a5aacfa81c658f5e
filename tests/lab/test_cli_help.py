"""The help of both command lines: whole sentences in the lists, and lists of words that are the program's own."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer

from cameo_client.cli import app as node_app
from cameo_client.consent.records import SCOPES
from cameo_client.tags.roles import ROLES
from cameo_lab.cli import app as cameo_app
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import ExitCode


def contexts(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Every group and command with its place."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80)
    yield context
    if isinstance(command, click.Group):
        for inner, below in command.commands.items():
            yield from contexts(below, inner, context)


ALL = {
    context.command_path: context
    for name, app in (("cameo", cameo_app), ("cameo-node", node_app))
    for context in contexts(typer.main.get_command(app), name)
}


def text(path: str) -> str:
    """The help as one line of words."""
    return " ".join(ALL[path].get_help().split())


@pytest.mark.parametrize("path", [path for path, one in ALL.items() if isinstance(one.command, click.Group)])
def test_no_sentence_in_a_list_of_commands_is_cut_off(path: str) -> None:
    listed = ALL[path].get_help().partition("Commands:")[2]
    assert listed
    assert "..." not in listed


@pytest.mark.parametrize("path", ["cameo", "cameo-node"])
def test_the_exit_codes_are_in_the_help(path: str) -> None:
    told = text(path).partition("Exit codes")[2]
    assert all(f" {int(code)} " in told for code in ExitCode)


def test_words_that_may_be_chosen_are_all_in_the_help() -> None:
    assert all(scope in text("cameo-node consent withdraw") for scope in SCOPES)
    assert all(role in text("cameo-node tags roles") for role in ROLES)
    shipped = [path.stem for path in (conf_dir() / "sources").glob("*.yaml")]
    assert [name for name in shipped if name not in text("cameo-node data mapping")] == []


@pytest.mark.parametrize("path", [path for path, one in ALL.items() if not isinstance(one.command, click.Group)])
def test_every_option_says_what_it_is_for(path: str) -> None:
    options = [one for one in ALL[path].command.params if isinstance(one, click.Option)]
    assert all(one.help and one.help[0].isprintable() for one in options)
    assert all(one.metavar != "TEXT" for one in options)
