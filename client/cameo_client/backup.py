"""One sealed file with everything a hospital's node needs to come back, and back again into an empty folder.

Databases are copied as SQLite snapshots, so a running node may be backed up. The file is sealed by the vault; the
key-encryption key and the pseudonym key are not in it and are kept apart. Keys of a round are on no disk, so they are
in no backup. The audit log is copied after the ledger: a log in a backup is never behind the ledger beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cameo_client.data.scratch import private_folder
from cameo_client.home import PRIVATE, NodeHome, read_file, write_file
from cameo_client.vault import Vault
from cameo_protocol.errors import ExitCode, OperatorError

NAME: Final = "cameo-node-backup"
MANIFEST: Final = "manifest.json"
MAX_BACKUP: Final = 8 << 30
# In the order in which they are copied.
DATABASES: Final = ("ledger.sqlite", "consent.sqlite", "tags.sqlite", "journal", "audit.sqlite")
FILES: Final = (
    "node.toml", "policy.yaml", "tags-policy.yaml", "roles.yaml", "federation.json", "public.json", "peers.json",
    "audit-receipt.cbor", "kek.id", "keys/identity.key", "keys/audit.key", "keys/node.key", "keys/operator.key",
    "tls/operator.pem",
)  # fmt: skip
TREES: Final = ("packs/*.yaml", "models/*/publication.cbor")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is in a backup: when it was made (UTC), for which site, and its files with their SHA-256."""

    made: str
    site: str
    files: dict[str, str]


def make_backup(home: NodeHome, vault: Vault, site: str, made: str) -> tuple[bytes, Content]:
    """The sealed backup of a home, and what is in it."""
    with private_folder(home.scratch) as folder:
        parts = dict(_snapshots(home, folder))
    parts |= {name: read_file(home.root / name, at_most=MAX_BACKUP) for name in _names(home)}
    content = Content(made=made, site=site, files={n: hashlib.sha256(raw).hexdigest() for n, raw in parts.items()})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, raw in {MANIFEST: json.dumps(vars(content)).encode(), **parts}.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return vault.seal(NAME, buffer.getvalue()), content


def open_backup(sealed: bytes, vault: Vault) -> tuple[Content, dict[str, bytes]]:
    """Check a backup and take it apart. A damaged or foreign file is an `OperatorError`; nothing is written."""
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(vault.unseal(NAME, sealed)), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if not member.isfile() or file is None or not (member.name == MANIFEST or _allowed(member.name)):
                    raise ValueError
                parts[member.name] = file.read()
        content = Content(**json.loads(parts.pop(MANIFEST)))
        if content.files != {name: hashlib.sha256(raw).hexdigest() for name, raw in parts.items()}:
            raise ValueError
    except (tarfile.TarError, ValueError, TypeError, KeyError):
        raise OperatorError(
            "backup-invalid",
            what="the file is sealed by this key but is no backup of this version",
            do="name the file that cameo-node backup wrote",
            exit=ExitCode.DATA,
        ) from None
    return content, parts


def put_back(home: NodeHome, parts: dict[str, bytes]) -> None:
    """Write the files of a backup into a home without a node; node.toml last, so a crash leaves no half node."""
    require_empty(home)
    for name in sorted(parts, key=lambda name: name == home.config.name):
        write_file(home.root / name, parts[name], PRIVATE)


def require_empty(home: NodeHome) -> None:
    """Refuse a home that holds a node, or a ledger without one."""
    if home.config.exists() or home.ledger.exists():
        raise OperatorError(
            "home-exists",
            what=f"there is a hospital node in {home.root} already",
            do="restore into an empty folder: cameo-node restore FILE --home DIR",
        )


def _snapshots(home: NodeHome, folder: Path) -> Iterator[tuple[str, bytes]]:
    """A consistent copy of each database that there is."""
    for name in DATABASES:
        if not (home.root / name).exists():
            continue
        try:
            uri = f"{(home.root / name).as_uri()}?mode=ro"
            with (
                contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as source,
                contextlib.closing(sqlite3.connect(folder / name)) as copy,
            ):
                source.backup(copy)
                sound = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            sound = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        if sound != "ok":
            raise OperatorError(
                "backup-database",
                what=f"{name} cannot be copied soundly; no backup was made",
                do="check the disk; keep the backups that there are",
                exit=ExitCode.DATA,
            )
        yield name, (folder / name).read_bytes()


def _names(home: NodeHome) -> Iterator[str]:
    for name in FILES:
        if (home.root / name).is_file():
            yield name
    for pattern in TREES:
        for path in sorted(home.root.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(home.root).as_posix()


def _allowed(name: str) -> bool:
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and path.as_posix() == name
    tree = any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in TREES)
    return plain and (name in DATABASES or name in FILES or tree)
