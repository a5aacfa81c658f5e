"""A coordinator's home on free ports, answering over real TLS."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_lab.bench.local import free_port
from cameo_protocol.federation import SiteCard, node_key_hex, write_card
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_protocol.operator_api.operator_pb2_grpc import EnrollmentStub
from cameo_protocol.operator_api.refusal import collect_text, request_text
from cameo_server import pki
from cameo_server.api.client import OperatorClient, Profile, connect, make_profile, translated
from cameo_server.api.server import serve_api
from cameo_server.api.services import Coordinator
from cameo_server.home import CoordinatorHome, key_pem
from cameo_server.membership import init_coordinator


@dataclass
class Applicant:
    """A hospital with its keys, as `cameo-node join` makes them."""

    name: str
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    node: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def card(self) -> bytes:
        public = self.identity.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        card = SiteCard(
            name=self.name,
            identity=public.hex(),
            node_key=node_key_hex(self.node.public_key()),
            created="2026-01-01T00:00:00Z",
        )
        return write_card(card, self.identity, self.node)

    def request(self) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class Api:
    """The running interface."""

    home: CoordinatorHome
    ports: tuple[int, int]
    online: dict[str, bool]
    folder: Path
    profiles: dict[str, Profile] = field(default_factory=dict)

    def profile(self, role: pki.Role) -> Profile:
        if role not in self.profiles:
            self.profiles[role] = make_profile(self.home, self.folder / role, f"a-{role}", role, datetime.now(UTC))
        return self.profiles[role]

    @contextmanager
    def client(self, role: pki.Role = "coordinator") -> Iterator[OperatorClient]:
        with connect(self.profile(role), f"localhost:{self.ports[0]}") as client:
            yield client

    @contextmanager
    def door(self) -> Iterator[EnrollmentStub]:
        credentials = grpc.ssl_channel_credentials(self.home.ca_cert.read_bytes())
        with grpc.secure_channel(f"localhost:{self.ports[1]}", credentials) as channel:
            yield EnrollmentStub(channel)

    def knock(self, applicant: Applicant, token: str) -> pb.EnrollReply:
        pem = applicant.request()
        request = pb.EnrollRequest(
            secret=token.partition(".")[0],
            public_card=applicant.card(),
            request_pem=pem,
            request_proof=applicant.identity.sign(request_text(pem)),
        )
        with self.door() as door, translated("the join port"):
            return door.Enroll(request, timeout=10)

    def collect(self, applicant: Applicant, at: int | None = None) -> pb.CollectReply:
        at = int(time.time()) if at is None else at
        proof = applicant.identity.sign(collect_text(applicant.name, at))
        with self.door() as door, translated("the join port"):
            return door.Collect(pb.CollectRequest(name=applicant.name, unix_seconds=at, proof=proof), timeout=10)

    def invite(self, name: str, ttl_s: int = 600) -> str:
        with self.client() as client:
            return str(client.call("InviteSite", pb.InviteSiteRequest(name=name, ttl_seconds=ttl_s)).token)

    def approve(self, name: str, fingerprint: str) -> pb.Site:
        with self.client() as client:
            return client.call("ApproveSite", pb.ApproveSiteRequest(name=name, fingerprint=fingerprint))

    def admit(self, name: str) -> Applicant:
        """Invite, knock and approve."""
        applicant = Applicant(name)
        self.approve(name, self.knock(applicant, self.invite(name)).fingerprint)
        return applicant

    def site_profile(self, applicant: Applicant) -> Profile:
        """What the hospital keeps after it has collected its certificate."""
        profile = Profile(self.folder / "sites" / applicant.name)
        profile.folder.mkdir(parents=True, exist_ok=True)
        profile.key.write_bytes(key_pem(applicant.key))
        profile.key.chmod(0o600)
        profile.certificate.write_bytes(self.collect(applicant).certificate_pem)
        profile.ca.write_bytes(self.home.ca_cert.read_bytes())
        return profile


@pytest.fixture
def stopped_api(tmp_path: Path) -> Api:
    """A coordinator that is set up and does not run."""
    home, ports = CoordinatorHome(tmp_path / "home"), (free_port(), free_port())
    init_coordinator(
        home,
        federation="study",
        host="localhost",
        fleet_port=free_port(),
        operator_port=ports[0],
        join_port=ports[1],
        now=datetime.now(UTC),
    )
    return Api(home, ports, {}, tmp_path / "profiles")


@pytest.fixture
def api(stopped_api: Api) -> Iterator[Api]:
    coordinator = Coordinator(stopped_api.home, random=os.urandom, contacts=lambda: stopped_api.online)
    with serve_api(coordinator, "127.0.0.1"):
        yield stopped_api
