"""A suggested command repeats the folder that this command was given, and no other command does."""

from __future__ import annotations

import shlex

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cameo_protocol.suggestion import completed


def tree() -> click.Group:
    home, profile = click.Option(["--home"]), click.Option(["--profile"])
    name = click.Argument(["name"])
    site = click.Group("site", {"list": click.Command("list", params=[home, profile])})
    site.add_command(click.Command("invite", params=[home, profile, name]))
    return click.Group(
        "cameo", {"site": site, "start": click.Command("start", params=[home]), "demo": click.Command("demo")}
    )


PLACE = {"--home": "/srv/x"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cameo start", "cameo start --home /srv/x"),
        ("Next: cameo site invite NAME, once", "Next: cameo site invite --home /srv/x NAME, once"),
        ("cameo start; then cameo site list", "cameo start --home /srv/x; then cameo site list --home /srv/x"),
        ("start (cameo start), or `cameo start`", "start (cameo start --home /srv/x), or `cameo start --home /srv/x`"),
        ("cameo start, or another with --home", "cameo start --home /srv/x, or another with --home"),
        # nothing to do: a place of its own, the help, no such option, a group, no command, the other program
        ("cameo start --home /other", None),
        ("cameo site invite x --profile p", None),
        ("see: cameo site invite --help", None),
        ("cameo demo", None),
        ("cameo site", None),
        ("cameo is a program", None),
        ("cameo-node start", None),
        ("on the coordinator's machine: cameo start", None),
        ("/opt/cameo start", None),
        ("", None),
    ],
)  # fmt: skip
def test_examples(text: str, shown: str | None) -> None:
    assert completed(text, "cameo", tree(), PLACE) == (text if shown is None else shown)


def test_only_the_options_that_a_command_takes_are_repeated() -> None:
    both = {"--home": "h", "--profile": "p q"}
    assert completed("cameo site list; cameo start", "cameo", tree(), both) == (
        "cameo site list --home h --profile 'p q'; cameo start --home h"
    )
    assert completed("cameo start", "cameo", tree(), {"--profile": "p"}) == "cameo start"


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_whatever_the_folder_is_called_a_shell_reads_it_back(place: str) -> None:
    shown = completed("Next: cameo site invite hospital-a", "cameo", tree(), {"--home": place})
    assert shlex.split(shown.removeprefix("Next: ")) == ["cameo", "site", "invite", "--home", place, "hospital-a"]
    assert completed(shown, "cameo", tree(), {"--home": place}) == shown, "never twice"


@given(st.text())
def test_without_a_folder_no_text_changes(text: str) -> None:
    assert completed(text, "cameo", tree(), {}) == text
    assert completed(text.replace("cameo", ""), "cameo", tree(), PLACE) == text.replace("cameo", "")
