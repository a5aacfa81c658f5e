"""Imported by every Python process of the test federation: notes each address it connects to or looks up."""

import os
import sys

_LOG = os.environ["CAMEO_TEST_CONNECTIONS"]


def _note(event: str, args: tuple) -> None:
    if event == "socket.connect" and isinstance(args[1], tuple):  # a string is a socket in the file system
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    with open(_LOG, "a") as log:
        log.write(f"{os.getpid()} {host.decode() if isinstance(host, bytes) else host}\n")


sys.addaudithook(_note)
