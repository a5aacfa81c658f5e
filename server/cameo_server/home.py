"""The coordinator's state folder: what lies where, and how files get there. Table: docs/coordinator.md#state."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import BaseModel, ValidationError

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.faults import faults
from cameo_protocol.federation import Host, Port, Timestamp
from cameo_protocol.plan import Name

PUBLIC, PRIVATE = 0o644, 0o600
DEFAULT_FLEET_PORT, DEFAULT_OPERATOR_PORT, DEFAULT_JOIN_PORT, DEFAULT_PAGE_PORT = 9092, 9093, 9094, 9095


class CoordinatorConfig(BaseModel, frozen=True, extra="forbid"):
    """coordinator.toml: the federation's name, and the host and ports where it is reached over TLS.

    fleet_port: hospitals' rounds. operator_port: the operator interface, mutual TLS. join_port: hospitals that join.
    page_port: the dashboard, on this machine only.
    """

    version: Literal[1] = 1
    federation: Name
    host: Host
    fleet_port: Port
    operator_port: Port = DEFAULT_OPERATOR_PORT
    join_port: Port = DEFAULT_JOIN_PORT
    page_port: Port = DEFAULT_PAGE_PORT
    created: Timestamp

    @property
    def join_address(self) -> str:
        """HOST:PORT as `cameo-node join` takes it, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.join_port}" if ":" in self.host else f"{self.host}:{self.join_port}"


@dataclass(frozen=True)
class CoordinatorHome:
    """Paths below the coordinator's state folder."""

    root: Path

    @property
    def config(self) -> Path:
        """coordinator.toml; it is written last, so where it is, everything else is."""
        return self.root / "coordinator.toml"

    @property
    def ca_key(self) -> Path:
        """Private key of the federation's CA, 0600."""
        return self.root / "keys" / "ca.key"

    @property
    def ca_cert(self) -> Path:
        """The CA's certificate: what hospitals pin."""
        return self.root / "tls" / "ca.pem"

    @property
    def server_key(self) -> Path:
        """TLS key of the Fleet API, 0600."""
        return self.root / "keys" / "server.key"

    @property
    def server_cert(self) -> Path:
        """TLS certificate of the Fleet API, 90 days."""
        return self.root / "tls" / "server.pem"

    @property
    def page_key(self) -> Path:
        """Key of the dashboard's one-time links, 0600."""
        return self.root / "keys" / "page.key"

    @property
    def plan_key(self) -> Path:
        """Ed25519 key that signs plans, published models and federation.json, 0600."""
        return self.root / "keys" / "plan.key"

    @property
    def operator(self) -> Path:
        """The operator profile of the coordinator's own people: key, certificate, CA and address."""
        return self.root / "operator"

    @property
    def roster(self) -> Path:
        """SQLite: hospitals invited, added and removed, certificates and federation files issued."""
        return self.root / "roster.sqlite"

    @property
    def federation(self) -> Path:
        """The federation file issued last."""
        return self.root / "federation.json"

    @property
    def heads(self) -> Path:
        """How far each hospital's ledger was, as it signed it; said back to it, so that none can be put back."""
        return self.root / "heads.json"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def audit_log(self) -> Path:
        """SQLite: who did what, hash-chained."""
        return self.root / "audit.sqlite"

    @property
    def audits(self) -> Path:
        """One signed audit a recipe."""
        return self.root / "audits"

    @property
    def flower(self) -> Path:
        """The SuperLink's database and logs."""
        return self.root / "flower"


def checked_config(**options: object) -> CoordinatorConfig:
    """A configuration from command-line options; a bad value is an `OperatorError` that names its field."""
    try:
        return CoordinatorConfig.model_validate(options)
    except ValidationError as error:
        raise OperatorError(
            "option-invalid",
            what=faults(error, CoordinatorConfig),
            do="correct it and run again; see the command's --help",
        ) from None


def default_root() -> Path:
    """$XDG_STATE_HOME/cameo-coordinator; XDG_STATE_HOME defaults to ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "cameo-coordinator"


def open_home(root: Path | None) -> CoordinatorHome:
    """The state folder at `root` (None: the default), which must have been initialised."""
    home = CoordinatorHome((root or default_root()).absolute())
    if not home.config.is_file():
        raise OperatorError(
            "no-home",
            what=f"there is no coordinator in {home.root}",
            do="cameo coordinator init, or name another folder with --home",
        )
    return home


def load_config(home: CoordinatorHome) -> CoordinatorConfig:
    """Read and check coordinator.toml."""
    raw = read_file(home.config)
    do = f"correct {home.config}; see docs/coordinator.md#state"
    try:
        return CoordinatorConfig.model_validate(tomllib.loads(raw.decode()))
    except ValidationError as error:
        raise OperatorError(
            "config-invalid", what=f"{home.config.name}: {faults(error, CoordinatorConfig)}", do=do
        ) from None
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


def load_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """An Ed25519 key file."""
    key = _load(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _broken(path, "an Ed25519 key")
    return key


def load_ec(path: Path) -> ec.EllipticCurvePrivateKey:
    """An EC key file."""
    key = _load(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _broken(path, "an EC key")
    return key


def toml(values: Mapping[str, str | int]) -> str:
    """A flat TOML table. JSON's strings are TOML's as long as they hold no control characters, which ours never do."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _load(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError):
        raise _broken(path, "an unencrypted PEM key") from None


def _broken(path: Path, thing: str) -> OperatorError:
    return OperatorError(
        "key-broken", what=f"{path} is not {thing}", do="restore it from a backup of the keys", exit=ExitCode.AUTH
    )
