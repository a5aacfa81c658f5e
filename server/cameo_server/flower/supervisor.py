"""SuperLink and superexec as children of the coordinator's process: started, watched, restarted, ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.quiet import quiet_flower
from cameo_server.flower.control import Control
from cameo_server.flower.settings import LOOPBACK, SuperLinkSettings
from cameo_server.flower.superlink import EXIT_PORT_TAKEN, EXIT_TLS

START_TIMEOUT_S = 60.0
_TICK_S = 0.2
_STOP_S = 8.0
_RESTART_CAP_S = 30.0
# A child that ran so long before it died is started again at once.
_STEADY_S = 20.0


@dataclass
class _Child:
    """One child process and what is needed to start it again."""

    name: str
    command: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started: float = 0.0
    delay: float = 0.0
    due: float | None = None

    def spawn(self, environment: Mapping[str, str], now: float) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # a Ctrl-C in our terminal is ours to pass on
            )
        self.started = now

    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def ended(self) -> int | None:
        """The exit status, or None while it runs."""
        return None if self.process is None else self.process.poll()

    def signal_group(self, number: int) -> None:
        """Signal the child and whatever it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class SuperLinkStack:
    """`start()` returns when both children are up; `stop()` ends them. A child that dies in between is restarted.

    At once after a quiet time, else after 1, 2, 4 … 30 s. Also a context manager.
    """

    def __init__(self, settings: SuperLinkSettings, *, environment: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self._environment = _environment(settings, environment or {})
        self._children = _children(settings)
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._failure: OperatorError | None = None
        self._thread = threading.Thread(target=self._run, name="superlink-stack", daemon=True)

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start and wait. `OperatorError`: "port-taken", "tls-files", "superlink-died" or "superlink-slow"."""
        self.settings.prepare()
        self._thread.start()
        if not self._up.wait(timeout_s):
            self._failure = OperatorError(
                "superlink-slow",
                what=f"the SuperLink did not answer within {timeout_s:.0f} s",
                do=f"read {self._children[0].log}",
            )
        if self._failure is not None:
            self.stop()
            raise self._failure

    def stop(self) -> None:
        """End both children, at the latest after a few seconds. Calling it twice is fine."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> SuperLinkStack:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def control(self) -> Control:
        """A client of this SuperLink's Control API."""
        return Control(self.settings.control_address, self.settings.control_token())

    def healthy(self) -> bool:
        """Whether both children run and both servers answer."""
        return all(child.runs() for child in self._children) and self._answers()

    def _answers(self) -> bool:
        try:
            with httpx.Client(trust_env=False, timeout=2.0) as client:
                return client.get(f"http://{self.settings.control_address}/health").status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def restarts(self) -> int:
        """How often a child was started again."""
        return sum(child.restarts for child in self._children)

    def pids(self) -> dict[str, int]:
        """Process ids by name, for status displays."""
        return {child.name: child.process.pid for child in self._children if child.process is not None}

    # The one thread that starts children: Linux ends a child when the thread that started it ends (`process`).
    def _run(self) -> None:
        try:
            superlink, superexec = self._children
            superlink.spawn(self._environment, time.monotonic())
            while not self._stopping.wait(_TICK_S):
                if self._up.is_set():
                    self._restart_dead()
                elif superlink.ended() is not None:
                    self._failure = _start_failure(superlink, self.settings)
                    self._up.set()
                elif self._answers():
                    superexec.spawn(self._environment, time.monotonic())
                    self._up.set()
        except OSError as error:
            self._failure = OperatorError(
                "process-start", what=f"a process could not be started: {error.strerror}", do="free memory, try again"
            )
            self._up.set()
        finally:
            self._end_all()

    def _restart_dead(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.ended() is None:
                continue
            if child.due is None:
                child.signal_group(signal.SIGKILL)  # whatever it left behind
                steady = now - child.started > _STEADY_S
                child.delay = 0.0 if steady else min(max(1.0, 2 * child.delay), _RESTART_CAP_S)
                child.due = now + child.delay
            if now >= child.due:
                child.due = None
                child.restarts += 1
                child.spawn(self._environment, now)

    def _end_all(self) -> None:
        for number, patience in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
            for child in self._children:
                child.signal_group(number)
            end = time.monotonic() + patience
            while any(child.runs() for child in self._children):
                if time.monotonic() > end:
                    break
                time.sleep(0.05)


def _environment(settings: SuperLinkSettings, extra: Mapping[str, str]) -> dict[str, str]:
    """Of the children: Flower quiet, its files in our home, its commands on the PATH, no proxy to loopback."""
    environment = dict(os.environ)
    quiet_flower(environment)
    environment["FLWR_HOME"] = str(settings.folder)
    environment["FLWR_LOG_LEVEL"] = "WARNING"
    environment["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = "0.5"
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, (environment.get(name), LOOPBACK)))
    environment.update(extra)
    return environment


def _children(settings: SuperLinkSettings) -> tuple[_Child, _Child]:
    python, parent = sys.executable, str(os.getpid())
    superlink = [
        python, "-m", "cameo_server.flower.superlink", "--parent", parent, "--home", str(settings.home),
        "--cert", str(settings.certificate), "--key", str(settings.key), "--fleet-host", settings.fleet_host,
        "--fleet-port", str(settings.fleet_port), "--control-port", str(settings.control_port),
        "--database", str(settings.database_file),
    ]  # fmt: skip
    superexec = [
        python, "-m", "cameo_server.flower.process", parent, "flower-superexec", "--insecure", "--parent-pid", parent,
        "--runtime-api-address", settings.control_address,
        "--superexec-auth-secret-file", str(settings.superexec_secret_file),
    ]  # fmt: skip
    return (
        _Child("superlink", tuple(superlink), settings.logs / "superlink.log"),
        _Child("superexec", tuple(superexec), settings.logs / "superexec.log"),
    )


def _start_failure(child: _Child, settings: SuperLinkSettings) -> OperatorError:
    status = child.ended()
    if status == EXIT_PORT_TAKEN:
        return OperatorError(
            "port-taken",
            what=f"port {settings.fleet_port} or {settings.control_port} is in use; {child.log} says which",
            do="stop the other program or choose other ports, then: cameo coordinator start",
        )
    if status == EXIT_TLS:
        return OperatorError(
            "tls-files",
            what=f"{settings.certificate} and {settings.key} are not a certificate and its key",
            do="run: cameo coordinator init",
            exit=ExitCode.AUTH,
        )
    return OperatorError(
        "superlink-died", what=f"{child.name} ended with status {status} while starting", do=f"read {child.log}"
    )
