"""Who else on the machine may read what a coordinator and a hospital keep, also in a folder that others may enter."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cameo_protocol.errors import OperatorError
from cameo_server.flower.settings import SuperLinkSettings
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import RunStore

# What a program does with a home, then dies by SIGKILL: what it had open is left as it was.
MAKE = {
    "roster.sqlite": """
from cameo_server.home import CoordinatorHome
from cameo_server.membership import open_roster
with open_roster(CoordinatorHome(root)) as db: db.execute("INSERT INTO issues VALUES (1, 'x')"); end()
""",
    "audit.sqlite": """
from cameo_client.audit import open_audit
from cameo_client.home import NodeHome
log = open_audit(NodeHome(root)); log.note("node-paused", who="x"); end()
""",
    "consent.sqlite": """
from cameo_client.consent.store import ConsentStore
store = ConsentStore.open(root / "consent.sqlite"); end()
""",
    "ledger.sqlite": """
from cameo_client.ledger import Ledger
import time
ledger = Ledger.create(root / "ledger.sqlite", random=os.urandom, dataset="x", delta=1e-5, clock=time.time); end()
""",
    "tags.sqlite": """
from cameo_client.tags.store import TagStore
store = TagStore(root / "tags.sqlite"); end()
""",
}
BEGIN = """
import os, pathlib, signal, sys
os.umask(0)
root = pathlib.Path(sys.argv[1])
def end(): os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def umask_0() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _open_to_others(folder: Path) -> list[str]:
    """Files and folders below it that accounts other than the owner may read."""
    return [path.name for path in folder.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.mark.parametrize("name", MAKE)
def test_a_database_and_what_sqlite_puts_beside_it_are_the_owners_alone(tmp_path: Path, name: str) -> None:
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", BEGIN + MAKE[name], str(tmp_path)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(path.name.startswith(name) for path in tmp_path.iterdir())
    assert [found for found in _open_to_others(tmp_path) if found.startswith(name)] == []


def test_the_folder_of_a_run_is_the_coordinators_alone(tmp_path: Path, umask_0: None) -> None:
    store = RunStore(CoordinatorHome(tmp_path).runs / "r1")
    store.create(b"{}")
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("left", [None, "", "0" * 63])
def test_the_loopback_secrets_are_whole_and_nobody_elses(tmp_path: Path, umask_0: None, left: str | None) -> None:
    pem = tmp_path / "x.pem"
    settings = SuperLinkSettings(home=tmp_path, certificate=pem, key=pem, fleet_port=1, control_port=2)
    files = (settings.control_token_file, settings.superexec_secret_file)
    if left is not None:  # as a disk that was full when they were made first
        settings.folder.mkdir(mode=0o700)
        for path in files:
            path.write_text(left)
            path.chmod(0o600)
    settings.prepare()
    made = [path.read_text() for path in files]
    assert all(len(text) == 64 and text != "0" * 64 for text in made)
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    settings.prepare()
    assert [path.read_text() for path in files] == made, "made once"
    files[0].chmod(0o644)
    with pytest.raises(OperatorError, match="key-exposed"):
        settings.prepare()
