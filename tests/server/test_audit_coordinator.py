"""The coordinator's audit log: who was let in, who did what, and what hospitals have told of their own logs."""

from __future__ import annotations

import json
import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from cameo_protocol.console import execute
from cameo_protocol.errors import OperatorError
from cameo_server.app import note_end
from cameo_server.audit import account, note, open_audit
from cameo_server.cli import audit_log, people
from cameo_server.home import CoordinatorHome
from cameo_server.membership import init_coordinator


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    made = CoordinatorHome(tmp_path / "coordinator")
    init_coordinator(made, federation="f", host="localhost", fleet_port=9092, now=datetime.now(UTC))
    return made


@pytest.fixture
def run(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    app = typer.Typer()
    app.add_typer(people.app, name="person")
    audit_log.register(app)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cameo", *words, "--home", str(home.root)])
        return execute(app, "cameo"), *capsys.readouterr()

    return call


def entries(home: CoordinatorHome) -> list[tuple[str, str, dict[str, str]]]:
    with open_audit(home) as log:
        return [(entry.kind, entry.about, dict(entry.facts)) for entry, _ in log.entries()][1:]


def test_people_are_written_down(home: CoordinatorHome, run: Any, tmp_path: Path) -> None:
    assert run("person", "add", "maria", "--out", str(tmp_path / "maria"))[0] == 0
    assert run("person", "revoke", "maria")[0] == 0
    assert entries(home) == [("person-added", "maria", {"role": "researcher"}), ("person-revoked", "maria", {})]
    code, out, _ = run("audit-log", "verify", "--json")
    assert (code, json.loads(out)["entries"]) == (0, 3)
    code, out, _ = run("audit-log", "export")
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["log-opened", "person-added", "person-revoked"]
    assert json.loads(run("audit-log", "head", "--json")[1])["entries"] == 3


def test_the_end_of_a_run_is_written_down_once(home: CoordinatorHome) -> None:
    events = [
        {"event": "start"},
        {"event": "audit-log-cut", "site": "b"},
        {"event": "published"},
        {"event": "stopped", "code": "spare-rounds-spent"},
    ]
    for _ in range(2):
        note_end(home, "r1", events)
    assert entries(home) == [
        ("site-log-cut-noticed", "b", {"run": "r1"}),
        ("models-released", "r1", {}),
        ("run-stopped", "r1", {"code": "spare-rounds-spent"}),
    ]


def test_a_changed_byte_is_named(home: CoordinatorHome, run: Any) -> None:
    note(home, "run-started", who="maria", about="r1")
    raw = home.audit_log.read_bytes()
    assert b"maria" in raw
    home.audit_log.write_bytes(raw.replace(b"maria", b"marla"))
    code, _, err = run("audit-log", "verify")
    assert code == 6
    assert "audit-log-broken" in err
    assert "entry 2" in err
    with pytest.raises(OperatorError, match="audit-log-broken"), open_audit(home) as log:
        log.verify()


def test_nothing_is_seen_before_a_run(run: Any) -> None:
    assert json.loads(run("audit-log", "seen", "--json")[1])["sites"] == []


def test_who_runs_a_command_is_the_account_whatever_its_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "dr-lee")
    assert account() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
    assert account() == "account 987654321"
