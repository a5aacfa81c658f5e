"""What a SuperLink needs to know, and the secrets it shares with the processes of this machine."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from cameo_protocol.errors import OperatorError
from cameo_server.home import PRIVATE, read_secret, write_file

LOOPBACK = "127.0.0.1"
SECRET_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class SuperLinkSettings:
    """home: the coordinator's state folder. certificate, key: PEM files of the public TLS server.

    fleet_host, fleet_port: where hospitals connect. control_port: loopback only. database: default in home.
    """

    home: Path
    certificate: Path
    key: Path
    fleet_port: int
    control_port: int
    fleet_host: str = "0.0.0.0"  # noqa: S104 - hospitals connect from outside; the gate decides what they reach
    database: Path | None = None

    @property
    def folder(self) -> Path:
        """Flower's folder in the home: database, secrets, unpacked bundles."""
        return self.home / "flower"

    @property
    def logs(self) -> Path:
        """Where the processes' output goes."""
        return self.home / "logs"

    @property
    def database_file(self) -> Path:
        """The SQLite file: nodes and runs survive a crash in it."""
        return self.database or self.folder / "superlink.db"

    @property
    def control_address(self) -> str:
        """Where the Control and Runtime APIs are; never a public address."""
        return f"{LOOPBACK}:{self.control_port}"

    def prepare(self) -> None:
        """Make the folders and, once, the two secrets (mode 0600)."""
        for folder in (self.folder, self.logs, self.database_file.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (self.control_token_file, self.superexec_secret_file):
            # A whole one or none: the empty file that a full disk leaves would be a secret that everybody knows.
            if not path.exists() or len(read_secret(path)) < SECRET_DIGITS:
                write_file(path, secrets.token_hex(SECRET_DIGITS // 2).encode(), PRIVATE)

    @property
    def control_token_file(self) -> Path:
        """The token that the Control API asks for."""
        return self.folder / "control.token"

    @property
    def superexec_secret_file(self) -> Path:
        """The secret between SuperLink and superexec."""
        return self.folder / "superexec.secret"

    def control_token(self) -> str:
        """Read the Control API's token; an `OperatorError` before the first start."""
        try:
            return self.control_token_file.read_text().strip()
        except OSError:
            raise OperatorError(
                "coordinator-not-started",
                what=f"{self.control_token_file} cannot be read",
                do="run: cameo coordinator start",
            ) from None
