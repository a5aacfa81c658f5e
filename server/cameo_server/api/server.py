"""The operator interface's two ports: mutual TLS for people and hospitals, server TLS for hospitals that join."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

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
from cameo_server.home import load_config, read_file, read_secret

# Plans and cards are kilobytes; enrolment messages hold a card and a request.
MAX_MESSAGE, MAX_ENROLMENT = 4 << 20, 1 << 16
THREADS = 40
GRACE_S = 2.0


@contextmanager
def serve_api(coordinator: Coordinator, host: str) -> Iterator[None]:
    """Answer on both ports of coordinator.toml until the block ends. A port in use is an `OperatorError`."""
    home = coordinator.home
    config = load_config(home)
    # The CA goes with the server's certificate: who joins knows only its fingerprint.
    pair = [(read_secret(home.server_key), read_file(home.server_cert) + read_file(home.ca_cert))]
    with ExitStack() as stack:
        mutual = grpc.ssl_server_credentials(pair, read_file(home.ca_cert), require_client_auth=True)
        operator = _server(Guard(lambda certificate: check_holder(home, certificate)), MAX_MESSAGE)
        add_OperatorServicer_to_server(OperatorService(coordinator), operator)
        _start(stack, operator, f"{_bracketed(host)}:{config.operator_port}", mutual)

        joining = _server(Guard(None), MAX_ENROLMENT)
        add_EnrollmentServicer_to_server(EnrollmentService(coordinator), joining)
        _start(stack, joining, f"{_bracketed(host)}:{config.join_port}", grpc.ssl_server_credentials(pair))
        yield
        coordinator.stop.set()


def _server(guard: Guard, most_bytes: int) -> grpc.Server:
    options = [
        ("grpc.max_receive_message_length", most_bytes),
        ("grpc.max_concurrent_streams", THREADS),
        ("grpc.so_reuseport", 0),
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
