"""The CA and the server certificate, checked by a real TLS 1.3 handshake and by the fields that hospitals rely on."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cameo_server import pki
from cameo_server.home import key_pem

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    return pki.create_ca("demo", NOW)


def handshake(tmp_path: Path, chain: bytes, key: bytes, trusted: bytes, name: str) -> str:
    """The TLS version that a client agrees on which trusts `trusted` and asks for `name`; raises what it raises."""
    (tmp_path / "cert.pem").write_bytes(chain + key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem")
    client = ssl.create_default_context(cadata=trusted.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as tls:
                tls.recv(1)
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as tls:
            return tls.version() or ""
    finally:
        ours.close()
        thread.join(5)


def served(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], host: str = "coordinator.example.org"
) -> tuple[bytes, bytes, bytes]:
    key, certificate = pki.issue_server(*authority, pki.server_hosts(host), NOW)
    return pki.certificate_pem(certificate), key_pem(key), pki.certificate_pem(authority[1])


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "coordinator.example.org"])
def test_a_client_that_pins_the_ca_agrees_on_tls_13(
    tmp_path: Path, authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate], name: str
) -> None:
    assert handshake(tmp_path, *served(authority), name) == "TLSv1.3"


def test_another_name_is_refused(
    tmp_path: Path, authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(tmp_path, *served(authority), "elsewhere.example.org")


def test_another_ca_of_the_same_name_is_refused(
    tmp_path: Path, authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]
) -> None:
    chain, key, _ = served(authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, chain, key, pki.certificate_pem(pki.create_ca("demo", NOW)[1]), "localhost")


def test_an_expired_certificate_is_refused(
    tmp_path: Path, authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]
) -> None:
    past = NOW - timedelta(days=pki.SERVER_DAYS + 1)
    key, certificate = pki.issue_server(*authority, ("localhost",), past)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(
            tmp_path, pki.certificate_pem(certificate), key_pem(key), pki.certificate_pem(authority[1]), "localhost"
        )


def test_the_server_certificate_cannot_sign_others(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> None:
    _, certificate = pki.issue_server(*authority, ("localhost",), NOW)
    extensions = certificate.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    certificate.verify_directly_issued_by(authority[1])


def test_the_ca_signs_end_certificates_only(authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]) -> None:
    constraints = authority[1].extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)


def test_names_are_listed_once_and_ip_addresses_as_such(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> None:
    assert pki.server_hosts("localhost") == ("localhost", "127.0.0.1", "::1")
    _, certificate = pki.issue_server(*authority, pki.server_hosts("10.0.0.7"), NOW)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.7"]


def test_days_left_counts_down_and_below_zero(
    authority: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
) -> None:
    _, certificate = pki.issue_server(*authority, ("localhost",), NOW)
    assert pki.days_left(certificate, NOW) == 90
    assert pki.days_left(certificate, NOW + timedelta(days=89, hours=1)) == 0
    assert pki.days_left(certificate, NOW + timedelta(days=91)) < 0


def _client(role: pki.Role = "site", now: datetime = NOW) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    ca_key, ca = pki.create_ca("study", now)
    key = ec.generate_private_key(ec.SECP256R1())
    return key, pki.issue_client(ca_key, ca, key.public_key(), ("hospital-a", role), now)


@pytest.mark.parametrize("role", pki.ROLES)
def test_a_client_certificate_names_its_holder(role: pki.Role) -> None:
    _, certificate = _client(role)
    holder = pki.holder_of(certificate)
    assert (holder.name, holder.role, holder.serial) == ("hospital-a", role, certificate.serial_number)
    assert pki.days_left(certificate, NOW) == pki.CLIENT_DAYS


def test_a_server_certificate_holds_no_role() -> None:
    ca_key, ca = pki.create_ca("study", NOW)
    _, certificate = pki.issue_server(ca_key, ca, ("localhost",), NOW)
    with pytest.raises(ValueError, match="role"):
        pki.holder_of(certificate)


def test_a_request_gives_its_key_and_nothing_else() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert pki.read_request(pem) == key.public_key()
    with pytest.raises(ValueError):
        pki.read_request(b"-----BEGIN NOTHING-----")
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(ValueError, match="curve"):
        pki.read_request(builder.sign(other, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
