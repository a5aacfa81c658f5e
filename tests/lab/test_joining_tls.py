"""Bad TLS handshakes, on the three ports of a coordinator and on the three ways in which a hospital connects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cameo_client import enrolment as node
from cameo_client.flower.fleet import tls_context
from cameo_client.home import DataConfig, NodeHome
from cameo_client.membership import init_node
from cameo_lab.bench.local import free_port
from cameo_protocol.errors import OperatorError
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_server import enrolment as coordinator
from cameo_server import pki
from cameo_server.api.client import Profile, connect, make_profile
from cameo_server.api.server import serve_api
from cameo_server.api.services import Coordinator
from cameo_server.flower.gate import FleetGate
from cameo_server.flower.settings import SuperLinkSettings
from cameo_server.flower.superlink import LiveTls, _server
from cameo_server.flower.turnstile import Bells, Turnstile
from cameo_server.home import CoordinatorHome, load_ec
from cameo_server.membership import _issue_server, init_coordinator, load_certificate, renew_server_certificate

NOW = datetime.now(UTC)
PORTS = ("fleet", "operator", "join")
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate chain, as files."""

    certificate: Path
    key: Path


@dataclass
class Maker:
    """Makes certificates, good and bad, below a folder. ca: the federation's."""

    folder: Path
    ca_key: ec.EllipticCurvePrivateKey
    ca: x509.Certificate

    def pair(self, key: Any, *chain: x509.Certificate) -> Pair:
        name = os.urandom(6).hex()
        found = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        found.certificate.write_bytes(b"".join(pki.certificate_pem(each) for each in chain))
        raw = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        found.key.write_bytes(raw)
        found.key.chmod(0o600)
        return found

    def leaf(
        self,
        *,
        usage: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
        now: datetime = NOW,
        key: Key | None = None,
        issuer: tuple[Any, x509.Certificate] | None = None,
        hosts: tuple[str, ...] = ("localhost",),
        own: bool = False,
    ) -> Pair:
        """A certificate that is right but for what is said. own: signed with its own key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        ca_key, ca = issuer or (self.ca_key, self.ca)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital-a")])
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        if usage != ExtendedKeyUsageOID.SERVER_AUTH:
            names = [x509.UniformResourceIdentifier("urn:cameo:role:site")]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if own else ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key if own else ca_key, hashes.SHA256())
        )
        return self.pair(key, made, *([] if own else [ca]))


@dataclass
class Place:
    """A coordinator that answers on all three ports, and a hospital that has joined it."""

    home: CoordinatorHome
    maker: Maker
    ports: dict[str, int]
    hospital: NodeHome
    folder: Path
    tls: LiveTls


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    home, ports = CoordinatorHome(folder / "coordinator"), {name: free_port() for name in PORTS}
    named: dict[str, Any] = {f"{name}_port": port for name, port in ports.items()}
    init_coordinator(home, federation="study", host="localhost", now=NOW, **named)
    maker = Maker(folder, load_ec(home.ca_key), load_certificate(home, "ca"))
    with fleet(home, ports["fleet"]) as tls, serve_api(Coordinator(home), "127.0.0.1"):
        yield Place(home, maker, ports, joined(home, folder, ports), folder, tls)


@contextlib.contextmanager
def fleet(home: CoordinatorHome, port: int) -> Iterator[LiveTls]:
    """The public listener of the SuperLink with its TLS and its gate; behind it, nothing."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    settings = SuperLinkSettings(
        home=home.root, certificate=home.server_cert, key=home.server_key, fleet_port=port, control_port=1
    )
    app, tls = FleetGate(Turnstile(nothing), Bells()), LiveTls(settings)
    server = _server(
        app, host="127.0.0.1", port=port, lifespan="off", ssl_context_factory=lambda *_: tls.context, ssl_keyfile="-"
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield tls
    server.should_exit = True
    thread.join(10)


def joined(home: CoordinatorHome, folder: Path, ports: dict[str, int]) -> NodeHome:
    """hospital-a with its certificate; two others make the roster large enough for a federation file."""
    homes = {}
    for name in ("hospital-a", "hospital-b", "hospital-c"):
        homes[name] = NodeHome(folder / name)
        init_node(homes[name], site=name, data=DataConfig(kind="table", path="/x", mapping="heart"), now=NOW)
        token = node.Token.parse(coordinator.invite(home, name, 600, NOW, os.urandom)[0])
        address = f"localhost:{ports['join']}"
        ca = node.pinned_ca(("localhost", ports["join"]), token)
        coordinator.approve(home, name, node.knock(homes[name], address, token, ca), NOW)
    first = homes["hospital-a"]
    found = node.ask(first, address, ca, "hospital-a", datetime.now(UTC))
    node.keep_certificate(first, found.certificate)
    first.federation.write_bytes(home.federation.read_bytes())
    return first


# --- a coordinator that is called badly -----------------------------------------------------------------------------


def caller(place: Place, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(place.home.ca_cert))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def old(context: ssl.SSLContext, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers(ciphers)
        context.minimum_version = context.maximum_version = version
    return context


def is_served(port: int, context: ssl.SSLContext, alpn: str) -> bool:
    """Whether anything of the application comes back: more than the handshake, which TLS 1.3 may finish on one side."""
    context.set_alpn_protocols([alpn])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9 - 5) + b"\4" + bytes(4))
            return bool(tls.recv(100))
    except OSError:
        return False


