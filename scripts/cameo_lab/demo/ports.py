"""Free ports, so that a second demo can run beside the first."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now. Taken soon after, or the next caller may get it too."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port
