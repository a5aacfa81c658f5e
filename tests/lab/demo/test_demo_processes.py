"""Child processes of a demo always end, with everything they started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from cameo_lab.demo import processes
from cameo_lab.demo.processes import Children, call, call_json, interruptible
from cameo_protocol.errors import ExitCode, OperatorError

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
open(sys.argv[1] + ('.child' if child == 0 else '.parent'), 'w').write(str(os.getpid()))
print('started', flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command is this Python."""
    monkeypatch.setattr(processes, "command", lambda _: [sys.executable, "-c"])
    monkeypatch.setattr(processes, "GRACE", 0.3)


def pid_in(path: Path) -> int:
    until = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return int(path.read_text())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def test_a_whole_group_that_ignores_sigterm_ends(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    with pytest.raises(ZeroDivisionError), Children(tmp_path / "logs") as children:
        children.start("stubborn", ["x", STUBBORN, str(mark)])
        pids = [pid_in(Path(f"{mark}.{who}")) for who in ("parent", "child")]
        assert all(map(alive, pids))
        assert children.ended() == {}
        raise ZeroDivisionError
    assert all(map(gone, pids))
    assert children.running == {}
    assert "started" in children.tail("stubborn")


def test_children_that_ended_by_themselves_are_told(tmp_path: Path) -> None:
    with Children(tmp_path / "logs") as children:
        children.start("short", ["x", "import os, sys; print(os.environ['MARK']); sys.exit(3)"], env={"MARK": "here"})
        children.running["short"].wait(20)
        assert children.ended() == {"short": 3}
        assert children.tail("short") == "here"
        assert children.tail("other") == ""


@pytest.mark.parametrize(("status", "code"), [(6, ExitCode.DATA), (4, ExitCode.POLICY), (99, ExitCode.BUG)])
def test_a_commands_own_error_is_passed_on(status: int, code: ExitCode) -> None:
    with pytest.raises(OperatorError) as failed:
        call(["x", f"import sys; sys.stderr.write('the reason'); sys.exit({status})"])
    assert failed.value.code == "command-failed"
    assert failed.value.exit_code == code
    assert "the reason" in failed.value.what


def test_a_commands_object_is_read() -> None:
    assert call_json(["x", "import sys, json; print(json.dumps({'last': sys.argv[-1]}))"]) == {"last": "--json"}


def test_sigterm_ends_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before
