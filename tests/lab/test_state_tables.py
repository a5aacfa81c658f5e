"""The handbooks' tables of the state folders are what is there, who may read it, and what a backup takes.

After a whole run, with real processes: tests/e2e/test_e2e_joining.py.
"""

from __future__ import annotations

import inspect
import io
import sys
from pathlib import Path

import pytest

from cameo_client import backup
from cameo_client.cli import app as node_app
from cameo_client.home import NodeHome, load_identity
from cameo_lab.cli import app as cameo_app
from cameo_protocol.console import execute
from cameo_protocol.heads import LedgerHead
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.run.heads import Heads
from state_tables import Side, exposed, rows, undocumented


def test_a_backup_takes_what_the_table_says() -> None:
    told = {pattern for row in rows("hospital") if row.backup.startswith("yes") for pattern in row.patterns}
    taken = {*backup.DATABASES, *backup.FILES, *("models/" if "models" in tree else tree for tree in backup.TREES)}
    assert told == taken


@pytest.mark.parametrize(("side", "home"), [("hospital", NodeHome), ("coordinator", CoordinatorHome)])
def test_every_path_that_the_program_names_is_in_the_table(side: Side, home: type) -> None:
    names = [name for name, found in inspect.getmembers(home) if isinstance(found, property)]
    paths = {name: getattr(home(Path("/h")), name).relative_to("/h").as_posix() for name in names}
    patterns = [pattern for row in rows(side) for pattern in row.patterns]
    assert len(paths) > 10
    assert not {name for name, path in paths.items() if not any(one.startswith(path) for one in patterns)}


def test_what_the_commands_leave_is_in_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> None:
        monkeypatch.setattr(sys, "argv", command.split())
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        assert execute(cameo_app if command.startswith("cameo ") else node_app, command.split(maxsplit=1)[0]) == 0

    (tmp_path / "x.csv").touch()
    run("cameo coordinator init")
    for name in "abc":
        place = "" if name == "a" else f" --home {name}"
        run(f"cameo-node init --name {name} --source table --data x.csv --mapping heart{place}")
        run(f"cameo site add {'cameo-node' if name == 'a' else name}/public.json")
    run("cameo coordinator federation")
    run("cameo site list")
    run("cameo-node accept federation.json --yes")
    run("cameo-node pause")
    run("cameo-node tags roles --add B.Doctor --role reviewer")
    run("cameo-node tags approve-pack --as B.Doctor")
    run("cameo-node tags rotate-key")
    run("cameo-node backup b.sealed")
    run("cameo-node consent counts")
    coordinator, hospital = CoordinatorHome(tmp_path / "cameo-coordinator"), NodeHome(tmp_path / "cameo-node")
    told = LedgerHead(dataset=bytes(32), entries=1, last=bytes(32), told=1, audit=bytes(32))
    Heads(make_plan(coordinator, ["data=heart"]), coordinator.heads).take({1: told.seal(load_identity(hospital))})
    assert coordinator.heads.exists(), "as a run leaves it"
    for side, folder in (("hospital", "cameo-node"), ("coordinator", "cameo-coordinator")):
        assert undocumented(tmp_path / folder, side) == []  # type: ignore[arg-type]
        assert exposed(tmp_path / folder, side) == []  # type: ignore[arg-type]


def test_a_file_that_the_table_lacks_or_others_may_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    for name in ("ledger.sqlite-wal", "ledger.old", "keys/identity.key"):
        (tmp_path / name).touch()
    (tmp_path / "keys" / "identity.key").chmod(0o644)
    for path in (tmp_path, tmp_path / "keys"):
        path.chmod(0o755)
    assert undocumented(tmp_path, "hospital") == ["ledger.old"]
    assert exposed(tmp_path, "hospital") == ["keys/identity.key"]
