"""One process a node: who holds the lock of its folder runs it."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from typing import IO

from cameo_client.home import NodeHome
from cameo_protocol.errors import OperatorError

LOCK = "node.lock"
PAUSED = "paused"
TRIES, PAUSE_S = 4, 0.05


@contextlib.contextmanager
def alone(home: NodeHome) -> Iterator[None]:
    """Hold the node's lock; an `OperatorError` when another process does. The system frees it when a process dies."""
    with _lock(home):
        yield


def _lock(home: NodeHome) -> IO[str]:
    path = home.root / LOCK
    try:
        lock = path.open("a")
    except OSError as error:
        raise OperatorError(
            "disk-write", what=f"cannot use {path}: {error.strerror}", do=f"make {home.root} writable, then try again"
        ) from None
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:  # perhaps somebody who only looks whether it runs
            time.sleep(PAUSE_S)
    lock.close()
    raise OperatorError(
        "node-running", what=f"a node runs on {home.root} already", do="stop it first; see: cameo-node status"
    )


def is_running(home: NodeHome) -> bool:
    """Whether a process runs this node."""
    try:
        with (home.root / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def is_paused(home: NodeHome) -> bool:
    """Whether new runs are declined: `cameo-node pause`."""
    return (home.root / PAUSED).exists()


def require_awake(home: NodeHome) -> None:
    """Refuse while the node is paused."""
    if is_paused(home):
        raise OperatorError("node-paused", what="this hospital is paused and declines new runs", do="cameo-node resume")
