"""A hospital's state folder: what lies where, and how files get there. Table: docs/operators.md#state."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import BaseModel, Field, ValidationError, model_validator

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.faults import faults
from cameo_protocol.federation import Timestamp
from cameo_protocol.plan import Name

PUBLIC, PRIVATE = 0o644, 0o600
DEFAULT_PAGE_PORT = 9096


class DataConfig(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """[data] of node.toml: where patient data comes from.

    name: of the population whose privacy the ledger counts; it stays the same when files or columns change.
    kind, path: the source, as `cameo_client.source` opens it: a file, a folder, or the address of a PostgreSQL
    database without a password. mapping: how it is read: a name in conf/sources, or a path that ends in .yaml.
    password_file, password_env: where that database's password is read; at most one of them.
    """

    name: Name = "patients"
    kind: Literal["table", "omop", "fhir"]
    path: str = Field(min_length=1, max_length=4096)
    mapping: str | None = Field(default=None, min_length=1, max_length=4096)
    password_file: str | None = Field(default=None, min_length=1, max_length=4096)
    password_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")

    @model_validator(mode="after")
    def _secrets_stay_out(self) -> Self:
        from cameo_client.data.database import is_url, without_secret

        if is_url(self.path):
            without_secret(self.path)
        elif self.password_file or self.password_env:
            raise ValueError("only a postgresql:// address has a password")
        if self.password_file and self.password_env:
            raise ValueError("the password comes from a file or from a variable, not from both")
        return self


class NodeConfig(BaseModel, frozen=True, extra="forbid"):
    """node.toml: this hospital's name in the federation, and its data source.

    kek_file: where the key-encryption key of what is sealed at rest lies, such as on another volume; without it in
    keys/kek.key. page_port: of the hospital's page, on this machine only; 0 = no page.
    """

    version: Literal[1] = 1
    site: Name
    created: Timestamp
    kek_file: str | None = Field(default=None, min_length=1, max_length=4096)
    page_port: int = Field(default=DEFAULT_PAGE_PORT, ge=0, le=65535)
    data: DataConfig


@dataclass(frozen=True)
class NodeHome:
    """Paths below a hospital's state folder."""

    root: Path

    @property
    def config(self) -> Path:
        """node.toml; it is written last, so where it is, the keys are."""
        return self.root / "node.toml"

    @property
    def policy(self) -> Path:
        """policy.yaml: the officer's."""
        return self.root / "policy.yaml"

    @property
    def federation(self) -> Path:
        """federation.json as accepted last."""
        return self.root / "federation.json"

    @property
    def card(self) -> Path:
        """public.json: what the coordinator gets."""
        return self.root / "public.json"

    @property
    def identity_key(self) -> Path:
        """Ed25519 key that signs every protocol message, 0600."""
        return self.root / "keys" / "identity.key"

    @property
    def node_key(self) -> Path:
        """EC P-384 key with which Flower authenticates this node, 0600."""
        return self.root / "keys" / "node.key"

    @property
    def operator_key(self) -> Path:
        """EC P-256 key of this hospital's certificate, 0600; it signs nothing of a run."""
        return self.root / "keys" / "operator.key"

    @property
    def operator_cert(self) -> Path:
        """This hospital's certificate for the operator interface, 90 days."""
        return self.root / "tls" / "operator.pem"

    @property
    def page_key(self) -> Path:
        """Key of the page's one-time links, 0600."""
        return self.root / "keys" / "page.key"

    @property
    def pseudonym_key(self) -> Path:
        """HMAC key of the pseudonyms, 0600, alone in its folder so that it can lie on another volume."""
        return self.root / "pseudonym" / "hmac.key"

    @property
    def scratch(self) -> Path:
        """Folder of rows that a read has to write down; empty when none goes on."""
        return self.root / "scratch"

    @property
    def ledger(self) -> Path:
        """SQLite: the privacy ledger."""
        return self.root / "ledger.sqlite"

    @property
    def consent(self) -> Path:
        """SQLite: the consent store."""
        return self.root / "consent.sqlite"

    @property
    def tags(self) -> Path:
        """SQLite: tags, with their reasons."""
        return self.root / "tags.sqlite"

    @property
    def roles(self) -> Path:
        """roles.yaml: the officer's list of who may do what with tags."""
        return self.root / "roles.yaml"

    @property
    def audit(self) -> Path:
        """SQLite: who did what, hash-chained."""
        return self.root / "audit.sqlite"

    @property
    def audit_key(self) -> Path:
        """Ed25519 key that signs the audit log, 0600; it outlives a membership, as the log does."""
        return self.root / "keys" / "audit.key"

    @property
    def receipt(self) -> Path:
        """The newest head of the audit log that the coordinator has countersigned."""
        return self.root / "audit-receipt.cbor"

    @property
    def models(self) -> Path:
        """One folder a published model."""
        return self.root / "models"

    @property
    def peers(self) -> Path:
        """How far the other hospitals' ledgers were, as they signed it."""
        return self.root / "peers.json"

    @property
    def journal(self) -> Path:
        """Which rounds have been answered."""
        return self.root / "journal"


