"""Joining by token: this hospital knocks, waits for approval, and keeps its certificate good.

The token is `secret.CA-fingerprint`. The CA that the coordinator shows must have that fingerprint; everything after
that is TLS against this one CA. Keys are made here and never leave. Source: design page "operators".
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cameo_client.home import (
    PRIVATE,
    PUBLIC,
    NodeHome,
    key_pem,
    load_config,
    load_identity,
    read_file,
    read_secret,
    write_file,
)
from cameo_client.membership import identity_bytes, load_federation
from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import Federation, ca_fingerprint, read_federation
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_protocol.operator_api.operator_pb2_grpc import EnrollmentStub, OperatorStub
from cameo_protocol.operator_api.refusal import collect_text, from_metadata, request_text

TIMEOUT_S = 10.0
RENEW_DAYS = 30
# So many questions without a change, and whoever waits is told again that it goes on.
REMIND = 150
_TOKEN = re.compile(r"([0-9a-f]{48})\.([0-9a-f]{64})")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^\[\]:]+)):(\d{1,5})")


@dataclass(frozen=True, repr=False)
class Token:
    """A join token, taken apart. It prints as nothing: its first half is a secret."""

    secret: str
    ca_sha256: str

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read what `cameo site invite` printed."""
        found = _TOKEN.fullmatch(text.strip())
        if found is None:
            raise OperatorError(
                "token-malformed",
                what="the join token is not 48 hex digits, a dot and 64 hex digits",
                do="copy it whole from the invitation; if it is cut, ask for a new one",
            )
        return cls(*found.groups())


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, with brackets around an IPv6 address.

    >>> parse_address("[::1]:9094")
    ('::1', 9094)
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or not 1 <= int(found[3]) <= 65535:
        raise OperatorError("option-invalid", what="the address is not HOST:PORT", do="copy it from the invitation")
    return found[1] or found[2], int(found[3])


def pinned_ca(address: tuple[str, int], token: Token) -> bytes:
    """The coordinator's CA certificate (PEM): the one of those that it shows which the token names.

    Nothing is sent before it is found. Another CA is an `OperatorError` "ca-differs".
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what is shown here is judged by its fingerprint, and used for nothing else
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(address, timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=address[0]) as tls,
        ):
            shown = _chain(tls)
    except OSError as error:
        raise OperatorError(
            "coordinator-unreachable",
            what=f"{address[0]}:{address[1]} does not answer as a coordinator ({type(error).__name__})",
            do="check the address in the invitation and this machine's network; then run the command again",
            exit=ExitCode.AUTH,
        ) from None
    for der in shown:
        if hashlib.sha256(der).hexdigest() == token.ca_sha256:
            return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    raise _another_ca("who answers there shows")


def _another_ca(who: str) -> OperatorError:
    return OperatorError(
        "ca-differs",
        what=f"{who} another certificate authority than the token names",
        do="do not go on with this address: check that the port is the join port of the invitation; else call the"
        " coordinator: somebody may be in between, or the token is of another federation",
        exit=ExitCode.AUTH,
    )


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """The certificates of the other side in DER, unverified. Python 3.13 has a public name for it."""
    public = getattr(tls, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner.get_unverified_chain() or ()]


def knock(home: NodeHome, address: str, token: Token, ca_pem: bytes) -> str:
    """Show the token and this hospital's card; returns the fingerprint that the coordinator's people see."""
    request = _request(home)
    body = pb.EnrollRequest(
        secret=token.secret,
        public_card=read_file(home.card),
        request_pem=request,
        request_proof=load_identity(home).sign(request_text(request)),
    )
    with _door(address, ca_pem) as door:
        return str(door.Enroll(body, timeout=TIMEOUT_S).fingerprint)


@dataclass(frozen=True)
class Decision:
    """What the coordinator has decided. certificate, federation: b"" while there is none."""

    state: str
    certificate: bytes
    federation: bytes


def ask(home: NodeHome, address: str, ca_pem: bytes, site: str, now: datetime) -> Decision:
    """What has been decided about this hospital by now."""
    at = int(now.timestamp())
    proof = load_identity(home).sign(collect_text(site, at))
    with _door(address, ca_pem) as door:
        reply = door.Collect(pb.CollectRequest(name=site, unix_seconds=at, proof=proof), timeout=TIMEOUT_S)
    return Decision(reply.state, reply.certificate_pem, reply.federation)


def wait_for_approval(look: Callable[[], Decision], pause: Callable[[], None], say: Callable[[str], None]) -> Decision:
    """Ask until there are a certificate and a federation file; a refusal is an `OperatorError`.

    A coordinator that does not answer meanwhile is asked again.
    """
    told, asked = "", 0
    while True:
        asked += 1
        decision = _patiently(look)
        if decision.state == "refused":
            raise OperatorError(
                "join-refused",
                what="the coordinator does not let this hospital in",
                do="call the coordinator; then ask for a new token",
                exit=ExitCode.AUTH,
            )
        if decision.certificate and decision.federation:
            return decision
        approved = decision.state == "approved"
        now = "approved; the other hospitals are awaited" if approved else "waiting for the coordinator to approve"
        if decision.state == "unreachable":
            now = "the coordinator does not answer; asking again"
        if now != told or asked % REMIND == 0:
            say(f"{now} (Ctrl-C is safe: run the same command again to go on)")
            told = now
        pause()


def _patiently(look: Callable[[], Decision]) -> Decision:
    try:
        return look()
    except OperatorError as error:
        if error.code != "coordinator-unreachable":
            raise
        return Decision("unreachable", b"", b"")


def enter(
    home: NodeHome,
    address: str,
    token: Token,
    now: Callable[[], datetime],
    pause: Callable[[], None],
    say: Callable[[str], None],
) -> bytes:
    """From a token to this hospital's certificate, which is stored; returns the federation file, not yet approved.

    Blocks until the coordinator has approved. Whatever was done before is not done again: it may be interrupted at any
    moment and called anew, also when the certificate has to be replaced. The federation file must trust the token's CA.
    """
    ca = pinned_ca(parse_address(address), token)
    site = load_config(home).site
    look = lambda: ask(home, address, ca, site, now())  # noqa: E731
    if look().state == "refused":  # nobody knows us yet
        knock(home, address, token, ca)
    own = fingerprint(identity_bytes(load_identity(home)))
    say(f"Read this to the coordinator by phone; it is shown there as {site}:\n  {own}")
    decision = wait_for_approval(look, pause, say)
    federation = read_federation(decision.federation)
    if ca_fingerprint(federation.ca_pem) != fingerprint(ssl.PEM_cert_to_DER_cert(ca.decode())):
        raise _another_ca("the federation file names")
    keep_certificate(home, decision.certificate)
    return decision.federation


def keep_certificate(home: NodeHome, pem: bytes) -> None:
    """Store this hospital's certificate, which must be for the key that is here."""
    try:
        public = x509.load_pem_x509_certificate(pem).public_key()
    except ValueError:
        public = None
    if public != _key(home).public_key():
        raise OperatorError(
            "certificate-foreign",
            what="the coordinator sent a certificate for another key",
            do="call the coordinator; then run the command again",
            exit=ExitCode.AUTH,
        )
    write_file(home.operator_cert, pem, PUBLIC)


