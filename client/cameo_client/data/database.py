"""Where a PostgreSQL source is and where its password comes from: never the command line, never node.toml."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from pydantic import BaseModel, Field, field_validator, model_validator

from cameo_client.data.findings import bad_file

SCHEMES = ("postgresql://", "postgres://")
_URL = re.compile(r"postgres(?:ql)?://[^\s\0]+")
_SECRET = re.compile(r"(?i)://[^/?#@]*:[^/?#@]+@|[?&](?:password|passfile|sslpassword|service)=")
MAX_SECRET = 4096


def is_url(path: str) -> bool:
    """Whether the path of a source names a PostgreSQL database."""
    return path.startswith(SCHEMES)


def without_secret(url: str) -> str:
    """A libpq connection URL without a password; anything else is a ValueError that does not quote it."""
    if not _URL.fullmatch(url):
        raise ValueError("not of the form postgresql://USER@HOST:PORT/DATABASE")
    if _SECRET.search(url):
        raise ValueError("the address holds a password: change that password, and name its file or variable instead")
    return url


class Database(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """A PostgreSQL database as a source.

    url: postgresql://USER@HOST:PORT/DATABASE, without a password. password_file: a file that only its owner may read
    and whose one line is the password; password_env: the environment variable that holds it; neither: libpq's own
    ways (peer authentication, certificates, ~/.pgpass).
    """

    url: str = Field(max_length=4096, repr=False)
    password_file: Path | None = None
    password_env: str | None = None

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str) -> str:
        return without_secret(url)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("the password comes from a file or from a variable, not from both")
        return self

    @property
    def name(self) -> str:
        """What messages call it."""
        return "PostgreSQL"

    def connection_string(self, environ: Mapping[str, str] = os.environ) -> str:
        """The URL with its password, for libpq alone: never print it. Faults are `OperatorError`s without it."""
        secret = self._secret(environ)
        if secret is None:
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}password={quote(secret, safe='')}"

    def _secret(self, environ: Mapping[str, str]) -> str | None:
        if self.password_env is not None:
            secret = environ.get(self.password_env, "")
            if not secret:
                raise bad_file(
                    "data-secret-missing",
                    f"the environment variable {self.password_env} holds no password",
                    f"set {self.password_env} for this process, then run the command again",
                )
            return secret
        return None if self.password_file is None else _read_secret(self.password_file)


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode, raw = os.fstat(file.fileno()).st_mode, file.read(MAX_SECRET + 1)
        if stat.S_IMODE(mode) & 0o077:
            raise bad_file("data-secret-open", f"{path.name}: others may read this password", f"chmod 600 {path}")
        text = raw.decode().strip("\r\n")
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text or len(raw) > MAX_SECRET or "\n" in text or "\0" in text:
        raise bad_file(
            "data-secret-missing",
            f"{path.name}: it cannot be read as one line that is the password",
            "write the password, and nothing else, into that file",
        )
    return text
