"""Both command lines together, in this process: a federation by hand, its plans, and what goes wrong on the way."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from cameo_client.cli import app as node_app
from cameo_lab.cli import app as cameo_app
from cameo_protocol.console import execute
from cameo_protocol.federation import read_federation
from cameo_protocol.plan import parse_plan


class Shell:
    """Runs both command lines; every home is a folder below `root`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
        monkeypatch.chdir(root)

    def __call__(self, *words: str, answer: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", list(words))
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = execute(cameo_app if words[0] == "cameo" else node_app, words[0])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    def json(self, *words: str) -> dict[str, Any]:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        value: dict[str, Any] = json.loads(out)
        assert value["schema_version"] == 1
        return value

    def node(self, index: int) -> str:
        return str(self.root / f"node-{index}")

    def federation(self, n: int = 4) -> Path:
        """A coordinator with n hospitals that have accepted."""
        self.json("cameo", "coordinator", "init", "--name", "demo")
        for index in range(1, n + 1):
            self.join(index)
        self.json("cameo", "coordinator", "federation")
        for index in range(1, n + 1):
            assert self("cameo-node", "accept", "federation.json", "--yes", "--home", self.node(index))[0] == 0
        return self.root / "federation.json"

    def join(self, index: int) -> dict[str, Any]:
        words = ["--name", f"hospital-{index}", "--source", "table", "--data", "x.csv", "--mapping", "heart"]
        Path("x.csv").touch()
        made = self.json("cameo-node", "init", *words, "--home", self.node(index))
        added = self.json("cameo", "site", "add", made["public_card"])
        assert added["fingerprint"] == made["fingerprint"]
        return added


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_a_federation_by_hand(shell: Shell) -> None:
    shell.federation()
    listed = shell.json("cameo", "site", "list")["sites"]
    assert [(site["name"], site["index"]) for site in listed] == [(f"hospital-{i}", i) for i in range(1, 5)]
    status = shell.json("cameo", "coordinator", "status")
    assert (status["hospitals"], status["running"], status["federation_file_issued"]) == (4, False, True)
    assert shell.json("cameo-node", "status", "--home", shell.node(2))["index"] == 2
    assert f"{listed[2]['fingerprint']}" in shell("cameo", "site", "list")[1]


def test_both_sides_show_the_same_fingerprints(shell: Shell) -> None:
    shell.federation()
    _, _, shown = shell("cameo-node", "accept", "federation.json", "--home", shell.node(1), answer="n\n")
    assert shown == ""  # nothing has changed
    coordinator = shell.json("cameo", "coordinator", "status")["fingerprint"]
    policy = (Path(shell.node(1)) / "policy.yaml").read_text()
    for found in (coordinator, *(site["fingerprint"] for site in shell.json("cameo", "site", "list")["sites"])):
        assert found in policy


def test_the_roster_grows_and_shrinks(shell: Shell) -> None:
    shell.federation()
    shell.join(5)
    assert shell("cameo", "site", "remove", "hospital-2")[0] == 0
    issued = shell.json("cameo", "coordinator", "federation")
    assert (issued["serial"], issued["hospitals"]) == (2, ["hospital-1", "hospital-3", "hospital-4", "hospital-5"])
    told = shell.json("cameo-node", "accept", "federation.json", "--yes", "--home", shell.node(1))
    assert (list(told["joined"]), told["left"]) == (["hospital-5"], ["hospital-2"])
    code, _, err = shell("cameo-node", "accept", "federation.json", "--yes", "--home", shell.node(2))
    assert (code, "not-in-roster" in err) == (5, True)


def test_a_federation_of_three_says_that_none_may_be_lost(shell: Shell) -> None:
    shell.federation(3)
    assert "none may be lost" in shell("cameo", "coordinator", "federation")[1]


def test_a_plan_is_shown_written_and_checked(shell: Shell) -> None:
    shell.federation()
    shown = shell.json("cameo", "plan", "data=heart", "--out", "plan.json")
    plan = parse_plan((shell.root / "plan.json").read_bytes())
    assert plan.plan_id() == shown["plan_id"]
    assert plan.cohort.sites == read_federation((shell.root / "federation.json").read_bytes()).cohort.sites
    assert {"coord", "model", "bare"} <= shown["epsilon"].keys()
    assert shown["rounds"][-1]["rounds"] == plan.training.rounds + plan.training.spare
    assert shown["rounds"][-1]["coord"] == shown["epsilon"]["coord"]["epsilon"]
    code, out, _ = shell("cameo", "plan", "data=heart")
    assert (code, out.count("epsilon")) == (0, 3)
    assert shell("cameo-node", "policy", "check", "plan.json", "--home", shell.node(1))[0] == 0
    shell.json("cameo", "plan", "data=heart", "privacy.epsilon=5", "--out", "plan.json")
    assert shell("cameo-node", "policy", "check", "plan.json", "--home", shell.node(1))[0] == 4


@pytest.mark.parametrize("override", ["nonsense", "privacy.epsilon=-1", "data=atlantis", "no.such.key=1", "=", "~"])
def test_a_bad_override_is_an_error_with_a_next_step(shell: Shell, override: str) -> None:
    shell.federation(3)
    code, _, err = shell("cameo", "plan", override)
    assert (code, "next:" in err) == (2, True)


def test_a_run_needs_a_running_coordinator(shell: Shell) -> None:
    shell.federation(3)
    code, _, err = shell("cameo", "run", "data=heart")
    assert (code, "coordinator-not-started" in err, "cameo coordinator start" in err) == (2, True, True)


@pytest.mark.parametrize(
    "words",
    [
        ("coordinator", "init", "--host", "no host"),
        ("coordinator", "init", "--fleet-port", "99999"),
        ("coordinator", "init", "--name", "A B"),
        ("coordinator", "init", "--home", "/proc/nowhere"),
        ("site", "add", "missing.json"),
        ("site", "list"),
        ("plan",),
        ("data", "generate", "/proc/nowhere"),
        ("data", "generate", "here", "--sites", "0"),
        ("data", "generate", "here", "--format", "xlsx"),
        ("demo", "--data", "heart", "--out", "demo"),
        ("demo", "--rounds", "0"),
    ],
)
def test_bad_input_is_an_error_with_a_next_step(shell: Shell, words: tuple[str, ...]) -> None:
    code, _, err = shell("cameo", *words)
    assert code in (2, 6)
    assert "next:" in err


def test_generated_data_becomes_facts_consents_and_tags(shell: Shell) -> None:
    """A hospital's own commands over made-up patients, from import to a withdrawal that takes tags away."""
    made = shell.json("cameo", "data", "generate", "made", "--sites", "1", "--patients", "200")
    site, home = made["sites"][0], ("--home", shell.node(1))
    words = ["--name", "h", "--source", "omop", "--mapping", made["formats"]["duckdb"]["mapping"]]
    words += ["--data", site["data"]["duckdb"]]
    assert shell("cameo-node", "init", *words, *home)[0] == 0
    assert shell.json("cameo-node", "data", "describe", *home)["quality"]["ready"] is True
    assert shell("cameo-node", "data", "check", *home)[0] == 0
    assert shell.json("cameo-node", "consent", "import", site["consents"], *home)["imported"] > 200
    assert "MADE UP" in shell("cameo-node", "consent", "counts", *home)[1]
    assert shell("cameo-node", "tags", "lint", *home)[0] == 0
    assert shell("cameo-node", "tags", "test", *home)[0] == 0
    me = ["--as", "Dr. Test", *home]
    assert shell("cameo-node", "tags", "apply", *me)[0] == 4  # nobody has a role
    given = [word for role in ("reviewer", "operator", "patient_desk", "auditor") for word in ("--role", role)]
    assert shell("cameo-node", "tags", "roles", "--add", "Dr. Test", *given, *home)[0] == 0
    assert shell("cameo-node", "tags", "apply", *me)[0] == 4  # nobody has approved the pack
    assert shell("cameo-node", "tags", "approve-pack", *me)[0] == 0
    assert shell.json("cameo-node", "tags", "dry-run", *me)["added"] > 0
    assert shell.json("cameo-node", "tags", "apply", *me)["added"] > 0
    assert shell("cameo-node", "tags", "export", "tags.csv", *me)[0] == 0
    name, tag = (shell.root / "tags.csv").read_text().splitlines()[1].split(",")[:2]
    assert shell.json("cameo-node", "tags", "explain", name, tag, *me)["verdict"] == "stored"
    assert shell.json("cameo-node", "consent", "withdraw", name, "--scope", "all", *home)["tags_removed"] >= 1
    assert shell.json("cameo-node", "consent", "report", name, *home)["decisions"][-1]["status"] == "withdrawn"
    assert shell.json("cameo-node", "tags", "explain", name, tag, *me)["verdict"] == "blocked"
    assert shell("cameo-node", "consent", "export", "--format", "fhir", *home)[1].count("\n") > 200
    assert shell.json("cameo-node", "consent", "purge", "--before", "2020-01-01", *home)["decisions"] == 0
    assert shell.json("cameo-node", "tags", "queue", *me)["command"] == "queue"
    assert shell("cameo-node", "tags", "export", "--counts", *me)[0] == 0
    split = shell.json("cameo-node", "tags", "export", "--counts", "--by", "sex", *me)["tags"]
    assert all(set(cells) <= {"female", "male", "not known", "total"} for cells in split.values())
    seen = shell.json("cameo-node", "tags", "access", name, *me)["accesses"]
    assert seen[-1]["action"] == "explained"
    assert shell("cameo-node", "tags", "rotate-key", *home)[0] == 0
    assert shell("cameo-node", "tags", "rotate-key", "--forget-former", *home)[0] == 0
    assert shell.json("cameo-node", "tags", "log", *me)["entries"][-1]["kind"] == "key-forgotten"
    assert shell.json("cameo-node", "tags", "enforce-consent", *home)["removed"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("consent", "withdraw", "x", "--scope", "all"),
        ("consent", "withdraw", "0" * 32, "--scope", "everything"),
        ("consent", "withdraw", "0" * 32, "--scope", "all", "--method", "made_up"),
        ("consent", "purge", "--before", "yesterday"),
        ("consent", "import", "missing.csv"),
        ("tags", "approve", "--as", "Dr. Test"),
        ("tags", "approve", "0" * 32, "tag", "--as", "Dr. Test"),
        ("tags", "approve", "0" * 32, "tag", "--pack", "x", "--as", "Dr. Test"),
        ("tags", "export", "--as", "Dr. Test"),
        ("tags", "export", "--counts", "--as", "x"),
        ("tags", "lint", "missing.yaml"),
        ("data", "describe"),
    ],
)
def test_bad_input_of_a_hospital_is_an_error_with_a_next_step(shell: Shell, words: tuple[str, ...]) -> None:
    made = ["--name", "h", "--source", "table", "--mapping", "heart", "--data", "missing.data"]
    Path("missing.data").touch()
    assert shell("cameo-node", "init", *made, "--home", shell.node(1))[0] == 0
    Path("missing.data").unlink()
    code, out, err = shell("cameo-node", *words, "--home", shell.node(1))
    assert code in (2, 4, 6)
    assert out == ""
    assert "next:" in err


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield path


@pytest.mark.parametrize("path", list(commands(typer.main.get_command(cameo_app))), ids=" ".join)
def test_every_command_teaches_by_an_example(path: tuple[str, ...], shell: Shell) -> None:
    code, out, _ = shell("cameo", *path, "--help")
    assert code == 0
    assert f"Example:\n    cameo {' '.join(path)}" in out


def test_generating_into_a_folder_with_files_asks_for_it(shell: Shell) -> None:
    shell.json("cameo", "data", "generate", "made", "--sites", "1", "--patients", "50")
    code, _, err = shell("cameo", "data", "generate", "made", "--sites", "1", "--patients", "50")
    assert (code, "folder-not-empty" in err, "--overwrite" in err) == (2, True, True)
    shell.json("cameo", "data", "generate", "made", "--sites", "1", "--patients", "50", "--overwrite")
