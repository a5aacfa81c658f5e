"""SIGKILL of the coordinator, of the SuperLink, of the run's own process and of a hospital in a run, for real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cameo_lab.demo import driver, setting
from cameo_lab.demo.processes import Children
from cameo_lab.soak import NAMES, Soak
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.run.release_gate import keep
from passed_audit import passed_audit

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
PARTS = NAMES if os.environ.get("CAMEO_FULL") else NAMES[:1]


@pytest.fixture
def _small_and_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few patients, and an audit that passed: neither is what is tried here."""
    start = Children.start

    def start_all_but_the_audit(children: Children, name: str, *arguments: Any, **options: Any) -> None:
        if name != "audit":
            start(children, name, *arguments, **options)

    monkeypatch.setattr(setting, "SYNTHETIC_PATIENTS", 300)
    monkeypatch.setattr(Children, "start", start_all_but_the_audit)
    monkeypatch.setattr(driver, "_audited", lambda *_: None)


class Audited(Soak):
    """A soak whose recipe counts as audited."""

    def _start_run(self, chosen: Any) -> str:
        home = CoordinatorHome(self.layout.coordinator)
        keep(home, passed_audit(make_plan(home, chosen.overrides)))
        return super()._start_run(chosen)


@pytest.mark.usefixtures("_small_and_audited")
@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_comes_back_and_the_run_is_published(name: str, tmp_path: Path) -> None:
    lines: list[str] = []
    once = Audited(name, 1, tmp_path / "soak", rounds=6, per_run=1, say=lines.append)
    once.carry_out()
    assert once.done == 1, lines
    assert lines[-1].endswith("1 kills, nothing lost or doubled")
    went_on = any("goes on: its process had died" in line for line in _log(tmp_path).splitlines())
    assert went_on == (name in ("coordinator", "server-app"))


def _log(folder: Path) -> str:
    return (folder / "soak" / "logs" / "coordinator.log").read_text()
