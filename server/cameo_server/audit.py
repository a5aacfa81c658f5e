"""The coordinator's audit log: audit.sqlite in its home, signed with its plan key."""

from __future__ import annotations

import contextlib
import os
import pwd
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cameo_protocol.audit_log import COORDINATOR_KINDS
from cameo_protocol.audit_store import PRAGMAS, AuditLog, broken, unusable
from cameo_server.home import PRIVATE, CoordinatorHome, load_ed25519

BUSY_SECONDS = 30.0
COORDINATOR = "coordinator"


def open_audit(home: CoordinatorHome) -> AuditLog:
    """Open the log, or begin it. A damaged file, or one of another kind, is an `OperatorError`."""
    path = home.audit_log
    with _guard(path):
        with contextlib.suppress(OSError):  # SQLite says what is wrong
            path.touch(mode=PRIVATE)
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with _guard(path):
            for pragma in PRAGMAS:
                db.execute(f"PRAGMA {pragma}")
        key = load_ed25519(home.plan_key)
        log = AuditLog(path, db, COORDINATOR_KINDS, key, time.time, os.urandom, partial(_guard, path))
        log.prepare()
        return log
    except BaseException:
        db.close()
        raise


def note(home: CoordinatorHome, kind: str, /, *, who: str | None = None, about: str = "", **facts: str) -> None:
    """Write down what was done. who: a person, or a hospital; None: the account at this machine."""
    with open_audit(home) as log:
        log.note(kind, who=who or account(), about=about, **facts)


def account() -> str:
    """The account that runs this command, whatever its environment says; its number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"account {os.getuid()}"


@contextlib.contextmanager
def _guard(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise unusable(path, getattr(error, "sqlite_errorname", "SQLITE_ERROR")) from None
    except (UnicodeDecodeError, OverflowError):
        raise broken(path, "it holds values that no audit log has") from None
