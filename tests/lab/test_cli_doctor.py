"""`cameo-node doctor` against a coordinator that answers with the right certificate, a foreign one, or an old one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from cameo_client import membership as node
from cameo_client.doctor import Check, examine
from cameo_client.home import DataConfig, NodeHome
from cameo_lab.bench.local import free_port
from cameo_protocol.errors import ExitCode
from cameo_server import membership as coordinator
from cameo_server import pki
from cameo_server.home import CoordinatorHome, key_pem, load_ec, write_file

NOW = datetime.now(UTC)


@contextmanager
def answering(certificate: Path, key: Path, says: bytes = b"") -> Iterator[int]:
    """A TLS server on loopback that completes handshakes and answers a request with `says`; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as tls:
                        tls.recv(1000)
                        tls.sendall(says)
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def joined(tmp_path: Path, port: int) -> tuple[CoordinatorHome, NodeHome]:
    """A federation of three whose coordinator is expected at that port, and the home of its first hospital."""
    home = CoordinatorHome(tmp_path / f"coordinator-{port}")
    coordinator.init_coordinator(home, federation="demo", host="127.0.0.1", fleet_port=port, now=NOW)
    homes = [NodeHome(tmp_path / f"node-{port}-{i}") for i in range(3)]
    for index, each in enumerate(homes):
        node.init_node(each, site=f"hospital-{index}", data=DataConfig(kind="table", path="/x"), now=NOW)
        coordinator.add_site(home, each.card.read_bytes(), NOW)
    node.accept(homes[0], node.review(homes[0], coordinator.issue_federation(home, NOW)))
    return home, homes[0]


def connection(home: NodeHome, now: datetime = NOW) -> Check:
    return next(check for check in examine(home, lambda: now) if check.name == "coordinator")


@pytest.fixture
def certificate(tmp_path: Path) -> CoordinatorHome:
    """A coordinator whose certificate a test serves; hospitals of another port then pin the same or another CA."""
    home = CoordinatorHome(tmp_path / "served")
    coordinator.init_coordinator(home, federation="demo", host="127.0.0.1", fleet_port=1, now=NOW)
    return home


def test_the_pinned_ca_is_ok(tmp_path: Path, certificate: CoordinatorHome) -> None:
    with answering(certificate.server_cert, certificate.server_key) as port:
        home, hospital = joined(tmp_path, port)
        found = connection(_repinned(hospital, home, certificate))
    assert (found.severity, found.do) == ("ok", "")


@pytest.mark.parametrize(
    ("behind_s", "severity", "code"),
    [
        (0, "ok", "ok"),
        (-30, "ok", "ok"),
        (90, "warning", "clock-differs"),
        (301, "failed", "clock-differs"),
        (-31_536_000, "failed", "clock-differs"),
    ],
)
def test_the_clock_is_held_against_the_coordinators(
    tmp_path: Path, certificate: CoordinatorHome, behind_s: int, severity: str, code: str
) -> None:
    now = datetime.now(UTC)
    says = f"HTTP/1.1 404 Not Found\r\ndate: {format_datetime(now + timedelta(seconds=behind_s), usegmt=True)}\r\n\r\n"
    with answering(certificate.server_cert, certificate.server_key, says.encode()) as port:
        home, hospital = joined(tmp_path, port)
        checks = {each.name: each for each in examine(_repinned(hospital, home, certificate), lambda: now)}
    assert (checks["clock"].severity, checks["clock"].code) == (severity, code)
    assert ("roster" in checks) is (severity != "failed"), "with a wrong clock the rest would only mislead"


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"date: yesterday\r\n\r\n", bytes(9000)])
def test_a_coordinator_that_tells_no_time_is_a_warning(
    tmp_path: Path, certificate: CoordinatorHome, says: bytes
) -> None:
    with answering(certificate.server_cert, certificate.server_key, says) as port:
        home, hospital = joined(tmp_path, port)
        checks = {each.name: each for each in examine(_repinned(hospital, home, certificate), lambda: NOW)}
    assert (checks["clock"].severity, checks["clock"].code) == ("warning", "clock-unknown")


def test_another_ca_is_refused_with_the_exit_code_of_tls(tmp_path: Path, certificate: CoordinatorHome) -> None:
    with answering(certificate.server_cert, certificate.server_key) as port:
        _, hospital = joined(tmp_path, port)
        found = connection(hospital)
    assert (found.severity, found.exit) == ("failed", ExitCode.AUTH)
    assert "another CA" in found.do


def test_an_expired_certificate_is_refused(tmp_path: Path, certificate: CoordinatorHome) -> None:
    _reissue(certificate, NOW - timedelta(days=pki.SERVER_DAYS + 1))
    with answering(certificate.server_cert, certificate.server_key) as port:
        home, hospital = joined(tmp_path, port)
        found = connection(_repinned(hospital, home, certificate))
    assert (found.severity, found.exit, "expired" in found.what) == ("failed", ExitCode.AUTH, True)


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path, certificate: CoordinatorHome) -> None:
    _reissue(certificate, NOW - timedelta(days=pki.SERVER_DAYS - 5))
    with answering(certificate.server_cert, certificate.server_key) as port:
        home, hospital = joined(tmp_path, port)
        found = connection(_repinned(hospital, home, certificate))
    assert (found.severity, "renews" in found.do) == ("warning", True)


def test_nobody_there_is_a_warning(tmp_path: Path) -> None:
    _, hospital = joined(tmp_path, free_port())
    assert connection(hospital).severity == "warning"


def test_something_that_speaks_no_tls_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            plain.close()

        threading.Thread(target=serve, daemon=True).start()
        _, hospital = joined(tmp_path, listener.getsockname()[1])
        assert connection(hospital).severity in ("failed", "warning")


def _reissue(home: CoordinatorHome, now: datetime) -> None:
    key, made = pki.issue_server(
        load_ec(home.ca_key), coordinator.load_certificate(home, "ca"), pki.server_hosts("127.0.0.1"), now
    )
    write_file(home.server_key, key_pem(key), 0o600)
    write_file(home.server_cert, pki.certificate_pem(made))


def _repinned(hospital: NodeHome, home: CoordinatorHome, served: CoordinatorHome) -> NodeHome:
    """The coordinator of the hospital's federation moves to the served CA, and the hospital accepts that."""
    write_file(home.ca_cert, served.ca_cert.read_bytes())
    node.accept(hospital, node.review(hospital, coordinator.issue_federation(home, NOW)))
    return hospital
