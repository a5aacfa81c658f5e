"""The federation's certificate authority: one CA, one server certificate, certificates of people and hospitals.

EC P-256 (FIPS 186-5), X.509 v3 (RFC 5280). Time comes in as an argument; keys come from the operating system's
generator through `cryptography`. A certificate of a person or a hospital carries its role as a URI; what binds a
hospital in a run are its signatures, never its certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_YEARS = 10
SERVER_DAYS = 90
CLIENT_DAYS = 90
RENEW_DAYS = 30
# A clock that is a little behind must not refuse a certificate made a moment ago.
BACKDATE = timedelta(hours=1)

Role = Literal["coordinator", "researcher", "auditor", "site"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
_ROLE_URI: Final = "urn:cameo:role:"


@dataclass(frozen=True)
class Holder:
    """Whom a certificate names. serial: its number, by which it is revoked."""

    name: str
    role: Role
    serial: int


def create_ca(federation: str, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A CA key and its self-signed certificate for ten years; it signs end certificates only (path length 0)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Cameo CA of {federation}"[:64])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())


def issue_server(
    ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, hosts: Sequence[str], now: datetime
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A fresh server key and its certificate for 90 days, valid for `hosts` (DNS names or IP addresses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("Cameo coordinator"))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=SERVER_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return key, builder.sign(ca_key, hashes.SHA256())


def issue_client(
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    public: ec.EllipticCurvePublicKey,
    holder: tuple[str, Role],
    now: datetime,
) -> x509.Certificate:
    """A certificate for 90 days that lets `holder` (name, role) call the operator interface with the key `public`."""
    name, role = holder
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(ca.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=CLIENT_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_ROLE_URI + role)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, hashes.SHA256())


def holder_of(certificate: x509.Certificate) -> Holder:
    """Whom a certificate of `issue_client` names; ValueError when it has not exactly one name and one known role.

    The caller has verified the chain: gRPC does in the handshake.
    """
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        raise ValueError("no role in the certificate") from None
    roles = [role for role in ROLES if [_ROLE_URI + role] == uris]
    if len(names) != 1 or len(roles) != 1:
        raise ValueError("not one name and one role in the certificate")
    return Holder(name=str(names[0].value), role=roles[0], serial=certificate.serial_number)


def read_request(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a certificate signing request whose signature holds; ValueError otherwise.

    Only the key is taken from it: name and role are the coordinator's to give.
    """
    request = x509.load_pem_x509_csr(pem)
    try:
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not request.is_signature_valid:
            raise ValueError("not a signed request for an elliptic-curve key")
        if not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("a key of another curve than P-256")
    except UnsupportedAlgorithm:
        raise ValueError("a key or signature of an unknown kind") from None
    return key


def server_hosts(host: str) -> tuple[str, ...]:
    """Every name that the server certificate is valid for: this machine's own, and the one that hospitals use."""
    return tuple(dict.fromkeys(["localhost", "127.0.0.1", "::1", host]))


def days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Whole days until a certificate ends; negative when it has ended."""
    return (certificate.not_valid_after_utc - now.astimezone(UTC)).days


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
