"""`cameo watch` and a coordinator that is stopped in the middle of a run: that is no end, and no success."""

from __future__ import annotations

import json
import sys
import threading
import time

import pytest

from cameo_protocol.console import execute, new_app
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_server.api.client import connect_home
from cameo_server.api.server import serve_api
from cameo_server.api.services import Coordinator
from cameo_server.cli import following
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import RunStore

from .conftest import Api


@pytest.fixture
def store(home: CoordinatorHome) -> RunStore:
    store = RunStore(home.runs / "r1")
    store.create(json.dumps({"name": "study", "training": {"rounds": 2}}).encode())
    store.event("start", run="r1", name="study", plan_id="ab" * 32)
    return store


@pytest.fixture
def home(stopped_api: Api) -> CoordinatorHome:
    return stopped_api.home


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 0.6)
    monkeypatch.setattr(following, "PAUSE_S", 0.1)


def served(home: CoordinatorHome, seconds: float) -> threading.Thread:
    """A coordinator that is stopped after so long."""
    ready = threading.Event()

    def live() -> None:
        with serve_api(Coordinator(home), "127.0.0.1"):
            ready.set()
            time.sleep(seconds)

    thread = threading.Thread(target=live)
    thread.start()
    assert ready.wait(10)
    return thread


def test_a_coordinator_that_stops_refuses_to_tell_the_end(home: CoordinatorHome, store: RunStore) -> None:
    thread = served(home, 0.5)
    with connect_home(home) as client, pytest.raises(OperatorError) as error:
        list(client.stream("WatchRun", pb.WatchRunRequest(run="r1")))
    thread.join()
    assert error.value.code == "coordinator-stopping"


def test_a_run_whose_coordinator_was_stopped_is_not_published(home: CoordinatorHome, store: RunStore) -> None:
    thread = served(home, 0.5)
    with pytest.raises(OperatorError) as error:
        following.watched(home.root, None, "r1")
    thread.join()
    assert (error.value.code, error.value.exit_code) == ("coordinator-stopped", ExitCode.PEER)
    assert "cameo watch r1" in error.value.do


def test_a_coordinator_that_is_started_again_tells_the_rest_once(
    home: CoordinatorHome, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 20.0)
    first = served(home, 0.4)

    def again() -> None:
        first.join()
        store.event("published", stored=["a"])
        served(home, 1.0).join()

    second = threading.Thread(target=again)
    second.start()
    seen = [event["event"] for event in following.events(home.root, None, "r1")]
    second.join()
    assert seen == ["start", "published"]


def test_a_stream_that_just_ends_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "events", lambda *_: iter([{"event": "returned", "sites": ["a"]}]))
    with pytest.raises(OperatorError, match="coordinator-stopped"):
        following.watched(None, None, "r1")


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_run_that_was_stopped_ends_the_watching_with_7(
    how: list[str],
    home: CoordinatorHome,
    store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.event("stopped", code="cohort-incomplete", what="2 of 4 hospitals are left", do="cameo site list")
    store.event("finished", told=["a"])
    app = new_app("x")
    app.command(name="else")(following.stop)
    app.command()(following.watch)
    monkeypatch.setattr(sys, "argv", ["cameo", "watch", "r1", "--home", str(home.root), *how])
    thread = served(home, 1.0)
    assert execute(app, "cameo") == 7
    thread.join()
    out, err = capsys.readouterr()
    assert "cohort-incomplete (exit 7)" in err
    if how:
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["start", "stopped", "finished"]


def test_a_run_that_published_ends_the_watching_with_0(
    home: CoordinatorHome, store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.event("stopped", code="x", what="w", do="d")
    store.event("resumed", run="r1")
    store.event("published", stored=["a"])
    thread = served(home, 1.0)
    following.watch("r1", home=home.root, as_json=True)
    thread.join()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "published"
