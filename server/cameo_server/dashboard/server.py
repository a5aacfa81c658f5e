"""Runs the dashboard in the coordinator's process, on loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cameo_protocol.errors import OperatorError
from cameo_protocol.web.door import serving
from cameo_protocol.web.links import Links
from cameo_protocol.web.sessions import Sessions
from cameo_server.api.services import Coordinator
from cameo_server.dashboard.app import Dashboard, create
from cameo_server.dashboard.keys import page_key
from cameo_server.home import load_config

HOST = "127.0.0.1"


@contextmanager
def serve_dashboard(coordinator: Coordinator) -> Iterator[None]:
    """Answer on the page port of coordinator.toml until the block ends. A port in use is an `OperatorError`."""
    port = load_config(coordinator.home).page_port
    links = Links(page_key(coordinator.home), time.time, time.time())
    app = create(Dashboard(coordinator, links, Sessions(os.urandom, time.time), port))
    with serving(app, _listening(port), "dashboard"):
        yield


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise OperatorError(
            "port-taken",
            what=f"cannot listen on {HOST}:{port} for the dashboard",
            do="stop what uses the port, or name another page_port in coordinator.toml",
        ) from None
    listener.listen(64)
    return listener
