"""Secrets at rest: envelope encryption with AES-256-GCM.

Every sealed file has a data key of its own; that key is wrapped by the hospital's key-encryption key (KEK), which lies
apart. Whoever steals the files without the KEK has noise. A new KEK means wrapping data keys again, not encrypting
files again. Source: NIST SP 800-38D; SP 800-57 part 1, 5.3 (key-encryption keys).

Layout of sealed bytes: magic, 8 bytes KEK id, 12 nonce, 48 wrapped data key, 12 nonce, ciphertext with its tag.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cameo_client.home import PRIVATE, NodeHome, load_config, read_file, read_secret, write_file
from cameo_protocol.errors import Bug, ExitCode, OperatorError

MAGIC = b"cameo-sealed-1\n"
CREDENTIAL, FORMER = "cameo-kek", ".old"
KEY, NONCE, TAG, ID = 32, 12, 16, 8
_WRAPPED = len(MAGIC) + ID + NONCE
_BODY = _WRAPPED + KEY + TAG
OVERHEAD = _BODY + NONCE + TAG
Random = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class Kek:
    """A key-encryption key: 32 bytes."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != KEY:
            raise Bug("vault-key-length", what="a key-encryption key that is not 32 bytes")

    @property
    def id(self) -> bytes:
        """8 bytes that name the key and tell nothing about it."""
        return hashlib.sha256(b"cameo/kek-id\0" + self.raw).digest()[:ID]


@dataclass(frozen=True, eq=False)
class Vault:
    """Seals and opens bytes under a name. current: the KEK that seals. former: the one before, until a rotation ends.

    random: n -> n fresh bytes; a nonce is never derived from anything else.
    """

    current: Kek
    former: Kek | None = None
    random: Random = field(default=os.urandom, repr=False)

    @classmethod
    def open(cls, home: NodeHome | Path, environ: Mapping[str, str] = os.environ) -> Vault:
        """The vault of a hospital's home; the first opening makes its key, unless one is configured elsewhere.

        Where the key lies, the first there is: `$CREDENTIALS_DIRECTORY/cameo-kek`, `kek_file` of node.toml,
        HOME/keys/kek.key. HOME/kek.id remembers which key it was, so that a lost key is an `OperatorError` and never
        replaced by a new one that opens nothing.
        """
        place = home if isinstance(home, NodeHome) else NodeHome(home.absolute())
        path, made_here = _key_path(place, environ)
        if made_here and not path.exists() and not _marker(place).exists():
            _make(path)
        vault = cls(_load(path), _former(path))
        vault.check(place)
        return vault

    def check(self, home: NodeHome) -> None:
        """Hold the keys against HOME/kek.id, written where there is none yet or a new key has come beside the former.

        Another key: `OperatorError("vault-key-wrong")`.
        """
        marker = _marker(home)
        known = read_file(marker).decode("ascii", "replace").strip() if marker.exists() else ""
        if known == self.current.id.hex():
            return
        if known and not (self.former and known == self.former.id.hex()):
            raise _wrong_key(marker.name)
        write_file(marker, (self.current.id.hex() + "\n").encode(), PRIVATE)

    def seal(self, name: str, plain: bytes) -> bytes:
        """Encrypt `plain` under a new data key. It opens again only under the same name."""
        data_key, nonce, body_nonce = self.random(KEY), self.random(NONCE), self.random(NONCE)
        body = AESGCM(data_key).encrypt(body_nonce, plain, _about("body", name))
        return _head(self.current, name, data_key, nonce) + body_nonce + body

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """What was sealed under `name`.

        Changed, cut or renamed bytes: `OperatorError("vault-damaged")`; another KEK: `"vault-key-wrong"`.
        """
        data_key = self._data_key(name, sealed)
        nonce, body = sealed[_BODY : _BODY + NONCE], sealed[_BODY + NONCE :]
        try:
            return AESGCM(data_key).decrypt(nonce, body, _about("body", name))
        except InvalidTag:
            raise _damaged(name) from None

    def rewrap(self, name: str, sealed: bytes) -> bytes:
        """The same content with its data key wrapped by the current KEK; the body is neither read nor changed."""
        return _head(self.current, name, self._data_key(name, sealed), self.random(NONCE)) + sealed[_BODY:]

    def stale(self, sealed: bytes) -> bool:
        """Whether sealed bytes hang on the former KEK and need `rewrap` before that key is destroyed."""
        return sealed[len(MAGIC) : len(MAGIC) + ID] != self.current.id

    def _data_key(self, name: str, sealed: bytes) -> bytes:
        if len(sealed) < OVERHEAD or not sealed.startswith(MAGIC):
            raise _damaged(name)
        key_id = sealed[len(MAGIC) : len(MAGIC) + ID]
        kek = next((key for key in (self.current, self.former) if key is not None and key.id == key_id), None)
        if kek is None:
            raise _wrong_key(name)
        try:
            nonce = sealed[len(MAGIC) + ID : _WRAPPED]
            return AESGCM(kek.raw).decrypt(nonce, sealed[_WRAPPED:_BODY], _about("key", name))
        except InvalidTag:
            raise _damaged(name) from None


