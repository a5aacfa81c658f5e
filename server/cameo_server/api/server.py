"""The operator interface's two ports: mutual TLS for people and hospitals, server TLS for hospitals that join."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cameo_protocol.errors import OperatorError
from cameo_protocol.operator_api.operator_pb2_grpc import (
    add_EnrollmentServicer_to_server,
    add_OperatorServicer_to_server,
)
from cameo_server.api.guard import Guard
from cameo_server.api.services import Coordinator, EnrollmentService, OperatorService
from cameo_server.enrolment import check_holder
from cameo_server.home import CoordinatorHome, load_config, read_file, read_secret
from cameo_server.membership import server_pair_fits

# Plans and cards are kilobytes; enrolment messages hold a card and a request.
MAX_MESSAGE, MAX_ENROLMENT = 4 << 20, 1 << 16
THREADS = 40
# A connection that has not come in by then, or asks nothing for so long, gives its place back.
HANDSHAKE_S, IDLE_S = 10, 60
GRACE_S = 2.0


@contextmanager
def serve_api(coordinator: Coordinator, host: str) -> Iterator[None]:
    """Answer on both ports of coordinator.toml until the block ends. A port in use is an `OperatorError`."""
    home = coordinator.home
    config = load_config(home)
    with ExitStack() as stack:
        operator = _server(Guard(lambda certificate: check_holder(home, certificate, coordinator.now())), MAX_MESSAGE)
        add_OperatorServicer_to_server(OperatorService(coordinator), operator)
        _start(stack, operator, f"{_bracketed(host)}:{config.operator_port}", _credentials(home, mutual=True))

        joining = _server(Guard(None), MAX_ENROLMENT)
        add_EnrollmentServicer_to_server(EnrollmentService(coordinator), joining)
        _start(stack, joining, f"{_bracketed(host)}:{config.join_port}", _credentials(home, mutual=False))
        yield
        coordinator.stop.set()


def _credentials(home: CoordinatorHome, *, mutual: bool) -> grpc.ServerCredentials:
    """TLS with the server's certificate, the newest there is at each new connection; mutual: callers show theirs."""
    seen = [_stamp(home)]

    def present() -> grpc.ServerCertificateConfiguration:
        # The CA goes with the server's certificate: who joins knows only its fingerprint.
        pair = (read_secret(home.server_key), read_file(home.server_cert) + read_file(home.ca_cert))
        return grpc.ssl_server_certificate_configuration([pair], read_file(home.ca_cert) if mutual else None)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """None: as before. Files that do not fit each other, yet, change nothing."""
        try:
            now = _stamp(home)
            if now == seen[0] or not server_pair_fits(home):
                return None
            seen[0] = now
            return present()
        except (OSError, OperatorError):
            return None

    # The stubs do not know that None is an answer; gRPC's documentation does.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewed)
    return grpc.dynamic_ssl_server_credentials(present(), fetch, require_client_authentication=mutual)


def _stamp(home: CoordinatorHome) -> list[int]:
    return [path.stat().st_mtime_ns for path in (home.server_key, home.server_cert)]


def _server(guard: Guard, most_bytes: int) -> grpc.Server:
    options = [
        ("grpc.max_receive_message_length", most_bytes),
        ("grpc.max_concurrent_streams", THREADS),
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", 1000 * HANDSHAKE_S),
        ("grpc.max_connection_idle_ms", 1000 * IDLE_S),
    ]
    server = grpc.server(ThreadPoolExecutor(THREADS, "operator-api"), interceptors=[guard], options=options)
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return server


def _start(stack: ExitStack, server: grpc.Server, address: str, credentials: grpc.ServerCredentials) -> None:
    try:
        bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise OperatorError(
            "port-taken",
            what=f"cannot listen on {address}",
            do="stop what uses the port, or name other ports in coordinator.toml (operator_port, join_port)",
        )
    server.start()
    stack.callback(lambda: server.stop(GRACE_S).wait())


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
