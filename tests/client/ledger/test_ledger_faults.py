"""A disk that is full, read-only or gone: a clear error, nothing released, and the ledger opens again afterwards."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_kit import CAPS, FULL, PLAN, again, fresh, releases

from cameo_client.ledger import Ledger, store
from cameo_protocol.errors import ExitCode, OperatorError

LEVELS = 100 if FULL else 20
NOBODY = 65_534


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past `size`: what a full disk looks like to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def spend_until_refused(ledger: Ledger, rounds: int) -> tuple[int, OperatorError | None]:
    """(rounds whose commit returned, the error that stopped them)."""
    done = 0
    try:
        for round_no in range(rounds):
            ledger.commit("run-1", round_no, "train", releases(1))
            done += 1
    except OperatorError as error:
        return done, error
    return done, None


def test_a_disk_that_fills_up_at_any_point(tmp_path: Path) -> None:
    stopped = 0
    for level in range(LEVELS):
        path = tmp_path / f"{level}.ledger"
        with fresh(path) as ledger:
            ledger.reserve("run-1", PLAN, releases(41), CAPS)
            with file_size_limit(1000 + level * 30_000 // LEVELS):
                done, error = spend_until_refused(ledger, 40)
            if error is not None:
                stopped += 1
                assert error.code in ("ledger-disk-full", "ledger-io")
                assert error.exit_code == ExitCode.DATA
                assert "nothing was released" in error.what
        with again(path) as ledger:
            spent = len(ledger.curve(1000))
            assert done <= spent <= done + 1  # what was refused may be spent, what was allowed is
            ledger.commit("run-1", 1000, "train", releases(1))
    assert stopped > LEVELS / 2


def test_no_room_for_a_new_ledger_leaves_nothing_behind(tmp_path: Path) -> None:
    for size in (0, 100, 4096, 8192):
        with file_size_limit(size), pytest.raises(OperatorError, match=r"ledger-(disk-full|io)"):
            fresh(tmp_path / "new.ledger")
        assert list(tmp_path.iterdir()) == []
    fresh(tmp_path / "new.ledger").shut()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root for a tiny file system")
def test_a_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with fresh(disk / "heart.ledger") as ledger:
            ledger.reserve("run-1", PLAN, releases(300), CAPS)
            done, error = spend_until_refused(ledger, 300)
            assert error is not None
            assert error.code in ("ledger-disk-full", "ledger-io")
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        with again(disk / "heart.ledger") as ledger:
            assert len(ledger.curve(1000)) >= done
            ledger.commit("run-1", 1000, "train", releases(1))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for act in (lambda: again(disk / "heart.ledger").commit("run-1", 1001, "train", releases(1)),):
            with pytest.raises(OperatorError, match="ledger-unwritable"):
                act()
        with pytest.raises(OperatorError, match="ledger-unwritable"):
            fresh(disk / "other.ledger")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextlib.contextmanager
def someone_else() -> Iterator[None]:
    """Root may write anything, so be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_or_folder_that_may_not_be_written() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "heart.ledger"
        with fresh(path) as ledger:
            ledger.reserve("run-1", PLAN, releases(10), CAPS)
        path.chmod(0o444)
        folder.chmod(0o555)
        with someone_else():
            with pytest.raises(OperatorError, match="ledger-unwritable") as caught:
                again(path).commit("run-1", 0, "train", releases(1))
            with pytest.raises(OperatorError, match="ledger-unwritable"):
                fresh(folder / "other")
        assert caught.value.exit_code == ExitCode.DATA
        folder.chmod(0o700)
        path.chmod(0o600)
        with again(path) as ledger:
            assert ledger.spent() == 0
            ledger.commit("run-1", 0, "train", releases(1))
    finally:
        shutil.rmtree(folder)


def test_a_file_that_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.2)
    path = tmp_path / "heart.ledger"
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperatorError, match="ledger-busy"):
            ledger.commit("run-1", 0, "train", releases(1))
        other.execute("ROLLBACK")
        assert ledger.spent() == 0
        other.execute("BEGIN")
        other.execute("SELECT * FROM entry").fetchall()  # a reader keeps the WAL from being emptied
        with pytest.raises(OperatorError, match="ledger-busy"):
            ledger.commit("run-1", 0, "train", releases(1))
        other.execute("ROLLBACK")
        other.close()
        assert ledger.spent() > 0  # it may have been on its way out: spent
        ledger.commit("run-1", 1, "train", releases(1))
