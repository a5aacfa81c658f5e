"""`cameo-node backup` and `restore`: the node's state as one sealed file, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, say

if TYPE_CHECKING:
    from cameo_client.home import NodeHome
    from cameo_client.vault import Vault

OWN_KEK = "keys/kek.key"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write what this node needs to come back into FILE, sealed.

    The node may run meanwhile. Not in it, to be kept apart: the key-encryption key that opens FILE (keys/kek.key, or
    where node.toml says) and the key of the pseudonyms (pseudonym/hmac.key). Keys of a round are on no disk.

    \b
    Example:
      cameo-node backup /mnt/backup/hospital-a.sealed
    """
    from cameo_client.audit import note
    from cameo_client.backup import make_backup
    from cameo_client.home import PRIVATE, load_config, open_home, write_file
    from cameo_client.vault import Vault

    place = open_home(home)
    note(place, "backup-made", about=file.name)
    say("copying …")
    sealed, content = make_backup(place, Vault.open(place), load_config(place).site, _now())
    write_file(file.absolute(), sealed, PRIVATE)
    value = {"path": str(file.absolute()), "site": content.site, "made": content.made, "files": sorted(content.files)}
    emit(
        value,
        as_json,
        lambda: (
            f"{len(content.files)} files of {content.site}, sealed: {file}\n"
            "Keep apart: the key-encryption key that opens it, and pseudonym/hmac.key\n"
            "Make a new one after every run: a ledger older than its newest round is refused"
        ),
    )


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    key: Annotated[
        Path | None,
        typer.Option("--kek-file", metavar="KEY", help="The key-encryption key, where it is not in place already."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put the backup FILE into an empty state folder.

    If a round was released after the backup was made, the ledger in it is too old: the coordinator and the other
    hospitals have seen a newer one, and the node stops with `ledger-rolled-back`.

    \b
    Example:
      cameo-node restore /mnt/backup/hospital-a.sealed --kek-file /mnt/keys/kek.key
    """
    from cameo_client.audit import note
    from cameo_client.backup import MAX_BACKUP, open_backup, put_back, require_empty
    from cameo_client.home import PRIVATE, NodeHome, default_root, load_config, read_file, write_file

    place = NodeHome((home or default_root()).absolute())
    require_empty(place)
    kek = _kek(place, key)
    content, parts = open_backup(read_file(file, at_most=MAX_BACKUP), _vault(kek))
    put_back(place, parts)
    if kek is not None and load_config(place).kek_file is None:
        write_file(place.root / OWN_KEK, kek, PRIVATE)
    note(place, "backup-restored", about=file.name, made=content.made)
    value = {"site": content.site, "made": content.made, "home": str(place.root), "files": sorted(content.files)}
    emit(
        value,
        as_json,
        lambda: (
            f"{content.site} as of {content.made} is in {place.root}\n"
            f"Next: copy the key of the pseudonyms to {place.pseudonym_key}, then: cameo-node doctor"
        ),
    )


def _kek(place: NodeHome, key: Path | None) -> bytes | None:
    """The key file that opens a backup; None: the key is a systemd credential. A new key would open nothing."""
    import os

    from cameo_client.home import read_secret
    from cameo_protocol.errors import OperatorError

    own = place.root / OWN_KEK
    if key is not None or own.exists():
        return read_secret(key or own)
    if "CREDENTIALS_DIRECTORY" in os.environ:
        return None
    raise OperatorError(
        "backup-key-missing",
        what="there is no key-encryption key that could open the backup",
        do="name the key that was kept apart: cameo-node restore FILE --kek-file KEY",
    )


def _vault(kek: bytes | None) -> Vault:
    """A vault with this key, beside the home: a key that turns out to be the wrong one leaves nothing there."""
    from tempfile import TemporaryDirectory

    from cameo_client.home import NodeHome
    from cameo_client.vault import Vault, read_kek

    if kek is not None:  # only in memory: the disk of temporary files is not where this key is kept
        return Vault(read_kek(kek, Path(OWN_KEK)))
    with TemporaryDirectory() as folder:
        return Vault.open(NodeHome(Path(folder)))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