def rotate(home: NodeHome, environ: Mapping[str, str] = os.environ) -> Vault:
    """Begin with a new KEK; the one before stays as `kek.key.old` until `finish`: a crash at any point loses nothing.

    Only for a key that Cameo made (HOME/keys/kek.key or `kek_file`): a systemd credential is renewed where it is made.
    Whoever keeps sealed bytes calls `rewrap` on them in between.
    """
    path, _ = _key_path(home, environ)
    if path.name == CREDENTIAL:
        raise OperatorError(
            "vault-credential", what="the key-encryption key is a systemd credential, which this process cannot change",
            do=f"make a new credential {CREDENTIAL}, keep the present one as {CREDENTIAL}{FORMER}, restart the node",
        )  # fmt: skip
    vault = Vault.open(home, environ)
    if vault.former is None:
        write_file(_old(path), vault.current.raw.hex().encode() + b"\n", PRIVATE)
        write_file(path, os.urandom(KEY).hex().encode() + b"\n", PRIVATE)
    return Vault.open(home, environ)


def finish(home: NodeHome, environ: Mapping[str, str] = os.environ) -> None:
    """End a rotation: destroy the former KEK. What still hangs on it can never be opened again."""
    path, _ = _key_path(home, environ)
    Vault.open(home, environ)
    _old(path).unlink(missing_ok=True)


def _make(path: Path) -> None:
    """A new key, unless another process has just made one: two must not each go on with their own."""
    draft = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    write_file(draft, (os.urandom(KEY).hex() + "\n").encode(), PRIVATE)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _head(kek: Kek, name: str, data_key: bytes, nonce: bytes) -> bytes:
    return MAGIC + kek.id + nonce + AESGCM(kek.raw).encrypt(nonce, data_key, _about("key", name))


def _about(what: str, name: str) -> bytes:
    return f"cameo/vault/1/{what}\0{name}".encode()


def _marker(home: NodeHome) -> Path:
    return home.root / "kek.id"


def _old(path: Path) -> Path:
    return path.with_name(path.name + FORMER)


def _key_path(home: NodeHome, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Where the KEK lies, and whether Cameo may make it there: never on a volume that may just not be mounted."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / CREDENTIAL).exists():
        return Path(folder) / CREDENTIAL, False
    elsewhere = load_config(home).kek_file if home.config.is_file() else None
    return (Path(elsewhere), False) if elsewhere else (home.root / "keys" / "kek.key", True)


def _former(path: Path) -> Kek | None:
    return _load(_old(path)) if _old(path).exists() else None


def _load(path: Path) -> Kek:
    """32 raw bytes, or 64 hex digits and a line end. systemd guards its credentials; other files must be 0600."""
    if not path.exists():
        raise OperatorError(
            "vault-key-missing",
            what=f"the key-encryption key {path} is not there",
            do="mount its volume, start through systemd where it is a credential, or restore it from its own backup",
            exit=ExitCode.AUTH,
        )
    return read_kek(read_file(path) if path.name.removesuffix(FORMER) == CREDENTIAL else read_secret(path), path)


def read_kek(data: bytes, path: Path) -> Kek:
    """The key in the bytes of a key file, which is named in the `OperatorError` "key-broken"."""
    try:
        raw = data if len(data) == KEY else bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        raw = b""
    if len(raw) != KEY:
        raise OperatorError(
            "key-broken", what=f"{path} is not a key of 64 hex digits", do="restore it from a backup of the keys",
            exit=ExitCode.AUTH,
        )  # fmt: skip
    return Kek(raw)


def _wrong_key(name: str) -> OperatorError:
    return OperatorError(
        "vault-key-wrong",
        what=f"{name} was sealed with another key-encryption key than the one there is",
        do="restore the key that belongs to this home, or the files that belong to this key",
        exit=ExitCode.AUTH,
    )


def _damaged(name: str) -> OperatorError:
    return OperatorError(
        "vault-damaged", what=f"the sealed bytes of {name} were changed, cut or swapped", do="restore it from a backup",
        exit=ExitCode.DATA,
    )  # fmt: skip