Checked = TypeVar("Checked", bound=BaseModel)


def checked(model: type[Checked], **options: object) -> Checked:
    """A configuration from command-line options; a bad value is an `OperatorError` that names its field."""
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise OperatorError(
            "option-invalid", what=faults(error, model), do="correct it and run again; see the command's --help"
        ) from None


def default_root() -> Path:
    """$XDG_STATE_HOME/cameo-node; XDG_STATE_HOME defaults to ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "cameo-node"


def open_home(root: Path | None) -> NodeHome:
    """The state folder at `root` (None: the default), which must have been initialised."""
    home = NodeHome((root or default_root()).absolute())
    if not home.config.is_file():
        raise OperatorError(
            "no-home",
            what=f"there is no hospital node in {home.root}",
            do="cameo-node join HOST:PORT --token T, or cameo-node init; or name another folder with --home",
        )
    return home


def load_config(home: NodeHome) -> NodeConfig:
    """Read and check node.toml."""
    do = f"correct {home.config}; see docs/operators.md#state"
    try:
        return NodeConfig.model_validate(tomllib.loads(read_file(home.config).decode()))
    except ValidationError as error:
        raise OperatorError("config-invalid", what=f"{home.config.name}: {faults(error, NodeConfig)}", do=do) from None
    except ValueError as error:
        raise OperatorError("config-invalid", what=f"{home.config.name} is no TOML: {error}", do=do) from None


def make_folder(path: Path) -> None:
    """Make a folder for this user alone (0700), with its parents; one that exists is left as it is."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            "disk-write", what=f"cannot make the folder {path}: {error.strerror}", do="name another one with --home"
        ) from None


def write_file(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write, fsync, rename: after a crash the file is the old or the new one, whole. Makes the folder (0700)."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    make_folder(path.parent)
    try:
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OperatorError(
            "disk-write",
            what=f"cannot write {path}: {error.strerror}",
            do=f"free space on, or make writable, the folder {path.parent}; then run the command again",
        ) from None


def read_file(path: Path, *, at_most: int = 1 << 20) -> bytes:
    """A file's bytes; a missing, unreadable or too large one is an `OperatorError`."""
    try:
        with path.open("rb") as file:
            data = file.read(at_most + 1)
    except OSError as error:
        raise OperatorError(
            "disk-read", what=f"cannot read {path}: {error.strerror}", do=f"check that {path} is the file you mean"
        ) from None
    if len(data) > at_most:
        raise OperatorError(
            "file-too-long", what=f"{path} holds more than {at_most} bytes", do="check that it is the file you mean"
        )
    return data


def read_secret(path: Path) -> bytes:
    """A key file's bytes; refused when people other than its owner may read it."""
    data = read_file(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise OperatorError(
            "key-exposed",
            what=f"{path} may be read by others on this machine",
            do=f"find out who has read it; if nobody has: chmod 600 {path}",
            exit=ExitCode.AUTH,
        )
    return data


def key_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """A private key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_identity(home: NodeHome) -> ed25519.Ed25519PrivateKey:
    """The key that signs every protocol message of this hospital."""
    return load_ed25519(home.identity_key)


def load_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """An Ed25519 key file."""
    key = _load(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _broken(path, "an Ed25519 key")
    return key


def load_node_key(home: NodeHome) -> ec.EllipticCurvePrivateKey:
    """The key with which Flower authenticates this node."""
    key = _load(home.node_key)
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)):
        raise _broken(home.node_key, "an EC P-384 key")
    return key


def load_pseudonym_key(path: Path) -> bytes:
    """The 32-byte HMAC key in a pseudonym key file: 64 hex digits and a line end."""
    try:
        key = bytes.fromhex(read_secret(path).decode("ascii").strip())
    except ValueError:
        raise _broken(path, "a pseudonym key of 64 hex digits") from None
    if len(key) != 32:
        raise _broken(path, "a pseudonym key of 64 hex digits")
    return key


def toml(values: Mapping[str, str | int]) -> str:
    """A flat TOML table. JSON's strings are TOML's but for the control character DEL, which is escaped too."""
    return "".join(f"{key} = {json.dumps(value)}\n".replace("\x7f", "\\u007f") for key, value in values.items())


def _load(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError):
        raise _broken(path, "an unencrypted PEM key") from None


def _broken(path: Path, thing: str) -> OperatorError:
    return OperatorError(
        "key-broken", what=f"{path} is not {thing}", do="restore it from a backup of the keys", exit=ExitCode.AUTH
    )
