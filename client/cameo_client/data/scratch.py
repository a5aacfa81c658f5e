"""Folders for clinical rows that a read has to write down, which no process leaves behind for long.

A read removes its own folder at the end. A process that was killed cannot; then the next read of the same home does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cameo_protocol.errors import OperatorError


@contextmanager
def private_folder(scratch: Path | None) -> Iterator[Path]:
    """An empty folder for this user alone (0700), removed at the end.

    scratch: a folder of the node's home; what dead processes left there is removed first. None, where no home is
    known: the folder lies below $TMPDIR. `OperatorError` "disk-write" when it cannot be made.
    """
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="cameo-") as name:
            yield Path(name)
        return
    try:
        folder, lock = _made(scratch)
    except OSError as error:
        raise OperatorError(
            "disk-write", what=f"cannot use {scratch}: {error.strerror}", do=f"make {scratch.parent} writable"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(scratch: Path) -> None:
    """Remove what dead processes left; the folders of reads that go on stay."""
    if scratch.is_dir():
        with _locked(scratch):
            _sweep(scratch)


def _made(scratch: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor whose lock says that somebody uses it; the system frees it with the process."""
    scratch.mkdir(mode=0o700, exist_ok=True)
    scratch.chmod(0o700)
    with _locked(scratch):  # nobody sweeps between the making and the locking
        _sweep(scratch)
        folder = Path(tempfile.mkdtemp(prefix="read-", dir=scratch))
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


@contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    lock = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sweep(scratch: Path) -> None:
    for folder in scratch.iterdir():
        with suppress(OSError):  # in use (BlockingIOError), or just removed by its own process
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
