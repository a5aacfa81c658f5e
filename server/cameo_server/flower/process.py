"""Child processes that end with the process that started them.

`python -m cameo_server.flower.process PARENT COMMAND …` becomes a command that does (on Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.5


def end_with_parent(parent: int) -> None:
    """From now on, SIGTERM this process when its parent (process id `parent`) is gone, however that ended.

    Linux: prctl(PR_SET_PDEATHSIG), which counts the *thread* that started us as the parent, so the supervisor starts
    children from a thread that lives as long as itself. Elsewhere: a thread that watches the parent's id.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before we could ask
        signal.raise_signal(signal.SIGTERM)


def main() -> None:
    """Entry point of the module: the death signal outlasts the exec."""
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - this process becomes the child, with the same environment


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
