"""Runs the page in the node's process, on loopback."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from cameo_client.home import PRIVATE, NodeHome, load_config, read_secret, write_file
from cameo_protocol.errors import OperatorError

if TYPE_CHECKING:
    from cameo_protocol.web.links import Visitor

HOST: Final = "127.0.0.1"
SERVED = "page.json"


@contextmanager
def serve_page(home: NodeHome, say: Callable[[str], None]) -> Iterator[None]:
    """Answer on the page port of node.toml until the block ends; 0 = no page.

    The node's work does not hang on its page: where another process has the port, this is told, and there is no page.
    """
    port = load_config(home).page_port
    listener = _listening(port, say) if port else None
    if listener is None:
        yield
        return
    from cameo_client.page.app import Page, create
    from cameo_client.page.look import QualityLook, describe_source
    from cameo_protocol.web.door import serving
    from cameo_protocol.web.links import Links
    from cameo_protocol.web.sessions import Sessions

    links = Links(page_key(home), time.time, time.time())
    look = QualityLook(partial(describe_source, home))
    app = create(Page(home, links, Sessions(os.urandom, time.time), port, time.time, look))
    with serving(app, listener, "page"):
        write_file(home.root / SERVED, json.dumps({"port": port}).encode())
        try:
            yield
        finally:
            (home.root / SERVED).unlink(missing_ok=True)


def page_link(home: NodeHome, visitor: Visitor) -> str:
    """A URL that opens the page once. No running page: `OperatorError` "page-off"."""
    from cameo_client.running import is_running
    from cameo_protocol.web.links import make_link

    try:
        port = int(json.loads((home.root / SERVED).read_bytes())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        port = 0
    if not port or not is_running(home):
        raise OperatorError(
            "page-off",
            what="this node serves no page: it is not running, or page_port in node.toml is 0 or was taken",
            do="cameo-node start; it says when the port is taken, then name another page_port in node.toml",
        )
    return f"http://localhost:{port}/login?link={make_link(page_key(home), visitor, time.time(), os.urandom(16))}"


def page_key(home: NodeHome) -> bytes:
    """32 bytes that the page and the command line share; made the first time."""
    path = home.page_key
    if not path.exists():
        write_file(path, os.urandom(32), PRIVATE)
    return read_secret(path)


def _listening(port: int, say: Callable[[str], None]) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        say(f"no page: {HOST}:{port} cannot be used ({error.strerror}). Next: another page_port in node.toml, 0 = off")
        return None
    return listener
