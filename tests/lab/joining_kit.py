"""A coordinator that answers on its operator and join ports, and hospitals that join it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cameo_client import enrolment as node
from cameo_client.cli import app
from cameo_client.home import DataConfig, NodeHome
from cameo_client.membership import init_node
from cameo_lab.bench.local import free_port
from cameo_protocol.console import execute
from cameo_server import enrolment as coordinator
from cameo_server.api.server import serve_api
from cameo_server.api.services import Coordinator
from cameo_server.home import CoordinatorHome
from cameo_server.membership import init_coordinator

NOW = datetime.now(UTC)


@dataclass
class Setting:
    home: CoordinatorHome
    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def invite(self, name: str) -> str:
        return coordinator.invite(self.home, name, 600, datetime.now(UTC), os.urandom)[0]

    def node(self, name: str) -> NodeHome:
        home = NodeHome(self.folder / name)
        init_node(home, site=name, data=DataConfig(kind="table", path="/data.csv", mapping="heart"), now=NOW)
        return home

    def knock(self, name: str) -> tuple[NodeHome, bytes]:
        """Invited, knocked and approved."""
        home, token = self.node(name), node.Token.parse(self.invite(name))
        ca = node.pinned_ca(("localhost", self.port), token)
        coordinator.approve(self.home, name, node.knock(home, self.address, token, ca), datetime.now(UTC))
        return home, ca

    def approve(self, name: str) -> None:
        """What the coordinator's people do, the telephone left out."""
        (waiting,) = [site for site in self.states() if site.name == name and site.state == "waiting"]
        coordinator.approve(self.home, name, waiting.fingerprint, datetime.now(UTC))

    def states(self) -> list[coordinator.SiteState]:
        return coordinator.site_states(self.home, datetime.now(UTC))


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    home, port = CoordinatorHome(tmp_path / "coordinator"), free_port()
    init_coordinator(
        home,
        federation="study",
        host="localhost",
        fleet_port=free_port(),
        operator_port=free_port(),
        join_port=port,
        now=NOW,
    )
    with serve_api(Coordinator(home), "127.0.0.1"):
        yield Setting(home, tmp_path, port)


class Shell:
    """Runs `cameo-node` in this process, on a home of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = NodeHome(home)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str, answer: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["cameo-node", *words, "--home", str(self.home.root)])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = execute(app, "cameo-node")
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    def json(self, *words: str) -> dict[str, Any]:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        value: dict[str, Any] = json.loads(out)
        return value


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "hospital", monkeypatch, capsys)
