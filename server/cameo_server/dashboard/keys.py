"""The key that the dashboard and the command line share."""

from __future__ import annotations

import os

from cameo_server.home import PRIVATE, CoordinatorHome, read_secret, write_file


def page_key(home: CoordinatorHome) -> bytes:
    """32 bytes; made the first time."""
    if not home.page_key.exists():
        write_file(home.page_key, os.urandom(32), PRIVATE)
    return read_secret(home.page_key)
