"""The page that a monitoring system scrapes, on loopback: Prometheus text, nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from cameo_protocol.errors import OperatorError
from cameo_protocol.web.headers import own_host

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

LOOPBACK = "127.0.0.1"
SILENT_S = 10.0


@contextmanager
def serve_metrics(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Answer GET /metrics on 127.0.0.1 until the block ends. A port in use is an `OperatorError`.

    A request for another host's name is refused: a page in a browser here cannot read this by naming itself so.
    """
    page, one = make_wsgi_app(registry), threading.Lock()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not own_host(environ.get("HTTP_HOST", ""), port) or environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b""]
        try:
            with one:  # what collects the numbers is not made for two at once
                answer: Iterable[bytes] = page(environ, start_response)
        except Exception:  # its words would go to stderr, and may be anybody's
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b""]
        return answer

    try:
        server = make_server(LOOPBACK, port, app, server_class=_Server, handler_class=_Silent)
    except (OSError, OverflowError):
        raise OperatorError(
            "port-taken", what=f"port {port} is in use", do="choose another one with --metrics-port"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection: who connects and says nothing holds up nobody, nor the end of the process."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut or fell silent; the words would go to stderr."""


class _Silent(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
