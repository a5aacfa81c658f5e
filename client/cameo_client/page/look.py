"""The data quality, looked at by a process of its own: reading a large source must not slow the node's rounds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cameo_client.home import NodeHome

_PROGRAM: Final = "import os; os.nice(15); from cameo_client.cli import main; main()"
_MOST_TEXT: Final = 600


@dataclass(frozen=True)
class Seen:
    """The latest look. found: what `cameo-node data describe --json` says, None before the first has ended well.

    at: when it ended. error: what that command said when it failed.
    """

    state: Literal["none", "looking", "ready", "failed"] = "none"
    at: datetime | None = None
    found: dict[str, Any] | None = None
    error: str = ""


def describe_source(home: NodeHome) -> tuple[int, str, str]:
    """Run `cameo-node data describe` with low priority: exit code, stdout, stderr."""
    words = [sys.executable, "-c", _PROGRAM, "data", "describe", "--json", "--home", str(home.root)]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


@dataclass
class QualityLook:
    """One look at a time. describe: carries it out and blocks; clock: aware."""

    describe: Callable[[], tuple[int, str, str]]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _seen: Seen = field(default_factory=Seen)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seen(self) -> Seen:
        """The latest look; the first call begins one."""
        with self._lock:
            first = self._seen.state == "none"
        if first:
            self.begin()
        return self._seen

    def begin(self) -> None:
        """Look again, unless one is on its way. Returns at once."""
        with self._lock:
            if self._seen.state == "looking":
                return
            self._seen = Seen("looking", self._seen.at, self._seen.found)
        threading.Thread(target=self._look, name="quality", daemon=True).start()

    def _look(self) -> None:
        before = self._seen
        try:
            code, out, err = self.describe()
            found = json.loads(out) if code == 0 else None
        except (OSError, ValueError) as error:
            found, err = None, f"the look ended with {type(error).__name__}"
        if found is None:
            self._seen = Seen("failed", before.at, before.found, err.strip()[-_MOST_TEXT:])
        else:
            self._seen = Seen("ready", self.clock(), found)
