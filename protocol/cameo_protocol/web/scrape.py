"""The page that a monitoring system scrapes, on loopback: Prometheus text, nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from cameo_protocol.errors import OperatorError
from cameo_protocol.web.headers import own_host

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

LOOPBACK = "127.0.0.1"


@contextmanager
def serve_metrics(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Answer GET /metrics on 127.0.0.1 until the block ends. A port in use is an `OperatorError`.

    A request for another host's name is refused: a page in a browser here cannot read this by naming itself so.
    """
    page = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not own_host(environ.get("HTTP_HOST", ""), port) or environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b""]
        try:
            answer: Iterable[bytes] = page(environ, start_response)
        except Exception:  # its words would go to stderr, and may be anybody's
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b""]
        return answer

    try:
        server = make_server(LOOPBACK, port, app, handler_class=_Silent)
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


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
