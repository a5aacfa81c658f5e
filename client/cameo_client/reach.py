"""How the coordinator answers on its fleet port: TLS, its certificate, and what time it is there."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from cryptography import x509

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import Federation

TIMEOUT_S = 5.0
MOST_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Answer:
    """version: of TLS. certificate_ends: UTC. clock_off_s: ours less theirs, in seconds; None where it is not told."""

    version: str
    certificate_ends: datetime
    clock_off_s: float | None


def reach(federation: Federation, clock: Callable[[], datetime]) -> Answer:
    """Connect as the agent does, with TLS 1.3 and only the pinned CA, and ask for nothing but a refusal and its date.

    `OperatorError` "coordinator-silent" when nobody answers, "tls-failed" when the handshake is refused.
    """
    context = ssl.create_default_context(cadata=federation.ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    address = (federation.host, federation.fleet_port)
    try:
        with (
            socket.create_connection(address, timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=federation.host) as tls,
        ):
            certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
            version = str(tls.version())
            told = _date(tls, federation.host)
            ours = clock()
    except ssl.SSLError as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        raise OperatorError(
            "tls-failed",
            what=f"the TLS handshake with {federation.address} failed: {reason}",
            do="check this machine's clock; then call the coordinator: another CA than the approved one answers there",
            exit=ExitCode.AUTH,
        ) from None
    except OSError as error:
        raise OperatorError(
            "coordinator-silent",
            what=f"{federation.address} does not answer: {error.strerror or type(error).__name__}",
            do="check the network and that the coordinator is running; the node keeps trying by itself",
            exit=ExitCode.PEER,
        ) from None
    off = None if told is None else (ours - told).total_seconds()
    return Answer(version=version, certificate_ends=certificate.not_valid_after_utc, clock_off_s=off)


def _date(tls: ssl.SSLSocket, host: str) -> datetime | None:
    """The Date header of whatever it answers to a request for nothing."""
    raw = b""
    with contextlib.suppress(OSError):
        tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        while b"\r\n\r\n" not in raw and len(raw) < MOST_BYTES:
            piece = tls.recv(MOST_BYTES)
            if not piece:
                break
            raw += piece
    for line in raw.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "date":
            with contextlib.suppress(ValueError):
                found = parsedate_to_datetime(value.strip())
                return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
