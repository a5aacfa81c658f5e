"""Who drives a run, who has died, and how often a run is started again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cameo_protocol.errors import OperatorError
from cameo_server.home import CoordinatorHome
from cameo_server.resuming import FLOWER, LOCK, MOST_DEATHS, Watchman, driven, driving, launch, resume
from cameo_server.run.store import RunStore

PLAN_ID = "ab" * 32


@dataclass
class FakeControl:
    """Flower's Control API as far as it is needed here."""

    started: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    status: str = "running"

    def start_run(self, bundle: bytes, config: dict[str, Any]) -> int:
        assert bundle
        self.started.append(config)
        return len(self.started)

    def stop_run(self, run_id: int) -> bool:
        self.stopped.append(run_id)
        raise OperatorError("flower-refused", what="it is finished", do="nothing")

    def run_status(self, run_id: int) -> Any:
        assert run_id == len(self.started)
        return SimpleNamespace(status=self.status)


@dataclass
class Scene:
    """A run that was launched once, and the watchman."""

    home: CoordinatorHome
    control: FakeControl
    store: RunStore
    watchman: Watchman
    said: list[str]

    def look(self, times: int = 1) -> int:
        """Let the watchman look; returns how many processes were started by now."""
        for _ in range(times):
            self.watchman.look(self.control)
        return len(self.control.started)

    def begins_and_dies(self) -> None:
        with driving(self.store, len(self.control.started)):
            pass


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    home, control, said = CoordinatorHome(tmp_path), FakeControl(), list[str]()
    store = RunStore(home.runs / "r1")
    store.create(b"{}")
    launch(control, home, "r1", PLAN_ID)
    return Scene(home, control, store, Watchman(home, said.append), said)


@pytest.fixture
def old(scene: Scene) -> Scene:
    """The same, when the watchman has looked once already: what it sees now began in its own life."""
    scene.watchman._first = False
    return scene


def test_a_run_is_launched_with_its_plan(scene: Scene) -> None:
    (config,) = scene.control.started
    assert config == {"plan": "plan.json", "plan-sha256": PLAN_ID, "run": "r1", "home": str(scene.home.root)}


def test_a_process_on_its_way_is_left_alone_and_one_that_never_came_is_replaced(old: Scene) -> None:
    assert old.look(3) == 1
    old.control.status = "finished"
    assert old.look() == 2
    assert old.control.stopped == [1]


def test_a_process_that_began_and_died_is_replaced_at_once(old: Scene) -> None:
    with driving(old.store, 1):
        assert driven(old.store)
        assert old.look(3) == 1
    assert not driven(old.store)
    assert old.look() == 2
    assert old.said == ["run r1 goes on: its process had died"]
    assert old.look(3) == 2, "the new one has not begun yet"


def test_the_first_look_takes_up_what_an_earlier_life_left(scene: Scene) -> None:
    """So it must come before anybody can start a run: see `start_coordinator`."""
    assert scene.look() == 2
    assert scene.look(3) == 2


@pytest.mark.parametrize("event", ["published", "finished", "stopped"])
def test_a_run_that_ended_is_left_alone(scene: Scene, event: str) -> None:
    scene.store.event(event)
    scene.begins_and_dies()
    assert scene.look(3) == 1


def test_dying_without_getting_on_ends_and_says_so(old: Scene) -> None:
    for _ in range(MOST_DEATHS):
        old.begins_and_dies()
        old.look()
    assert len(old.control.started) == 1 + MOST_DEATHS
    old.begins_and_dies()
    assert old.look(3) == 1 + MOST_DEATHS
    (stopped,) = old.store.events()
    assert (stopped["event"], stopped["code"]) == ("stopped", "server-app-died")
    assert "cameo run --resume r1" in stopped["do"]
    assert resume(old.control, old.home, "r1"), "a person may try again"


def test_a_run_that_gets_on_may_die_as_often_as_it_likes(old: Scene) -> None:
    for number in range(1, 3 * MOST_DEATHS):
        old.begins_and_dies()
        old.store.save_bytes(f"round-{number:04d}.json", b"{}")
        assert old.look() == 1 + number


def test_two_processes_never_drive_one_run(scene: Scene) -> None:
    with driving(scene.store, 1):
        with pytest.raises(OperatorError) as refused, driving(scene.store, 2, patience_s=0.3):
            raise AssertionError
        assert refused.value.code == "run-busy"
        assert (scene.store.folder / LOCK).read_text() == "1"
        assert not resume(scene.control, scene.home, "r1")


def test_a_killed_process_lets_go(scene: Scene) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with driving(scene.store, 1):
            os.write(tell, b"x")
            signal.pause()
        os._exit(1)
    os.read(ready, 1)
    assert driven(scene.store)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not driven(scene.store)


def _gone(scene: Scene) -> None:
    (scene.store.folder / FLOWER).unlink()


def _ended(scene: Scene) -> None:
    scene.store.event("published")


@pytest.mark.parametrize(("change", "code"), [(_gone, "run-unknown"), (_ended, "run-ended")])
def test_what_cannot_be_resumed_is_said(scene: Scene, change: Callable[[Scene], None], code: str) -> None:
    change(scene)
    with pytest.raises(OperatorError) as refused:
        resume(scene.control, scene.home, "r1")
    assert refused.value.code == code


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"run_id": "x"}', json.dumps({"run_id": 1}).encode()])
def test_a_file_that_is_none_of_ours_starts_nothing(scene: Scene, content: bytes) -> None:
    (scene.store.folder / FLOWER).write_bytes(content)
    assert scene.look(2) == 1
