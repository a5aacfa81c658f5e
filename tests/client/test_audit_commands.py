"""`cameo-node audit`, as a person at the keyboard meets it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cameo_client.audit import note
from cameo_client.cli import app
from cameo_client.home import NodeHome
from cameo_protocol.console import execute


class Shell:
    """Runs `cameo-node` on one home, in this process."""

    def __init__(self, home: NodeHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._monkeypatch, self._capsys = home, monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["cameo-node", *words, "--home", str(self.home.root)])
        code = execute(app, "cameo-node")
        return code, *self._capsys.readouterr()

    def json(self, *words: str) -> dict[str, Any]:
        code, out, _ = self(*words, "--json")
        assert code == 0
        value: dict[str, Any] = json.loads(out)
        assert value["schema_version"] == 1
        return value


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    made = Shell(NodeHome(tmp_path / "node"), monkeypatch, capsys)
    (tmp_path / "p.csv").write_text("person_id\n1\n")
    code, _, err = made(
        "init", "--name", "a", "--source", "table", "--data", str(tmp_path / "p.csv"), "--mapping", "heart"
    )
    assert code == 0, err
    return made


def test_verify_head_and_export_agree(shell: Shell) -> None:
    note(shell.home, "consent-imported", who="B. Clerk", about="consents.csv")
    found, head = shell.json("audit", "verify"), shell.json("audit", "head")
    assert (found["sound"], found["countersigned"]) == (True, False)
    assert (found["entries"], found["last"]) == (head["entries"], head["last"])
    code, out, _ = shell("audit", "export")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["kind"] for row in rows] == ["log-opened", "consent-imported"]
    assert rows[-1]["hash"] == head["last"]
    assert rows[-1]["who"] == "B. Clerk"


def test_a_consent_that_comes_and_goes_is_written_down(shell: Shell) -> None:
    pseudonym = "0" * 32
    code, _, err = shell("consent", "withdraw", pseudonym, "--scope", "care")
    assert (code, "pseudonym-unknown" in err, "--anyway" in err) == (2, True, True)
    assert shell.json("consent", "report", pseudonym)["decisions"] == [], "nothing was written"
    assert shell("consent", "withdraw", pseudonym, "--scope", "care", "--anyway")[0] == 0
    assert shell("consent", "withdraw", pseudonym, "--scope", "research")[0] == 0, "known by now"
    assert shell("consent", "purge", "--before", "2020-01-01")[0] == 0
    _, out, _ = shell("audit", "export")
    kinds = [(row["kind"], row["about"]) for row in map(json.loads, out.splitlines())]
    withdrawn = [("consent-withdrawn", "care"), ("consent-withdrawn", "research")]
    assert kinds[1:] == [*withdrawn, ("consent-purged", "2020-01-01")]
    assert pseudonym not in out, "the log says what was done, not to whom"


def test_a_hash_that_others_have_seen_must_be_in_the_log(shell: Shell) -> None:
    note(shell.home, "consent-imported", who="B. Clerk", about="consents.csv")
    last = shell.json("audit", "head")["last"]
    assert shell("audit", "verify", "--seen", last)[0] == 0
    code, _, err = shell("audit", "verify", "--seen", "ab" * 32)
    assert code == 6
    assert "audit-log-cut" in err
    code, _, err = shell("audit", "verify", "--seen", "nothing")
    assert code == 2
    assert "option-invalid" in err


def test_the_first_bad_entry_is_named_on_the_command_line(shell: Shell) -> None:
    note(shell.home, "consent-imported", who="B. Clerk", about="consents.csv")
    raw = shell.home.audit.read_bytes()
    assert raw.count(b"B. Clerk") == 1
    shell.home.audit.write_bytes(raw.replace(b"B. Clerk", b"B. Clark"))
    for path in shell.home.root.glob("audit.sqlite-*"):
        path.unlink()
    code, _, err = shell("audit", "verify")
    assert code == 6
    assert "audit-log-broken" in err
    assert "entry 2" in err


def test_who_approves_and_takes_tags_is_written_down(shell: Shell, tmp_path: Path) -> None:
    person = "B. Doctor"
    roles = ("--role", "reviewer", "--role", "operator")
    assert shell("tags", "roles", "--add", person, *roles)[0] == 0
    assert shell("tags", "approve-pack", "--as", person)[0] == 0
    assert shell("tags", "export", "--counts", "--as", person)[0] == 0
    assert shell("tags", "export", str(tmp_path / "tags.csv"), "--as", person)[0] == 0
    _, out, _ = shell("audit", "export")
    rows = [json.loads(line) for line in out.splitlines()]
    found = [(row["kind"], row["who"], row["about"]) for row in rows[2:]]
    assert rows[1]["kind"] == "roles-changed"
    assert found == [
        ("pack-approved", person, "heart"),
        ("tags-exported", person, "counts"),
        ("tags-exported", person, "csv"),
    ]
    assert shell("tags", "export", "--counts", "--as", "X. Nobody")[0] != 0
    assert len(shell("audit", "export")[1].splitlines()) == len(rows), "what was refused was not done"


def test_pausing_is_written_down(shell: Shell) -> None:
    assert shell("pause")[0] == shell("resume")[0] == 0
    _, out, _ = shell("audit", "export")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["kind"] for row in rows[1:]] == ["node-paused", "node-resumed"]
    assert all(row["who"] for row in rows[1:])
