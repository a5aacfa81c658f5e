"""Before a run: enough hospitals are connected, or are waited for, or the command says who is not there."""

from __future__ import annotations

import pytest

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.plan import RunPlan
from cameo_server.cli import presence
from cameo_server.launch import make_plan

from .conftest import Api

NAMES = ("hospital-a", "hospital-b", "hospital-c", "hospital-d")


@pytest.fixture
def plan(api: Api) -> RunPlan:
    for name in NAMES:
        api.admit(name)
    return make_plan(api.home, ["data=heart", "deadlines.admit=30"])


class Time:
    """A clock that moves when somebody waits; `then` happens after so many seconds."""

    def __init__(self, after: float, then: dict[str, bool], online: dict[str, bool]) -> None:
        self.now, self._after, self._then, self._online = 0.0, after, then, online

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._after:
            self._online.update(self._then)


def awaited(api: Api, plan: RunPlan, time: Time) -> None:
    presence.await_hospitals(api.home.root, None, plan, time.clock, time.pause)


def test_all_there_nothing_said(api: Api, plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    api.online.update(dict.fromkeys(NAMES, True))
    awaited(api, plan, Time(0, {}, api.online))
    assert capsys.readouterr().err == ""


def test_enough_there_the_missing_one_is_named(api: Api, plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    api.online.update(dict.fromkeys(NAMES[:3], True))
    awaited(api, plan, Time(0, {}, api.online))
    assert "3 of 4 hospitals are connected; not connected: hospital-d" in capsys.readouterr().err


def test_nodes_that_are_starting_are_waited_for(api: Api, plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    time = Time(12, dict.fromkeys(NAMES, True), api.online)
    awaited(api, plan, time)
    err = capsys.readouterr().err
    assert time.now == 12
    assert err.count("0 of 4 hospitals are connected; 3 are needed") == 2


def test_nobody_comes(api: Api, plan: RunPlan) -> None:
    api.online["hospital-a"] = True
    time = Time(1e9, {}, api.online)
    with pytest.raises(OperatorError) as error:
        awaited(api, plan, time)
    assert (error.value.code, error.value.exit_code) == ("hospitals-offline", ExitCode.PEER)
    assert "1 of 4" in error.value.what
    assert "hospital-b" in error.value.what
    assert time.now == plan.deadlines.admit