def alpn_of(port: str) -> str:
    return "http/1.1" if port == "fleet" else "h2"


def own_pair(place: Place) -> Pair:
    return Pair(place.hospital.operator_cert, place.hospital.operator_key)


@pytest.mark.parametrize("port", PORTS)
def test_a_good_caller_is_served(place: Place, port: str) -> None:
    assert is_served(place.ports[port], caller(place, own_pair(place)), alpn_of(port))


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "aNULL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "eNULL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"),
    ],
    ids=["tls-1.0", "tls-1.1", "anonymous", "no-encryption", "cbc"],
)
def test_old_tls_and_weak_ciphers_are_refused(place: Place, port: str, version: ssl.TLSVersion, ciphers: str) -> None:
    context = old(caller(place, own_pair(place)), version, ciphers)
    if "NULL" in ciphers:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    assert not is_served(place.ports[port], context, alpn_of(port))


def test_the_fleet_port_wants_tls_1_3(place: Place) -> None:
    context = caller(place)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not is_served(place.ports["fleet"], context, "http/1.1")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes.fromhex("16030100ff") + bytes(range(255)),
        bytes.fromhex("1603010200010001fc0303"),
    ],
    ids=["plaintext", "plaintext-h2", "garbage-record", "half-a-hello"],
)
def test_what_is_no_handshake_gets_no_answer(place: Place, port: str, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", place.ports[port]), timeout=5) as plain:
        plain.sendall(said)
        plain.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := plain.recv(4096):
                answer += piece
    assert answer[:1] in (b"", b"\x15"), "nothing, or a TLS alert"


BAD_CALLERS: dict[str, Callable[[Maker], Pair | None]] = {
    "no-certificate": lambda _: None,
    "another-ca": lambda m: m.leaf(issuer=pki.create_ca("other", NOW)),
    "self-signed": lambda m: m.leaf(own=True),
    "expired": lambda m: m.leaf(now=NOW - timedelta(days=91)),
    "not-yet-valid": lambda m: m.leaf(now=NOW + timedelta(days=2)),
    "a-servers-certificate": lambda m: m.leaf(usage=ExtendedKeyUsageOID.SERVER_AUTH),
    "another-use": lambda m: m.leaf(usage=ExtendedKeyUsageOID.CODE_SIGNING),
    "issued-by-a-leaf": lambda m: m.leaf(issuer=_leaf_as_issuer(m)),
}


def _leaf_as_issuer(maker: Maker) -> tuple[Any, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    pair = maker.leaf(key=key)
    return key, x509.load_pem_x509_certificate(pair.certificate.read_bytes())


@pytest.mark.parametrize("kind", BAD_CALLERS)
def test_a_bad_certificate_does_not_open_the_operator_port(place: Place, kind: str) -> None:
    assert not is_served(place.ports["operator"], caller(place, BAD_CALLERS[kind](place.maker)), "h2")


def test_the_server_key_itself_is_no_certificate_of_a_caller(place: Place) -> None:
    pair = Pair(place.home.server_cert, place.home.server_key)
    assert not is_served(place.ports["operator"], caller(place, pair), "h2")


@pytest.mark.parametrize("key", ["rsa-1024", "p-256"])
def test_a_certificate_that_was_never_issued_opens_no_call(place: Place, key: str) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024) if key == "rsa-1024" else None
    pair = place.maker.leaf(key=weak)
    profile = make_profile(place.home, place.folder / f"profile-{key}", "maria", "auditor", NOW)
    profile.certificate.write_bytes(pair.certificate.read_bytes())
    profile.key.write_bytes(pair.key.read_bytes())
    assert refusal(profile, place) in ("certificate-refused", "coordinator-unreachable")


def test_a_revoked_certificate_is_refused_every_time(place: Place) -> None:
    profile = make_profile(place.home, place.folder / "revoked", "lost-laptop", "coordinator", NOW)
    with connect(profile, f"localhost:{place.ports['operator']}") as open_before:
        assert open_before.call("GetStatus", pb.GetStatusRequest()).federation == "study"
        coordinator.revoke_person(place.home, "lost-laptop", NOW)
        with pytest.raises(OperatorError) as refused:
            open_before.call("GetStatus", pb.GetStatusRequest())
        assert refused.value.code == "certificate-refused", "on a connection that was open already"
    assert [refusal(profile, place) for _ in range(20)] == ["certificate-refused"] * 20


def refusal(profile: Profile, place: Place) -> str:
    with connect(profile, f"localhost:{place.ports['operator']}") as client, pytest.raises(OperatorError) as refused:
        client.call("GetStatus", pb.GetStatusRequest())
    return refused.value.code


def shown(place: Place, port: str) -> int:
    """The serial number of the certificate that a port shows to a new connection."""
    context = caller(place, own_pair(place))
    with (
        socket.create_connection(("127.0.0.1", place.ports[port]), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number


def test_a_renewed_server_certificate_is_shown_without_a_restart(place: Place) -> None:
    assert not renew_server_certificate(place.home, NOW)
    _issue_server(place.home, "localhost", NOW - timedelta(days=61))
    place.tls.refresh()
    before = {port: shown(place, port) for port in PORTS}
    old_cert = place.home.server_cert.read_bytes()
    assert renew_server_certificate(place.home, NOW)
    place.tls.refresh()
    new_cert = place.home.server_cert.read_bytes()
    now = load_certificate(place.home, "server").serial_number
    assert now not in before.values()
    assert {port: shown(place, port) for port in PORTS} == dict.fromkeys(PORTS, now)
    # Between the two writes of a renewal the files do not fit each other: everybody goes on with what they have.
    place.home.server_cert.write_bytes(old_cert)
    place.tls.refresh()
    assert {port: shown(place, port) for port in PORTS} == dict.fromkeys(PORTS, now)
    place.home.server_cert.write_bytes(new_cert)
    place.tls.refresh()
    assert is_served(place.ports["fleet"], caller(place), "http/1.1")


# --- a hospital that meets a bad coordinator ------------------------------------------------------------------------

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
BAD_SERVERS: dict[str, Callable[[Maker], Pair]] = {
    "another-ca": lambda m: m.leaf(usage=SERVER, issuer=pki.create_ca("other", NOW)),
    "self-signed": lambda m: m.leaf(usage=SERVER, own=True),
    "expired": lambda m: m.leaf(usage=SERVER, now=NOW - timedelta(days=91)),
    "not-yet-valid": lambda m: m.leaf(usage=SERVER, now=NOW + timedelta(days=2)),
    "another-name": lambda m: m.leaf(usage=SERVER, hosts=("coordinator.example.org",)),
    "a-hospitals-certificate": lambda m: m.leaf(),
    "another-use": lambda m: m.leaf(usage=ExtendedKeyUsageOID.CODE_SIGNING),
}


@contextlib.contextmanager
def answering(context: ssl.SSLContext | None, said: bytes = b"", heard: list[bytes] | None = None) -> Iterator[int]:
    """A server that finishes handshakes with `context`, or says those bytes instead; yields its port.

    heard: gets what callers say inside TLS.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain, contextlib.suppress(OSError):
                    plain.settimeout(5)
                    if context is None:
                        plain.sendall(said)
                        plain.recv(1000)
                        continue
                    with context.wrap_socket(plain, server_side=True) as tls:
                        tls.sendall(bytes(3) + b"\4" + bytes(5))  # an empty SETTINGS: gRPC would go on from here
                        if (said_inside := tls.recv(1000)) and heard is not None:
                            heard.append(said_inside)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def server(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    return context


def by_fleet(place: Place, port: int) -> None:
    context = tls_context(place.home.ca_cert.read_bytes())
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost"),
    ):
        pass


def by_operator(place: Place, port: int) -> None:
    federation = node.load_federation(place.hospital).model_copy(update={"operator_port": port})
    with node.operator(place.hospital, federation) as stub:
        stub.GetFederation(pb.GetFederationRequest(), timeout=3)


def by_join(place: Place, port: int) -> None:
    token = node.Token("0" * 48, coordinator.ca_digest(place.maker.ca))
    ca = node.pinned_ca(("localhost", port), token)
    node.ask(place.hospital, f"localhost:{port}", ca, "hospital-a", datetime.now(UTC))


WAYS = {"fleet": by_fleet, "operator": by_operator, "join": by_join}


def is_refused(place: Place, way: str, port: int) -> bool:
    try:
        WAYS[way](place, port)
    except OperatorError as error:
        return error.code in ("ca-differs", "coordinator-unreachable")
    except (ssl.SSLError, OSError):
        return True
    return False


@pytest.mark.parametrize("way", WAYS)
def test_a_good_coordinator_is_spoken_to(place: Place, way: str) -> None:
    WAYS[way](place, place.ports[way])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", BAD_SERVERS)
def test_a_bad_certificate_is_not_spoken_to(place: Place, way: str, kind: str) -> None:
    heard: list[bytes] = []
    with answering(server(BAD_SERVERS[kind](place.maker)), heard=heard) as port:
        assert is_refused(place, way, port)
    assert heard == [], "nothing is said to it, not even a preface"


def test_a_weak_key_is_not_spoken_to(place: Place) -> None:
    """Where OpenSSL decides; the CA itself signs P-256 keys of its own making only."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with answering(server(place.maker.leaf(usage=SERVER, key=weak))) as port:
        assert is_refused(place, "fleet", port)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["tls-1.0", "tls-1.1"])
def test_an_old_coordinator_is_not_spoken_to(place: Place, way: str, version: ssl.TLSVersion) -> None:
    pair = Pair(place.home.server_cert, place.home.server_key)
    with answering(old(server(pair), version)) as port:
        assert is_refused(place, way, port)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", os.urandom(64)], ids=["plaintext", "garbage-record"]
)
def test_what_speaks_no_tls_is_not_spoken_to(place: Place, way: str, said: bytes) -> None:
    with answering(None, said) as port:
        assert is_refused(place, way, port)


def test_the_bad_certificates_are_bad_for_one_reason_only(place: Place) -> None:
    """The control of this file: the same maker's good certificate is taken by the agent."""
    heard: list[bytes] = []
    with answering(server(place.maker.leaf(usage=SERVER)), heard=heard) as port:
        assert not is_refused(place, "fleet", port)
        is_refused(place, "operator", port)
        is_refused(place, "join", port)
    assert len(heard) >= 2, "gRPC speaks once the handshake is good"
