"""Every command that changes something is in the audit log of its side, or in a short list that says why it is not."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import typer

from cameo_client.cli import app as node_app
from cameo_client.home import NodeHome
from cameo_lab.cli import app as cameo_app
from cameo_protocol.audit_log import COORDINATOR_KINDS, HOSPITAL_KINDS
from cameo_protocol.console import execute

ROOT = Path(__file__).resolve().parents[2]

# Command -> what it writes into the log, and the file whose code writes it.
NODE = "client/cameo_client/"
HOSPITAL = {
    "join": ("federation-accepted", "cli/joining.py"),
    "accept": ("federation-accepted", "cli/joining.py"),
    "leave": ("federation-left", "cli/enrolling.py"),
    "pause": ("node-paused", "cli/enrolling.py"),
    "resume": ("node-resumed", "cli/enrolling.py"),
    "start": ("admission", "node/witness.py"),
    "backup": ("backup-made", "cli/backup.py"),
    "restore": ("backup-restored", "cli/backup.py"),
    "page": ("page-link-made", "cli/page.py"),
    "consent import": ("consent-imported", "cli/consent.py"),
    "consent export": ("consent-exported", "cli/consent.py"),
    "consent withdraw": ("consent-withdrawn", "cli/consent.py"),
    "consent purge": ("consent-purged", "cli/consent.py"),
    "tags apply": ("tags-applied", "cli/tags.py"),
    "tags approve": ("tag-reviewed", "cli/tags.py"),
    "tags approve-pack": ("pack-approved", "cli/tags.py"),
    "tags enforce-consent": ("consent-enforced", "cli/tags.py"),
    "tags export": ("tags-exported", "cli/tags_out.py"),
    "tags roles": ("roles-changed", "cli/tags_out.py"),
    "tags rotate-key": ("key-rotated", "cli/tags_out.py"),
}
HOSPITAL_NOT = {"init": "makes the keys of the log itself; what they are used for, accept, is in it"}
HOSPITAL_READS = {
    "status", "doctor", "ledger", "report", "data describe", "data check", "data mapping", "data pseudonym",
    "consent counts", "consent report", "policy check", "audit verify", "audit export", "audit head",
    "tags lint", "tags test", "tags diff", "tags audit-pack", "tags dry-run",
    # Who looked at which patient is in the tag store's own chained log: cameo-node tags access, tags log.
    "tags explain", "tags queue", "tags access", "tags log",
}  # fmt: skip
SERVER = "server/cameo_server/"
COORDINATOR = {
    "audit": ("recipe-audited", "run/release_gate.py"),
    "run": ("run-started", "api/services.py"),
    "stop": ("run-stop-asked", "api/services.py"),
    "site add": ("site-added", "cli/site.py"),
    "site invite": ("site-invited", "api/services.py"),
    "site approve": ("site-approved", "api/services.py"),
    "site revoke": ("site-revoked", "api/services.py"),
    "site remove": ("site-revoked", "cli/site.py"),
    "person add": ("person-added", "cli/people.py"),
    "person revoke": ("person-revoked", "cli/people.py"),
    "coordinator federation": ("federation-issued", "cli/coordinator.py"),
    "coordinator page": ("dashboard-link-made", "cli/coordinator.py"),
}
COORDINATOR_NOT = {
    "coordinator init": "makes the key that signs the log; the log begins with the first thing that is done",
    "coordinator start": "decides nothing; what hospitals and people do while it runs is written down as theirs",
    "report": "writes a file of what is published already; its SHA-256 is in the run's events",
    "demo": "a federation of its own, on made-up patients or public data",
    "data generate": "made-up data into a folder of its own",
}
COORDINATOR_READS = {
    "plan", "runs", "watch", "coordinator status", "site list", "audit-log verify", "audit-log export",
    "audit-log head", "audit-log seen",
}  # fmt: skip


def commands(group: click.Command, path: str = "") -> Iterator[str]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, f"{path} {name}".strip())
    else:
        yield path


@pytest.mark.parametrize(
    ("app", "noted", "excused", "reads"),
    [
        (node_app, HOSPITAL, HOSPITAL_NOT, HOSPITAL_READS),
        (cameo_app, COORDINATOR, COORDINATOR_NOT, COORDINATOR_READS),
    ],
    ids=["cameo-node", "cameo"],
)
def test_every_command_is_noted_or_excused_or_reads_only(
    app: typer.Typer, noted: dict[str, tuple[str, str]], excused: dict[str, str], reads: set[str]
) -> None:
    there = {name for name in commands(typer.main.get_command(app)) if not name.startswith("bench ")}
    assert there == {*noted, *excused, *reads}, "a new command: say here whether it is in the audit log"
    assert len(there) == len(noted) + len(excused) + len(reads), "each in one list"
    assert len(excused) <= 5


@pytest.mark.parametrize(
    ("kind", "path", "kinds"),
    [
        *((kind, NODE + path, HOSPITAL_KINDS) for kind, path in HOSPITAL.values()),
        *((kind, SERVER + path, COORDINATOR_KINDS) for kind, path in COORDINATOR.values()),
    ],
)
def test_the_code_says_what_the_list_says(kind: str, path: str, kinds: frozenset[str]) -> None:
    assert kind in kinds
    assert f'"{kind}"' in (ROOT / path).read_text()


@pytest.mark.parametrize(
    ("page", "kinds"),
    [("operators.md", HOSPITAL_KINDS), ("coordinator.md", COORDINATOR_KINDS)],
    ids=("hospital", "coordinator"),
)
def test_the_handbooks_name_every_kind_and_no_other(page: str, kinds: frozenset[str]) -> None:
    section = (ROOT / "docs" / page).read_text().partition("\n## The audit log\n")[2].partition("\n## ")[0]
    assert set(re.findall("`([a-z-]+)`", section.partition("| kinds |")[2])) == kinds


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed; what it wrote to standard output."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", list(words))
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        done = execute(cameo_app if words[0] == "cameo" else node_app, words[0])
        out, err = capsys.readouterr()
        assert done == code, err
        return out

    return call


def entries(text: str) -> list[tuple[str, str]]:
    return [(row["kind"], row["about"]) for row in map(json.loads, text.splitlines())]


def test_what_a_hospitals_people_do_is_in_its_log(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("person_id\n1\n")
    run("cameo-node", "init", "--name", "a", "--source", "table", "--data", "x.csv", "--mapping", "heart")
    run("cameo-node", "tags", "roles", code=4)
    run("cameo-node", "tags", "roles", "--add", "B. Doctor", "--role", "reviewer", "--owns", "cardiology lead")
    run("cameo-node", "tags", "enforce-consent")
    run("cameo-node", "consent", "export")
    run("cameo-node", "backup", "b.sealed")
    run("cameo-node", "tags", "rotate-key")
    run("cameo-node", "tags", "rotate-key", "--forget-former")
    found = run("cameo-node", "audit", "export")
    assert entries(found)[1:] == [
        ("roles-changed", "B. Doctor"), ("consent-enforced", ""), ("consent-exported", "csv"),
        ("backup-made", "b.sealed"), ("key-rotated", "key-encryption key"),
        ("key-forgotten", "key-encryption key"),
    ]  # fmt: skip
    rows = [json.loads(line) for line in found.splitlines()]
    assert rows[1]["facts"] == {"roles": "reviewer", "owns": "cardiology lead"}
    assert all(row["who"] for row in rows[1:])
    run("cameo-node", "audit", "verify")


def test_a_role_that_cannot_be_written_down_is_not_given(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("person_id\n1\n")
    run("cameo-node", "init", "--name", "a", "--source", "table", "--data", "x.csv", "--mapping", "heart")
    run("cameo-node", "tags", "roles", "--add", "B.\x07Doctor", "--role", "reviewer", code=2)
    assert not NodeHome(tmp_path / "cameo-node").roles.exists()


def test_what_the_coordinators_people_do_is_in_its_log(run: Run, tmp_path: Path) -> None:
    run("cameo", "coordinator", "init")
    run("cameo", "person", "add", "maria", "--out", "maria")
    run("cameo", "person", "revoke", "maria")
    for name in ("a", "b", "c", "d"):
        (tmp_path / "x.csv").touch()
        made = ("--name", name, "--source", "table", "--data", "x.csv", "--mapping", "heart", "--home", name)
        run("cameo-node", "init", *made)
        run("cameo", "site", "add", f"{name}/public.json")
    run("cameo", "site", "remove", "d")
    run("cameo", "coordinator", "federation")
    assert entries(run("cameo", "audit-log", "export"))[1:] == [
        ("person-added", "maria"), ("person-revoked", "maria"), *(("site-added", name) for name in "abcd"),
        ("site-revoked", "d"), ("federation-issued", "issue 1"),
    ]  # fmt: skip
    run("cameo", "audit-log", "verify")
