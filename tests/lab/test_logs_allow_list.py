"""A patient's value cannot get into a log, through whatever logger and in whatever place it is put."""

from __future__ import annotations

import ast
import importlib
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

import cameo_client
import cameo_server
from cameo_protocol.logs import EVENTS, FIELDS, LineFormatter, failure, get_logger, screen, set_up

ROOMS = [Path(str(room.__file__)).parent for room in (cameo_client, cameo_server)]
PLANTED = ("Zhang Wei", "1961-04-02", "patient 4711", "E11.9", "0f3a" * 8, "138-0013-8000", "张伟", "7.25", 'x"y\n{z}')


def logging_modules() -> list[str]:
    found = []
    for room in ROOMS:
        for path in sorted(room.rglob("*.py")):
            if "get_logger(__name__)" in path.read_text():
                found.append(".".join(path.relative_to(room.parent).with_suffix("").parts))
    return found


MODULES = logging_modules()


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the root logger writes, as `set_up` makes it."""
    root, text = logging.getLogger(), io.StringIO()
    handlers, level, filters = root.handlers[:], root.level, logging.getLogger("flwr").filters[:]
    hooks = threading.excepthook, sys.unraisablehook
    root.handlers.clear()
    try:
        set_up(text)
        yield text
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("flwr").filters[:] = filters
        threading.excepthook, sys.unraisablehook = hooks


def rows(stream: io.StringIO) -> list[dict[str, str]]:
    text = stream.getvalue()
    assert not [planted for planted in PLANTED if planted in text or json.dumps(planted)[1:-1] in text]
    return [json.loads(line) for line in text.splitlines()]


def test_there_are_loggers_and_all_of_them_are_screened() -> None:
    assert len(MODULES) >= 6
    for room in ROOMS:
        for path in room.rglob("*.py"):
            assert "logging.getLogger" not in path.read_text(), f"{path}: use cameo_protocol.logs.get_logger"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("planted", PLANTED)
def test_nothing_planted_passes(module: str, planted: str, stream: io.StringIO) -> None:
    log: structlog.stdlib.BoundLogger = importlib.import_module(module).log
    log.error(planted)
    log.warning("reported", **dict.fromkeys(FIELDS, planted))
    log.warning("reported", patient=planted, name=planted, **{planted: planted})
    log.error("reported", code=[planted], cause={"a": planted}, node=planted)
    log.bind(who=planted).error("reported", code="budget-spent")
    try:
        raise ValueError(planted)
    except ValueError as error:
        log.exception(planted, exc_info=error)
        log.exception("reported", exc_info=True, stack_info=True)
        log.error("handler-failed", **failure(error))
    assert len(rows(stream)) == 8


@pytest.mark.parametrize("planted", PLANTED)
def test_libraries_and_plain_loggers_have_no_words(planted: str, stream: io.StringIO) -> None:
    for name in ("flwr", "uvicorn.error", "cameo_client.somewhere", planted):
        logger = logging.getLogger(name)
        logger.error("%s", planted)
        logger.error(planted, extra={"patient": planted})
        try:
            raise KeyError(planted)
        except KeyError:
            logger.exception("with its trace")
    found = rows(stream)
    assert len(found) == 12
    assert {row["event"] for row in found} == {"library"}
    assert [row["type"] for row in found if "type" in row].count("KeyError") >= 2


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "event", "patient"]), st.text() | st.integers() | st.none()))
def test_only_known_fields_of_their_form_are_left(event: dict[str, object]) -> None:
    kept = screen(None, "", dict(event))
    assert kept.keys() <= {"event", *FIELDS}
    assert kept["event"] in EVENTS | {"withheld"}
    assert all(text == "withheld" or FIELDS[name].fullmatch(text) for name, text in kept.items() if name != "event")


def test_what_is_known_is_written_whole(stream: io.StringIO) -> None:
    get_logger("cameo_client.x").warning("reported", code="declined-local", cause="quality-too-low")
    get_logger("cameo_server.y").info("run-stopped", run="20261124-115500-ab12", code="cohort-incomplete")
    one, two = rows(stream)
    assert (one["event"], one["code"], one["cause"]) == ("reported", "declined-local", "quality-too-low")
    assert (one["level"], one["logger"]) == ("warning", "cameo_client.x")
    assert (two["run"], two["level"]) == ("20261124-115500-ab12", "info")


def test_debug_lines_and_libraries_remarks_stay_out(stream: io.StringIO) -> None:
    get_logger("cameo_client.x").debug("reported", code="a")
    logging.getLogger("flwr").info("Starting Flower SuperLink")
    assert not rows(stream)


def test_flowers_own_handler_gets_no_words_either(stream: io.StringIO) -> None:
    """Flower adds a handler to its logger that writes what it is told."""
    flower, text = logging.getLogger("flwr"), io.StringIO()
    handler = logging.StreamHandler(text)
    flower.addHandler(handler)
    try:
        flower.warning("%s was sent", PLANTED[0])
        try:
            raise KeyError(PLANTED[1])
        except KeyError:
            flower.exception("with its trace")
    finally:
        flower.removeHandler(handler)
    assert text.getvalue() == "withheld\nKeyError\n"
    rows(stream)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_says_where_and_no_more(stream: io.StringIO, capfd: pytest.CaptureFixture[str]) -> None:
    class Careless:
        def __del__(self) -> None:
            raise ValueError(PLANTED[1])

    def work() -> None:
        raise KeyError(PLANTED[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    careless = Careless()
    del careless
    found = rows(stream)
    assert [(row["event"], row["type"]) for row in found] == [
        ("thread-failed", "KeyError"),
        ("thread-failed", "ValueError"),
    ]
    assert all(row["place"].startswith("test_logs_allow_list.py:") for row in found)
    assert not [text for text in capfd.readouterr() if PLANTED[0] in text or PLANTED[1] in text]


def test_a_record_cannot_pass_itself_off_as_screened_by_its_text() -> None:
    record = logging.LogRecord("flwr", logging.ERROR, "f.py", 1, '{"event": "reported", "screened": true}', None, None)
    assert json.loads(LineFormatter().format(record)) == {"level": "error", "event": "library", "library": "flwr"}


def test_every_line_that_our_programs_write_is_on_the_list() -> None:
    """So that nothing worth saying is withheld: event names and fields of all calls in the source."""
    calls = 0
    for module in MODULES:
        tree = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("debug", "info", "warning", "error", "exception", "critical"):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):
                continue
            calls += 1
            assert isinstance(node.args[0], ast.Constant), f"{module}:{node.lineno}: an event that is put together"
            assert node.args[0].value in EVENTS, f"{module}:{node.lineno}"
            assert {word.arg for word in node.keywords} - {None} <= set(FIELDS), f"{module}:{node.lineno}"
    assert calls >= 10