def renew_if_due(home: NodeHome, now: datetime) -> bool:
    """Ask for a new certificate in the last 30 days of the present one. Returns whether there is a new one.

    A hospital that joined by hand has no certificate, and needs none for rounds.
    """
    if not home.operator_cert.exists():
        return False
    if certificate_days(home, now) >= RENEW_DAYS:
        return False
    with operator(home, load_federation(home)) as stub:
        reply = stub.RenewCertificate(pb.RenewCertificateRequest(request_pem=_request(home)), timeout=TIMEOUT_S)
    keep_certificate(home, reply.certificate_pem)
    return True


def certificate_days(home: NodeHome, now: datetime) -> int:
    """Whole days until this hospital's certificate ends; negative when it has ended."""
    try:
        certificate = x509.load_pem_x509_certificate(read_file(home.operator_cert))
    except ValueError:
        raise OperatorError(
            "certificate-broken",
            what=f"{home.operator_cert} is no certificate",
            do="run the join command of the invitation again: it fetches the certificate",
            exit=ExitCode.AUTH,
        ) from None
    return (certificate.not_valid_after_utc - now).days


def newest_federation(home: NodeHome) -> bytes:
    """The federation file that the coordinator has issued last. Needs the certificate of a hospital that has joined."""
    if not home.operator_cert.exists():
        raise OperatorError(
            "certificate-none",
            what="this hospital has no certificate with which the coordinator would answer: it joined by hand",
            do="ask the coordinator for federation.json, then: cameo-node accept federation.json",
            exit=ExitCode.AUTH,
        )
    with operator(home, load_federation(home)) as stub:
        return bytes(stub.GetFederation(pb.GetFederationRequest(), timeout=TIMEOUT_S).federation)


@contextmanager
def operator(home: NodeHome, federation: Federation) -> Iterator[Any]:
    """The operator interface, called with this hospital's certificate. Failures are `OperatorError`."""
    credentials = grpc.ssl_channel_credentials(
        federation.ca_pem.encode(), read_secret(home.operator_key), read_file(home.operator_cert)
    )
    with _translated(), _channel(federation.operator_address, credentials) as channel:
        yield OperatorStub(channel)


@contextmanager
def _door(address: str, ca_pem: bytes) -> Iterator[Any]:
    with _translated(), _channel(address, grpc.ssl_channel_credentials(ca_pem)) as channel:
        yield EnrollmentStub(channel)


def _channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    return grpc.secure_channel(address, credentials, options=[("grpc.enable_http_proxy", 0)])


def _key(home: NodeHome) -> ec.EllipticCurvePrivateKey:
    """The key of this hospital's certificate; made the first time."""
    if not home.operator_key.exists():
        write_file(home.operator_key, key_pem(ec.generate_private_key(ec.SECP256R1())), PRIVATE)
    key = serialization.load_pem_private_key(read_secret(home.operator_key), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise OperatorError(
            "key-broken",
            what=f"{home.operator_key} is not an EC key",
            do="move it away; the next join or renewal makes a new one",
            exit=ExitCode.AUTH,
        )
    return key


def _request(home: NodeHome) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(_key(home), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        known = from_metadata((item.key, item.value) for item in error.trailing_metadata() or ())
        if known is not None:
            raise known from None
        raise OperatorError(
            "coordinator-unreachable",
            what=f"the coordinator did not answer ({error.code().name.lower()})",
            do="check the network and the clock; then run the command again",
            exit=ExitCode.AUTH,
        ) from None
