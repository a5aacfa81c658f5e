"""What every command of `cameo` and `cameo-node` shares: its output, its errors, its exit code.

The one module of this room that touches the terminal; only the command lines import it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import typer
import typer.core

from cameo_protocol.errors import Bug, CameoError, ExitCode, OperatorError
from cameo_protocol.failure import bug_report, describe, printable
from cameo_protocol.suggestion import completed

SCHEMA_VERSION = 1
MOST_CONNECTIONS = 1 << 16
# Help is plain text here; with rich installed typer would still escape its brackets for rich ("\[required]").
typer.core.HAS_RICH = False
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]


def new_app(help_text: str) -> typer.Typer:
    """A group of commands: plain help that reads well in a log and starts fast; errors are ours, never a traceback."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def repeated(context: typer.Context, parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Callback of an option that says where commands act: commands that this one suggests repeat it."""
    if value is not None and isinstance(context.obj, dict):
        context.obj[parameter.opts[0]] = str(value)
    return value


def emit(value: Mapping[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """Print the result of a command: the object with --json, otherwise the text for people."""
    if as_json:
        sys.stdout.write(json.dumps({"schema_version": SCHEMA_VERSION, **value}, indent=1) + "\n")
    else:
        sys.stdout.write(printable(_with_places(text())).rstrip("\n") + "\n")


def say(text: str) -> None:
    """A remark beside the result, on stderr."""
    sys.stderr.write(printable(_with_places(text)) + "\n")


def _with_places(text: str) -> str:
    """The text with its commands completed by the options of the command that is running, if one is."""
    context = click.get_current_context(silent=True)
    if context is None or not isinstance(context.obj, dict):
        return text
    root = context.find_root()
    return completed(text, root.info_name or "", root.command, context.obj)


def confirm(
    question: str, do: str = "run the command again and answer y, or pass --yes", *, or_terminal: bool = False
) -> None:
    """Ask for a yes on the terminal; anything else, also no terminal, is an `OperatorError` whose next step is `do`.

    or_terminal: standard input held something else before; at its end, the terminal is asked.
    """
    sys.stderr.write(printable(question) + " [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if or_terminal and not answer:
        with contextlib.suppress(OSError), Path("/dev/tty").open(encoding="utf-8") as terminal:
            answer = terminal.readline()
    if not sys.stdin.isatty():  # nobody pressed return for us
        say("")
    if answer.strip().lower() not in ("y", "yes"):
        raise OperatorError("not-confirmed", what="nothing was changed", do=do)


def serve(work: Callable[[threading.Event], None]) -> None:
    """Run a long command until Ctrl-C (then exit code 130) or SIGTERM (then 0) sets the event it is given.

    A second Ctrl-C does not wait for it. Logs go to stderr, as lines of JSON: see `logs`.
    """
    from cameo_protocol import logs

    logs.set_up(sys.stderr)
    _allow_connections()
    stop, interrupted = threading.Event(), threading.Event()

    def on_signal(number: int, _: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            interrupted.set()
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        work(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted.is_set():
        raise KeyboardInterrupt


def execute(app: typer.Typer, name: str) -> int:
    """Run the command line and return its exit code; every failure becomes a described error on stderr."""
    _no_core_dump()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr say nothing that our errors do not
    command, given = typer.main.get_command(app), dict[str, str]()
    try:
        result = command(prog_name=name, standalone_mode=False, obj=given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as with `| head`; keep the interpreter from complaining at exit.
        sys.stdout = sys.__stderr__
        return int(ExitCode.OK)
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return int(ExitCode.INTERRUPT)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stdout.write(error.format_message() + "\n")
        return int(ExitCode.USAGE)
    except Exception as error:
        told = _as_ours(error, name)
        say(completed(describe(told), name, command, given))
        return int(told.exit_code)
    if result == ExitCode.INTERRUPT:  # typer turns Ctrl-C into this exit code by itself
        say("interrupted")
    return result if isinstance(result, int) else int(ExitCode.OK)


def _allow_connections() -> None:
    """Let this process and its children hold as many connections as the system lets them.

    The usual 1024 are opened by one machine in a second, and then neither a file nor a process can be opened here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, MOST_CONNECTIONS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _no_core_dump() -> None:
    """A process that dies leaves no file of its memory, where patients' rows and keys may be; nor do its children."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _as_ours(error: Exception, name: str) -> CameoError:
    """Any exception as one of our three kinds; for a bug, a report is written first."""
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else name
        return OperatorError("usage", what=error.format_message(), do=f"see: {path} --help")
    if isinstance(error, CameoError) and not isinstance(error, Bug):
        return error
    if isinstance(error, OSError) and error.filename is not None:
        return OperatorError(
            "file-unusable",
            what=f"{str(error.filename)[:200]}: {error.strerror or 'cannot be used'}",
            do="check the name, its folder, the permissions and the disk, then run the command again",
            exit=ExitCode.DATA,
        )
    from importlib.metadata import version

    versions = {name: version("cameo-fl"), "python": sys.version.split()[0]}
    with tempfile.NamedTemporaryFile("w", prefix="cameo-bug-", suffix=".txt", delete=False) as file:
        file.write(bug_report(error, versions))
    code, what = (error.code, error.what) if isinstance(error, Bug) else ("unexpected", f"a {type(error).__name__}")
    return Bug(code, what=what, do=f"send {file.name} to the makers of Cameo; it holds no data")
