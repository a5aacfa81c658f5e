"""What a command line suggests next works when it is pasted: it names the folder that the command was given."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cameo_client.cli import app as node_app
from cameo_lab.cli import app as cameo_app
from cameo_protocol.console import execute

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line; the exit code, and all that it wrote."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").touch()

    def call(*words: str, answer: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", list(words))
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = execute(cameo_app if words[0] == "cameo" else node_app, words[0])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def suggested(text: str, command: str) -> list[str]:
    """The words of the suggestion that begins with that command."""
    found = re.search(re.escape(command) + r"[^\n;,)]*", text)
    assert found is not None, text
    return shlex.split(found[0])


HOSPITAL = ("--name", "hospital-1", "--source", "table", "--data", "x.csv", "--mapping", "heart")


@pytest.mark.parametrize("folder", ["there", "with space", "o'brien", "$HOME"])
def test_a_suggestion_names_the_folder_that_was_given(folder: str, run: Run, tmp_path: Path) -> None:
    place = ["--home", str(tmp_path / folder)]
    assert suggested(run("cameo", "site", "list", *place)[1], "cameo coordinator init")[3:5] == place
    _, text = run("cameo", "coordinator", "init", *place)
    assert suggested(text, "cameo coordinator start")[3:] == place
    assert suggested(text, "cameo site invite") == ["cameo", "site", "invite", *place, "NAME"]
    assert suggested(run("cameo", "site", "list", *place)[1], "cameo site invite")[3:5] == place
    assert suggested(run("cameo", "run", "data=heart", *place)[1], "cameo site invite")[3:5] == place
    assert suggested(run("cameo", "runs", *place)[1], "cameo coordinator start")[3:5] == place


def test_what_was_suggested_works(run: Run, tmp_path: Path) -> None:
    place = ["--home", str(tmp_path / "my node")]
    _, text = run("cameo-node", "init", *HOSPITAL, *place)
    accept = suggested(text, "cameo-node accept")
    assert accept[2:4] == place
    code, text = run(*accept)
    assert (code, "federation.json" in text, "no-home" in text) == (2, True, False), "only the file is missing"
    _, text = run("cameo-node", "ledger", *place)
    assert suggested(text, "cameo-node start")[2:] == place
    code, text = run("cameo-node", "pause", *place)
    resume = suggested(text, "cameo-node resume")
    assert resume[2:] == place
    assert run(*resume)[0] == 0


def test_a_hospital_does_not_tell_the_coordinator_where_its_own_folder_is(run: Run, tmp_path: Path) -> None:
    place = ["--home", str(tmp_path / "node")]
    run("cameo-node", "init", *HOSPITAL, *place)
    _, text = run("cameo-node", "leave", "--yes", *place)
    assert suggested(text, "cameo site revoke") == ["cameo", "site", "revoke", "hospital-1"]
    _, text = run("cameo-node", "audit", "verify", "--seen", "x", *place)
    assert suggested(text, "cameo audit-log seen") == ["cameo", "audit-log", "seen"]


def test_a_person_elsewhere_is_told_the_profile_and_not_the_folder_here(run: Run, tmp_path: Path) -> None:
    place = ["--home", str(tmp_path / "here")]
    run("cameo", "coordinator", "init", *place)
    _, text = run("cameo", "person", "add", "maria", "--out", "her profile", *place)
    assert suggested(text, "cameo runs") == ["cameo", "runs", "--profile", "her profile"]
    # What is to be done on the coordinator's machine is not done with this person's profile.
    _, text = run("cameo", "run", "--resume", "20260101-000000-abcd", "--profile", "her profile")
    assert suggested(text, "cameo run --resume") == ["cameo", "run", "--resume", "20260101-000000-abcd"]
    _, text = run("cameo", "runs", "--profile", "her profile")
    assert suggested(text, "cameo coordinator start") == ["cameo", "coordinator", "start"], "that is not done here"


def test_no_option_no_change_and_json_is_left_alone(run: Run, tmp_path: Path) -> None:
    _, text = run("cameo-node", "init", *HOSPITAL)
    assert "--home" not in text
    code, text = run("cameo-node", "status", "--json", "--home", str(tmp_path / "nobody" / "cameo-node"))
    assert (code, json.loads(text)["site"]) == (0, "hospital-1")
