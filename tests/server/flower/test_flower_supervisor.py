"""Starting and watching the two processes: what can go wrong, and what the operator is told."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from flower_box import eventually, make_settings

from cameo_protocol.errors import OperatorError
from cameo_server.flower.settings import SuperLinkSettings
from cameo_server.flower.supervisor import SuperLinkStack


def failure(stack: SuperLinkStack, timeout_s: float = 30) -> OperatorError:
    with pytest.raises(OperatorError) as error:
        stack.start(timeout_s)
    assert not any(_runs(pid) for pid in stack.pids().values()), "nothing is left behind"
    return error.value


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_port_in_use(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with socket.create_server(("127.0.0.1", settings.control_port)):
        error = failure(SuperLinkStack(settings))
    assert error.code == "port-taken"
    assert str(settings.control_port) in error.what
    assert str(settings.control_port) in (settings.logs / "superlink.log").read_text()


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.key.write_text("junk")
    error = failure(SuperLinkStack(settings))
    assert (error.code, error.exit_code) == ("tls-files", 5)


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.prepare()
    settings.database_file.write_bytes(b"this is no database" * 100)
    error = failure(SuperLinkStack(settings))
    assert error.code == "superlink-died"
    assert "superlink.log" in error.do
    assert settings.database_file.read_bytes().startswith(b"this is no database"), "it is not replaced"


def test_one_that_takes_too_long(tmp_path: Path) -> None:
    assert failure(SuperLinkStack(make_settings(tmp_path)), timeout_s=0.01).code == "superlink-slow"


def test_started_by_a_thread_that_ends_restarted_and_stopped_twice(tmp_path: Path) -> None:
    stack = SuperLinkStack(make_settings(tmp_path))
    # Linux would end the children with the thread that started them; that is the stack's own.
    starter = threading.Thread(target=stack.start)
    starter.start()
    starter.join()
    assert stack.healthy()
    before = stack.pids()
    assert before.keys() == {"superlink", "superexec"}
    os.kill(before["superexec"], signal.SIGKILL)
    eventually(lambda: stack.restarts == 1 and stack.healthy())
    after = stack.pids()
    assert after["superlink"] == before["superlink"]
    assert after["superexec"] != before["superexec"]
    stack.stop()
    stack.stop()
    assert not any(_runs(pid) for pid in (before | after).values())
    assert not stack.healthy()


def test_the_token_before_the_first_start(tmp_path: Path) -> None:
    settings = SuperLinkSettings(home=tmp_path, certificate=tmp_path, key=tmp_path, fleet_port=1, control_port=2)
    with pytest.raises(OperatorError) as error:
        settings.control_token()
    assert error.value.code == "coordinator-not-started"
    settings.prepare()
    token = settings.control_token()
    settings.prepare()
    assert settings.control_token() == token, "made once"
    assert len(token) == 64


def test_a_coordinator_that_is_not_there(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.prepare()
    with SuperLinkStack(settings).control() as control, pytest.raises(OperatorError) as error:
        control.list_nodes()
    assert error.value.code == "superlink-unreachable"
