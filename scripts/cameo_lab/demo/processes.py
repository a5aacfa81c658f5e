"""Real processes of the real command lines, started, watched and always ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cameo_protocol.errors import ExitCode, OperatorError

GRACE = 10.0
_LAST_LINES = 12


def command(name: str) -> list[str]:
    """How to start "cameo" or "cameo-node" of this very installation."""
    script = Path(sysconfig.get_path("scripts")) / name
    if script.exists():
        return [str(script)]
    found = shutil.which(name)
    if found is None:
        raise OperatorError(
            "command-missing", what=f"{name} is not installed beside {sys.executable}", do="run scripts/demo.sh"
        )
    return [found]


def call(arguments: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 120) -> str:
    """Run one command to its end and return its stdout; its own error is passed on, with its exit code."""
    done = subprocess.run(
        [*command(arguments[0]), *arguments[1:]],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        shown = " ".join(arguments[:3])
        code = done.returncode if done.returncode in list(ExitCode) else ExitCode.BUG
        raise OperatorError(
            "command-failed",
            what=f"`{shown} …` ended with {done.returncode}: {_tail(done.stderr)}",
            do="do what the message above says, then run the demo again",
            exit=ExitCode(code),
        )
    return done.stdout


def call_json(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 120
) -> dict[str, Any]:
    """Run a command with --json and return its one object."""
    value: dict[str, Any] = json.loads(call([*arguments, "--json"], env=env, timeout=timeout))
    return value


@dataclass
class Children:
    """Long-running processes that end with this context, whatever happens: SIGTERM, and SIGKILL after a grace."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Start a command in its own process group, its output going to logs/NAME.log."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*command(arguments[0]), *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def ended(self) -> dict[str, int]:
        """Name -> exit status of the processes that have ended by themselves."""
        return {name: status for name, p in self.running.items() if (status := p.poll()) is not None}

    def tail(self, name: str) -> str:
        """The end of a process's output."""
        path = self.logs / f"{name}.log"
        return _tail(path.read_text(errors="replace")) if path.exists() else ""

    def stop(self) -> None:
        """End them all; returns when none is left."""
        for process in self.running.values():
            _signal(process, signal.SIGTERM)
        until = time.monotonic() + GRACE
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
        for process in self.running.values():
            _signal(process, signal.SIGKILL)
            process.wait()
        self.running.clear()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does, so that children are ended on the way out."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the whole group: a supervisor's children too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
