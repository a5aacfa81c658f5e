"""This hospital's audit log: audit.sqlite in its home, signed with its identity key. Only this hospital reads it."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.home import NodeHome, load_identity
from cameo_protocol.audit_log import HOSPITAL_KINDS
from cameo_protocol.audit_store import PRAGMAS, AuditLog, broken, unusable

BUSY_SECONDS = 30.0
NODE = "node"


def open_audit(home: NodeHome) -> AuditLog:
    """Open the log, or begin it. A damaged file, or one of another kind, is an `OperatorError`."""
    path = home.audit
    with _guard(path):
        new = not path.exists()
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with _guard(path):
            if new:
                path.chmod(0o600)
            for pragma in PRAGMAS:
                db.execute(f"PRAGMA {pragma}")
        return _log(path, db, load_identity(home))
    except BaseException:
        db.close()
        raise


def memory_audit(key: Ed25519PrivateKey | None = None) -> AuditLog:
    """A log that is gone with the process, for a hospital that has no home."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    return _log(Path(":memory:"), db, key or Ed25519PrivateKey.generate())


def note(home: NodeHome, kind: str, /, *, who: str | None = None, about: str = "", **facts: str) -> None:
    """Write down what a command has done. who: a person; None: the account at this machine."""
    with open_audit(home) as log:
        log.note(kind, who=who or account(), about=about, **facts)


def note_file(log: AuditLog, path: Path) -> None:
    """Write down that a file that people edit is another one than when it was last looked at, or is gone."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        owner = f"account {path.stat().st_uid}"
    except OSError:
        if not log.has_said("file-changed", path.name):
            return  # it never was there
        digest, owner = "", NODE
    log.note_if_new("file-changed", who=owner, about=path.name, sha256=digest)


def retire(home: NodeHome) -> None:
    """Put the log aside under a name of its own: its key is about to go, and other keys begin another log.

    Its first entry says whose key signed it. Nothing happens where there is no log, or no key any more.
    """
    if not home.audit.exists() or not home.identity_key.exists():
        return
    with open_audit(home) as log:
        last = log.note("log-closed", who=account()).last
    home.audit.rename(home.audit.with_name(f"audit-{last.hex()[:8]}.sqlite"))


def note_files(log: AuditLog, home: NodeHome) -> None:
    """`note_file` for every file by which people decide what this node does."""
    for name in ("node.toml", "policy.yaml", "federation.json", "tags-policy.yaml", "roles.yaml"):
        note_file(log, home.root / name)
    for path in sorted((home.root / "packs").glob("*.yaml")):
        note_file(log, path)


def account() -> str:
    """The account that runs this command; its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"account {os.getuid()}"


def _log(path: Path, db: sqlite3.Connection, key: Ed25519PrivateKey) -> AuditLog:
    log = AuditLog(path, db, HOSPITAL_KINDS, key, time.time, os.urandom, partial(_guard, path))
    log.prepare()
    return log


@contextlib.contextmanager
def _guard(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise unusable(path, getattr(error, "sqlite_errorname", "SQLITE_ERROR")) from None
    except (UnicodeDecodeError, OverflowError):
        raise broken(path, "it holds values that no audit log has") from None
