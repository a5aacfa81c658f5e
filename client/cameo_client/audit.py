"""This hospital's audit log: audit.sqlite in its home, signed with a key of its own. Only this hospital reads it.

The key is not the identity key: the log goes on when the hospital leaves a federation and joins again with new keys,
and patients' decisions are written down in between too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.home import PRIVATE, NodeHome, key_pem, load_ed25519, write_file
from cameo_protocol.audit_log import HOSPITAL_KINDS
from cameo_protocol.audit_store import PRAGMAS, AuditLog, broken, unusable

BUSY_SECONDS = 30.0
NODE = "node"


def open_audit(home: NodeHome) -> AuditLog:
    """Open the log, or begin it. A damaged file, or one of another kind, is an `OperatorError`."""
    path = home.audit
    if not path.exists() and not home.audit_key.exists():
        _make_key(home.audit_key)
    key = load_ed25519(home.audit_key)
    with _guard(path):
        with contextlib.suppress(OSError):  # SQLite says what is wrong
            path.touch(mode=PRIVATE)
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with _guard(path):
            for pragma in PRAGMAS:
                db.execute(f"PRAGMA {pragma}")
        return _log(path, db, key)
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


def note_files(log: AuditLog, home: NodeHome) -> None:
    """`note_file` for every file by which people decide what this node does."""
    for name in ("node.toml", "policy.yaml", "federation.json", "tags-policy.yaml", "roles.yaml"):
        note_file(log, home.root / name)
    for path in sorted((home.root / "packs").glob("*.yaml")):
        note_file(log, path)


def account() -> str:
    """The account that runs this command, whatever its environment says; its number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"account {os.getuid()}"


def _make_key(path: Path) -> None:
    """A new key, unless another process has just made one: both must go on with the same."""
    draft = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    write_file(draft, key_pem(Ed25519PrivateKey.generate()), PRIVATE)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


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
