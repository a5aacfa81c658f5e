"""The run's own process: which ends are told as a stop, and which are a death after which the run goes on."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from flwr.app import Context
from flwr.serverapp import Grid

from cameo_protocol.errors import OperatorError
from cameo_protocol.plan import Site
from cameo_server import app as module
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan_for
from cameo_server.membership import init_coordinator
from cameo_server.run.store import RunStore

RUN = "20261124-120000-abcd"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Context, RunStore]:
    """A run as superexec starts it, with a Flower that knows every hospital."""
    home = CoordinatorHome(tmp_path / "coordinator")
    init_coordinator(home, federation="demo", host="localhost", fleet_port=9999, now=datetime.now(UTC))
    plan = make_plan_for([Site(name=f"h-{i}", index=i, identity=bytes([i] * 32).hex()) for i in range(1, 5)], ())
    store = RunStore(home.runs / RUN)
    store.create(plan.canonical())
    store.event("start")
    monkeypatch.setattr(module, "open_control", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(module, "node_ids", lambda *_: {})
    config = {"home": str(home.root), "run": RUN, "plan-sha256": plan.plan_id()}
    return cast(Context, SimpleNamespace(run_config=config, run_id=7)), store


def end(context: Context, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Run the ServerApp with a run that ends with this error."""

    def drive(*_: Any) -> None:
        raise error

    monkeypatch.setattr(module, "drive", drive)
    module.app(cast(Grid, SimpleNamespace()), context)


def stops(store: RunStore) -> list[dict[str, Any]]:
    return [event for event in store.events() if event["event"] == "stopped"]


@pytest.mark.parametrize("error", [ConnectionError("started again"), httpx.ReadError("gone"), OSError("disk")])
def test_a_lost_superlink_is_a_death_and_not_the_end_of_the_run(
    error: Exception, started: tuple[Context, RunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, store = started
    with pytest.raises(type(error)):
        end(context, monkeypatch, error)
    assert stops(store) == [], "the coordinator starts it again"
    assert not (store.folder / module.TRACE).exists()


def test_a_fault_of_ours_ends_the_run_with_its_trace(
    started: tuple[Context, RunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, store = started
    with pytest.raises(ZeroDivisionError):
        end(context, monkeypatch, ZeroDivisionError("x"))
    (stopped,) = stops(store)
    assert (stopped["code"], stopped["what"]) == ("server-app-failed", "ZeroDivisionError")
    assert "ZeroDivisionError" in (store.folder / module.TRACE).read_text()


def test_an_error_for_people_is_told_once_and_ends_the_process_quietly(
    started: tuple[Context, RunStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, store = started
    end(context, monkeypatch, OperatorError("too-few", what="two hospitals", do="wait"))
    assert [event["code"] for event in stops(store)] == ["too-few"]
    end(context, monkeypatch, OperatorError("too-few", what="two hospitals", do="wait"))
    assert len(stops(store)) == 1
