"""The frame of both command lines: exit codes, output, questions, interrupts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
import typer

from cameo_protocol.console import MOST_CONNECTIONS, confirm, emit, execute, new_app, say, serve
from cameo_protocol.errors import Bug, ExitCode, OperatorError, Reject


def raising(error: BaseException | None) -> typer.Typer:
    app = new_app("A test.")

    @app.command()
    def go(number: int = 1) -> None:
        """Go."""
        if error is not None:
            raise error

    @app.command()
    def stay() -> None:
        """Stay."""
        raise typer.Exit(3)

    return app


def run(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prog", *words])
    return execute(app, "prog")


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (None, 0, ""),
        (OperatorError("a-code", what="w", do="d", exit=ExitCode.DATA), 6, "a-code"),
        (Reject("a-code", what="w"), 7, "a-code"),
        (Bug("a-code", what="w"), 1, "cameo-bug-"),
        (RuntimeError("value of a patient"), 1, "cameo-bug-"),
        (OSError("value of a patient"), 1, "cameo-bug-"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 6, "file-unusable"),
        (OSError(36, "File name too long", "x" * 500), 6, "x: File name too long"),
        (RecursionError(), 1, "cameo-bug-"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_every_end_has_its_exit_code_and_no_traceback(
    error: BaseException | None,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    assert run(raising(error), monkeypatch, "go") == code
    out, err = capsys.readouterr()
    assert word in err
    assert "Traceback" not in err + out
    assert "value of a patient" not in err + "".join(path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize("words", [("nothing",), ("go", "--nothing"), ("go", "--number", "x"), ("go", "more")])
def test_bad_usage_names_the_help(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(None), monkeypatch, *words) == 2
    assert "--help" in capsys.readouterr().err


def test_no_arguments_show_the_help_and_an_exit_keeps_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(None), monkeypatch) == 2
    assert "Commands:" in capsys.readouterr().out
    assert run(raising(None), monkeypatch, "--help") == 0
    assert run(raising(None), monkeypatch, "stay") == 3


def test_output_is_one_object_or_harmless_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": "\x1b[0m"}, True, lambda: "")
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "a": "\x1b[0m"}
    emit({}, False, lambda: "\x1b[0mtext\n\n")
    assert capsys.readouterr().out == "\ufffd[0mtext\n"
    say("\x07remark")
    assert capsys.readouterr() == ("", "\ufffdremark\n")


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y\n", True), ("YES\n", True), ("n\n", False), ("", False), ("\n", False)]
)
def test_only_a_yes_is_a_yes(answer: str, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    if agreed:
        confirm("Sure?")
        return
    with pytest.raises(OperatorError) as caught:
        confirm("Sure?")
    assert caught.value.code == "not-confirmed"


@pytest.mark.parametrize(("typed", "agreed"), [("y\n", True), ("n\n", False), ("", False)])
def test_after_the_end_of_standard_input_the_terminal_is_asked_where_that_is_wanted(
    typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pty

    controller, terminal = pty.openpty()
    os.write(controller, typed.encode() or b"\x04")
    opened = Path.open
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    there = os.ttyname(terminal)
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: opened(Path(there) if str(self) == "/dev/tty" else self, *a, **k)
    )
    try:
        if agreed:
            confirm("Sure?", or_terminal=True)
        else:
            with pytest.raises(OperatorError, match="not-confirmed"):
                confirm("Sure?", or_terminal=True)
        with pytest.raises(OperatorError, match="not-confirmed"):
            confirm("Sure?")
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize(("number", "interrupts"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_signals_end_a_long_command(number: signal.Signals, interrupts: bool) -> None:
    before = signal.getsignal(number)
    ended = []

    def work(stop: threading.Event) -> None:
        os.kill(os.getpid(), number)
        assert stop.wait(5)
        ended.append(True)

    if interrupts:
        with pytest.raises(KeyboardInterrupt):
            serve(work)
    else:
        serve(work)
    assert ended == [True]
    assert signal.getsignal(number) == before


def test_a_second_interrupt_does_not_wait() -> None:
    def work(_: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("still here")

    with pytest.raises(KeyboardInterrupt):
        serve(work)


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = (
        "import sys; from cameo_protocol.console import *; app = new_app('x')\n"
        "@app.command()\n"
        "def a():\n"
        "    emit({}, False, lambda: 'x' * 1_000_000)\n"
        "@app.command()\n"
        "def b(): pass\n"
        "sys.argv = ['p', 'a']; sys.exit(execute(app, 'p'))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr
    assert process.stderr.read() == b""


def test_a_command_that_dies_leaves_no_copy_of_its_memory_on_the_disk() -> None:
    program = """
import resource, sys
from cameo_protocol.console import execute, new_app
app = new_app("x")
@app.command()
def go() -> None: print(resource.getrlimit(resource.RLIMIT_CORE)[0])
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
sys.exit(execute(app, "x"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_long_command_holds_more_connections_than_one_machine_opens_at_once() -> None:
    program = """
import resource, subprocess, sys
from cameo_protocol.console import serve
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
child = [sys.executable, "-c", "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)"]
serve(lambda stop: subprocess.run(child, check=True))
print(hard)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
serve(lambda stop: None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    soft, hard, before = map(int, done.stdout.split())
    assert hard == before
    assert soft == (MOST_CONNECTIONS if hard == -1 else min(MOST_CONNECTIONS, hard))
