"""Logs as lines of JSON through an allow-list: only known events with known fields of a known form are written.

A text that anybody composed, an exception's message, a field or an event that is not listed here never reaches a log,
so a patient's value cannot, whatever a caller or a library does. Source: design page "operators", Watching.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import IO, Any, Final

import structlog

# What our programs say. A test holds the source against this list.
EVENTS: Final = frozenset(
    {
        "reported", "tags-failed", "connection-ended", "message-dropped", "reply-dropped", "heartbeat-failed",
        "handler-failed", "answered-with-code", "call-failed", "node-dropped", "run-stopped", "thread-failed",
    }
)  # fmt: skip
_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")
FIELDS: Final[Mapping[str, re.Pattern[str]]] = {
    "code": _CODE,
    "cause": _CODE,
    "run": re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}|r[0-9]{1,3}"),
    "node": re.compile(r"[0-9]{1,20}"),
    "type": re.compile(r"[A-Za-z_]{0,50}(Error|Exception|Reject|Misbehaved|Bug|Interrupt|Exit|Expired|Timeout)"),
    "place": re.compile(r"[a-z_0-9]{1,60}\.py:[0-9]{1,5}"),
    "level": re.compile(r"debug|info|warning|error|critical"),
    "logger": re.compile(r"cameo_[a-z_.]{1,100}"),
    "timestamp": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,16}Z"),
}
WITHHELD: Final = "withheld"
OURS: Final = ("cameo_client", "cameo_server")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of ours: an event of `EVENTS`, with fields of `FIELDS`; anything else is withheld."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            screen,
            _as_line,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def screen(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, str]:
    """The allow-list: what is known and has its form stays, everything else becomes "withheld" or goes."""
    kept = {"event": event["event"] if event.get("event") in EVENTS else WITHHELD}
    for name, form in FIELDS.items():
        if name in event:
            text = str(event[name]) if isinstance(event[name], str | int) else ""
            kept[name] = text if form.fullmatch(text) else WITHHELD
    return kept


def failure(error: BaseException) -> dict[str, str]:
    """What may be said of an exception: its type, and file and line of the innermost frame; never its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = type(error).__name__
    if trace is None:
        return {"type": name}
    return {"type": name, "place": f"{Path(trace.tb_frame.f_code.co_filename).name.lower()}:{trace.tb_lineno}"}


def set_up(stream: IO[str]) -> None:
    """Write this process's logs to a stream: ours from "info", libraries' from "warning" and without their words."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for ours in OURS:
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.getLogger("flwr").addFilter(_wordless)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Python would print the exception with its text."""
    _log_failure(failed.exc_value)


def _unraisable(failed: sys.UnraisableHookArgs) -> None:
    """The same, for what fails where nobody can catch it."""
    _log_failure(failed.exc_value)


def _log_failure(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        get_logger(__name__).error("thread-failed", **failure(error))


def _wordless(record: logging.LogRecord) -> bool:
    """Flower's logger has a handler and a level of its own: its words are taken before any handler sees them."""
    record.msg, record.args = WITHHELD, ()
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.exc_info = type(record.exc_info[1]).__name__, None
    return record.levelno >= logging.WARNING


class LineFormatter(logging.Formatter):
    """Lines of ours as they are; of any other record only level, library and the type of its exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        if getattr(record, "screened", False):
            return record.getMessage()
        library = record.name.split(".")[0]
        error = record.exc_info[1] if record.exc_info else None
        said = screen(None, "", {"level": record.levelname.lower(), **(failure(error) if error is not None else {})})
        return json.dumps({**said, "event": "library", "library": library if library in sys.modules else WITHHELD})


def _as_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    # "%" would be a placeholder to the standard library's logging; no field of ours may hold one.
    return (json.dumps(event),), {"extra": {"screened": True}}
