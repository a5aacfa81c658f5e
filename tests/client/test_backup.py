"""A node's state as one sealed file, and back."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from cameo_client.audit import note, open_audit
from cameo_client.backup import DATABASES, NAME, make_backup, open_backup, put_back
from cameo_client.cli import app
from cameo_client.consent.store import ConsentStore
from cameo_client.home import NodeHome, load_identity
from cameo_client.ledger import Caps
from cameo_client.node.journal import DiskJournal
from cameo_client.node.service import open_ledger
from cameo_client.vault import Vault
from cameo_protocol.console import execute
from cameo_protocol.errors import OperatorError
from cameo_protocol.privacy.releases import Release

CAPS = Caps(dataset=50, year=50)
WHEN = "2026-01-01T00:00:00Z"


def call(monkeypatch: pytest.MonkeyPatch, home: NodeHome, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cameo-node", *words, "--home", str(home.root)])
    return execute(app, "cameo-node")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeHome:
    """A node that has taken part in something."""
    made = NodeHome(tmp_path / "node")
    (tmp_path / "p.csv").write_text("person_id\n1\n")
    words = ("init", "--name", "a", "--source", "table", "--data", str(tmp_path / "p.csv"), "--mapping", "heart")
    assert call(monkeypatch, made, *words) == 0
    open_ledger(made).shut()
    DiskJournal(made.journal).close()
    ConsentStore.open(made.consent).close()
    folder = made.models / "r1"
    folder.mkdir(parents=True)
    (folder / "publication.cbor").write_bytes(b"signed")
    (made.root / "packs").mkdir()
    (made.root / "packs" / "own.yaml").write_text("rules: []")
    return made


def test_what_goes_in_comes_out(home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, kek = tmp_path / "backup.sealed", tmp_path / "kept-apart.key"
    assert call(monkeypatch, home, "backup", str(file)) == 0
    shutil.copy(home.root / "keys" / "kek.key", kek)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = NodeHome(tmp_path / "other")
    assert call(monkeypatch, other, "restore", str(file), "--kek-file", str(kek)) == 0

    for name in ("node.toml", "public.json", "packs/own.yaml", "models/r1/publication.cbor"):
        assert (other.root / name).read_bytes() == (home.root / name).read_bytes()
    assert load_identity(other).private_bytes_raw() == load_identity(home).private_bytes_raw()
    with open_ledger(other) as one, open_ledger(home) as two:
        assert one.head() == two.head()
    with open_audit(other) as log:
        log.verify()
        assert [entry.kind for entry, _ in log.entries()][-2:] == ["backup-made", "backup-restored"]
    assert all(
        stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in other.root.rglob("*") if path.suffix == ".key"
    )
    assert not other.pseudonym_key.exists(), "kept apart"


def test_nothing_can_be_read_in_the_file_and_no_key_that_opens_it_is_inside(home: NodeHome, tmp_path: Path) -> None:
    vault = Vault.open(home)
    sealed, content = make_backup(home, vault, "a", WHEN)
    assert not {"pseudonym/hmac.key", "keys/kek.key"} & content.files.keys()
    for secret in (b"BEGIN PRIVATE KEY", b"SQLite format", b"node.toml", load_identity(home).private_bytes_raw()):
        assert secret not in sealed
    _, parts = open_backup(sealed, vault)
    kek = (home.root / "keys" / "kek.key").read_bytes().strip()
    assert not [name for name, raw in parts.items() if kek in raw or bytes.fromhex(kek.decode()) in raw]


def test_a_changed_or_foreign_file_is_refused_and_nothing_is_written(home: NodeHome) -> None:
    vault = Vault.open(home)
    sealed, _ = make_backup(home, vault, "a", WHEN)
    for position in (0, 20, len(sealed) // 2, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(OperatorError, match=r"vault-damaged|vault-key-wrong"):
            open_backup(bytes(changed), vault)
    for raw in (b"", b"x" * 100, sealed[:-1]):
        with pytest.raises(OperatorError, match="vault-damaged"):
            open_backup(raw, vault)


def archive(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        manifest = json.dumps({"made": WHEN, "site": "a", "files": {}}).encode()
        for entry, raw in (("manifest.json", manifest), (name, b"x")):
            info = tarfile.TarInfo(entry)
            info.type, info.size, info.linkname = (kind if entry == name else tarfile.REGTYPE), len(raw), "/etc/passwd"
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "packs/../../evil.yaml", "keys/kek.key", "packs/a/b.yaml", "x/packs/a.yaml"]
)
def test_a_backup_with_other_files_is_refused(home: NodeHome, name: str) -> None:
    vault = Vault.open(home)
    with pytest.raises(OperatorError, match="backup-invalid"):
        open_backup(vault.seal(NAME, archive(name)), vault)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_backup_with_links_is_refused(home: NodeHome, kind: bytes) -> None:
    vault = Vault.open(home)
    with pytest.raises(OperatorError, match="backup-invalid"):
        open_backup(vault.seal(NAME, archive("node.toml", kind)), vault)
    with pytest.raises(OperatorError, match="backup-invalid"):
        open_backup(vault.seal(NAME, b"no archive" * 100), vault)


def test_a_node_is_never_written_over(home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault.open(home)
    sealed, _ = make_backup(home, vault, "a", WHEN)
    _, parts = open_backup(sealed, vault)
    with pytest.raises(OperatorError, match="home-exists"):
        put_back(home, parts)
    (tmp_path / "b").write_bytes(sealed)
    assert call(monkeypatch, home, "restore", str(tmp_path / "b")) == 2


def test_without_the_key_nothing_is_made(
    home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed, _ = make_backup(home, Vault.open(home), "a", WHEN)
    (tmp_path / "b").write_bytes(sealed)
    other = NodeHome(tmp_path / "other")
    assert call(monkeypatch, other, "restore", str(tmp_path / "b")) == 2
    assert "backup-key-missing" in capsys.readouterr().err
    assert not other.root.exists()
    wrong = tmp_path / "wrong.key"
    wrong.write_text(os.urandom(32).hex())
    wrong.chmod(0o600)
    assert call(monkeypatch, other, "restore", str(tmp_path / "b"), "--kek-file", str(wrong)) == 5
    assert not other.root.exists(), "the wrong key is not left there, where it would keep the right one out"
    right = home.root / "keys" / "kek.key"
    assert call(monkeypatch, other, "restore", str(tmp_path / "b"), "--kek-file", str(right)) == 0
    assert (other.root / "keys" / "kek.key").read_bytes() == right.read_bytes()


def test_a_key_on_another_volume_stays_there(home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = tmp_path / "volume.key"
    apart.write_text(os.urandom(32).hex())
    apart.chmod(0o600)
    text = home.config.read_text().replace("[data]", f'kek_file = "{apart}"\n[data]', 1)
    home.config.write_text(text)
    assert call(monkeypatch, home, "backup", str(tmp_path / "b")) == 0
    other = NodeHome(tmp_path / "other")
    assert call(monkeypatch, other, "restore", str(tmp_path / "b"), "--kek-file", str(apart)) == 0
    assert not (other.root / "keys" / "kek.key").exists()
    assert call(monkeypatch, other, "backup", str(tmp_path / "b2")) == 0


def test_databases_are_whole_while_somebody_writes(home: NodeHome, tmp_path: Path) -> None:
    """Each copy is a state that there was: the log in it is sound, and never behind the ledger."""
    stop = threading.Event()
    vault = Vault.open(home)

    def busy() -> None:
        number = 0
        with open_ledger(home) as ledger, open_audit(home) as log:
            ledger.reserve("r1", "p" * 64, (("risk", Release(sigma=50.0, q=1.0, count=900)),), CAPS)
            while not stop.is_set() and number < 900:
                ledger.commit("r1", number, "train", (("risk", Release(sigma=50.0, q=1.0, count=1)),))
                log.note("round-released", who="node", about="r1", round=str(number))
                number += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for turn in range(3):
            _, parts = open_backup(make_backup(home, vault, "a", WHEN)[0], vault)
            copy = NodeHome(tmp_path / f"copy{turn}")
            put_back(copy, parts)
            with open_ledger(copy) as ledger, open_audit(copy) as log:
                rounds = len(ledger.rounds("r1")) if ledger.open_runs() else 0
                assert log.verify().told >= rounds - 1
    finally:
        stop.set()
        thread.join()


def test_what_a_killed_backup_has_copied_goes_with_the_next(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import os, signal, sys
import cameo_client.backup as backup
from cameo_client.home import NodeHome
from cameo_client.vault import Vault
def copied(home, folder, real=backup._snapshots):
    yield from real(home, folder)
    os.kill(os.getpid(), signal.SIGKILL)
backup._snapshots = copied
home = NodeHome(backup.Path(sys.argv[1]))
backup.make_backup(home, Vault.open(home), "a", "2026-01-01T00:00:00Z")
"""
    done = subprocess.run([sys.executable, "-c", program, str(home.root)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [path for path in home.root.rglob("ledger.sqlite") if path != home.ledger]
    assert left, "it was killed after the copies were made"
    make_backup(home, Vault.open(home), "a", WHEN)
    assert [path for path in home.root.rglob("ledger.sqlite") if path != home.ledger] == []


def test_a_damaged_database_is_not_backed_up(home: NodeHome) -> None:
    home.consent.write_bytes(b"SQLite format 3\0" + os.urandom(4096))
    with pytest.raises(OperatorError, match=r"backup-database: consent\.sqlite"):
        make_backup(home, Vault.open(home), "a", WHEN)
    assert not list(home.root.glob(".backup-*"))


def test_every_database_of_a_home_is_backed_up(home: NodeHome) -> None:
    note(home, "tags-applied", who="node")

    def is_database(path: Path) -> bool:
        return path.read_bytes()[:15] == b"SQLite format 3"

    found = {path.name for path in home.root.iterdir() if path.is_file() and is_database(path)}
    assert found == set(DATABASES) - {"tags.sqlite"}


def test_a_restore_writes_the_key_to_no_other_place(
    home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, file = tmp_path / "kept" / "kek.key", tmp_path / "b.sealed"
    assert call(monkeypatch, home, "backup", str(file)) == 0
    shutil.copytree(home.root / "keys", key.parent)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    words = ("restore", str(file), "--kek-file", str(key))
    assert call(monkeypatch, NodeHome(tmp_path / "fresh"), *words) == 0
