"""How `cameo` calls the operator interface: with a profile, which is a folder of key, certificate, CA and address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.operator_api.operator_pb2_grpc import OperatorStub
from cameo_protocol.operator_api.refusal import from_metadata
from cameo_server import pki
from cameo_server.enrolment import is_good, issue_person
from cameo_server.home import (
    PRIVATE,
    PUBLIC,
    CoordinatorHome,
    key_pem,
    load_config,
    open_home,
    read_file,
    read_secret,
    write_file,
)

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Profile:
    """The folder with which a person calls: profile.json, key.pem (0600), certificate.pem, ca.pem."""

    folder: Path

    @property
    def key(self) -> Path:
        """The person's own key."""
        return self.folder / "key.pem"

    @property
    def certificate(self) -> Path:
        """What the coordinator gave for it."""
        return self.folder / "certificate.pem"

    @property
    def ca(self) -> Path:
        """Whom to trust."""
        return self.folder / "ca.pem"

    @property
    def address(self) -> str:
        """HOST:PORT of the operator interface; a folder that is no profile is a "profile-none"."""
        if not (self.folder / "profile.json").exists():
            raise OperatorError(
                "profile-none",
                what=f"{self.folder} is no profile: profile.json is missing",
                do="name the folder that the coordinator gave you: --profile DIR",
            )
        try:
            return str(json.loads(read_file(self.folder / "profile.json"))["address"])
        except (ValueError, KeyError, TypeError):
            raise OperatorError(
                "profile-broken",
                what=f"{self.folder}/profile.json holds no address",
                do="ask the coordinator for the profile again: cameo person add NAME --out DIR",
            ) from None


def make_profile(home: CoordinatorHome, folder: Path, name: str, role: pki.Role, now: datetime) -> Profile:
    """Write a profile with a fresh key and certificate; it is a secret of the person it is for."""
    config, profile = load_config(home), Profile(folder)
    host = f"[{config.host}]" if ":" in config.host else config.host
    key = ec.generate_private_key(ec.SECP256R1())
    write_file(profile.key, key_pem(key), PRIVATE)
    write_file(profile.certificate, issue_person(home, key.public_key(), name, role, now), PUBLIC)
    write_file(profile.ca, read_file(home.ca_cert), PUBLIC)
    write_file(folder / "profile.json", json.dumps({"address": f"{host}:{config.operator_port}"}).encode(), PUBLIC)
    return profile


def own_profile(home: CoordinatorHome, now: datetime) -> Profile:
    """The profile of the coordinator's own commands on this machine; renewed in its last 30 days.

    Also when it was revoked, as one does with a copy that was stolen: who has this home has the CA's key.
    """
    profile = Profile(home.operator)
    if profile.certificate.exists() and profile.key.exists():
        certificate = x509.load_pem_x509_certificate(read_file(profile.certificate))
        if pki.days_left(certificate, now) >= pki.RENEW_DAYS and is_good(home, certificate, now):
            return profile
    return make_profile(home, home.operator, "coordinator", "coordinator", now)


class OperatorClient:
    """Calls with our errors: a refusal is raised as the coordinator's `OperatorError`."""

    def __init__(self, stub: Any, address: str) -> None:
        self._stub = stub
        self._address = address

    def call(self, method: str, request: Any, deadline_s: float = DEADLINE_S) -> Any:
        """One unary call by its name in operator.proto."""
        with translated(self._address):
            return getattr(self._stub, method)(request, timeout=deadline_s)

    def stream(self, method: str, request: Any) -> Iterator[Any]:
        """The answers of a streaming call."""
        with translated(self._address):
            yield from getattr(self._stub, method)(request)


@contextmanager
def connect(profile: Profile, address: str | None = None) -> Iterator[OperatorClient]:
    """A client over mutual TLS. address: another one than the profile's, for a coordinator on this machine."""
    target = address or profile.address
    credentials = grpc.ssl_channel_credentials(
        read_file(profile.ca), read_secret(profile.key), read_file(profile.certificate)
    )
    with grpc.secure_channel(target, credentials, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield OperatorClient(OperatorStub(channel), target)


@contextmanager
def connect_home(home: CoordinatorHome) -> Iterator[OperatorClient]:
    """A client of the coordinator that runs on this home, over loopback."""
    profile = own_profile(home, datetime.now(UTC))
    with connect(profile, f"localhost:{load_config(home).operator_port}") as client:
        yield client


@contextmanager
def connected(home: Path | None, profile: Path | None) -> Iterator[OperatorClient]:
    """What --home and --profile mean: a profile calls its own address, otherwise the home's coordinator is called."""
    if profile is not None:
        with connect(Profile(profile)) as client:
            yield client
    else:
        with connect_home(open_home(home)) as client:
            yield client


@contextmanager
def translated(address: str) -> Iterator[None]:
    """gRPC's errors as ours."""
    try:
        yield
    except grpc.RpcError as error:
        known = from_metadata((item.key, item.value) for item in error.trailing_metadata() or ())
        if known is not None:
            raise known from None
        raise _unreachable(address, error.code()) from None


def _unreachable(address: str, code: grpc.StatusCode) -> OperatorError:
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        what = f"{address} did not answer in time"
    else:
        what = f"no coordinator that accepts this certificate answers on {address} ({code.name.lower()})"
    return OperatorError(
        "coordinator-unreachable",
        what=what,
        do="cameo coordinator start; from another machine: check the address, the clock and the certificate",
        exit=ExitCode.AUTH,
    )
