"""`cameo-node page` and `report`, and the page as the node's process hosts it."""

from __future__ import annotations

import json
import socket
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cameo_client.cli import app
from cameo_client.home import DataConfig, NodeHome, load_config
from cameo_client.membership import init_node
from cameo_client.page.look import QualityLook, describe_source
from cameo_client.page.report import hospital_report
from cameo_client.page.server import serve_page
from cameo_client.page.views import Views
from cameo_client.running import alone
from cameo_lab.bench.local import free_port
from cameo_protocol.console import execute

from .conftest import RUN

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    def call(home: NodeHome, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cameo-node", *words, "--home", str(home.root)])
        code = execute(app, "cameo-node")
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.fixture
def fresh(tmp_path: Path) -> NodeHome:
    """A home that has just been made, with a page on a free port."""
    home = NodeHome(tmp_path / "fresh")
    data = DataConfig(kind="table", path="/x", mapping="heart")
    init_node(home, site="hospital-9", data=data, now=datetime.now(UTC), page_port=free_port())
    return home


def as_json(found: tuple[int, str, str]) -> dict[str, Any]:
    assert found[0] == 0, found[2]
    value: dict[str, Any] = json.loads(found[1])
    assert value["schema_version"] == 1
    return value


def test_a_link_from_the_command_opens_the_running_nodes_page(fresh: NodeHome, shell: Shell) -> None:
    with alone(fresh), serve_page(fresh, pytest.fail), httpx.Client(trust_env=False) as client:
        found = as_json(shell(fresh, "page", "--role", "auditor", "--as", "An Auditor", "--json"))
        assert found["role"] == "auditor"
        assert client.get(found["url"]).status_code == 303
        shown = client.get(f"http://localhost:{load_config(fresh).page_port}/overview")
        assert shown.status_code == 200
        assert "An Auditor, auditor" in shown.text
    assert not (fresh.root / "page.json").exists()
    assert stat.S_IMODE(fresh.page_key.stat().st_mode) == 0o600


def test_the_page_listens_on_loopback_only(fresh: NodeHome) -> None:
    import psutil

    port = load_config(fresh).page_port
    with serve_page(fresh, pytest.fail):
        listening = {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening if address.port == port} == {"127.0.0.1"}


def test_a_port_that_is_taken_costs_the_page_and_not_the_node(fresh: NodeHome, shell: Shell) -> None:
    said: list[str] = []
    with (
        socket.create_server(("127.0.0.1", load_config(fresh).page_port)),
        alone(fresh),
        serve_page(fresh, said.append),
    ):
        code, _, err = shell(fresh, "page")
    assert "page_port in node.toml" in said[0]
    assert code == 2
    assert "page-off" in err


def test_no_port_is_no_page(tmp_path: Path) -> None:
    home = NodeHome(tmp_path / "none")
    data = DataConfig(kind="table", path="/x", mapping="heart")
    init_node(home, site="hospital-9", data=data, now=datetime.now(UTC), page_port=0)
    with serve_page(home, pytest.fail):
        assert not (home.root / "page.json").exists()
        assert not home.page_key.exists()


def test_a_node_that_died_leaves_no_page_behind(fresh: NodeHome, shell: Shell) -> None:
    (fresh.root / "page.json").write_text('{"port": 9096}')
    code, _, err = shell(fresh, "page")
    assert (code, "page-off" in err) == (2, True)


@pytest.mark.parametrize("words", [("--role", "care"), ("--role", "care", "--as", " "), ("--as", "x\x07y")])
def test_who_decides_has_a_name(fresh: NodeHome, shell: Shell, words: tuple[str, ...]) -> None:
    code, _, err = shell(fresh, "page", *words)
    assert (code, "reviewer-unnamed" in err) == (2, True)


def test_the_report_is_written_for_its_owner_alone(home: NodeHome, shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    found = as_json(shell(home, "report", RUN, "--out", str(out), "--json"))
    assert found["report"] == str(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert hospital_report(Views(home, lambda: 0.0), RUN).splitlines()[:4] == out.read_text().splitlines()[:4]


def test_a_report_says_that_its_patients_or_consents_are_made_up(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    for synthetic in (True, False):
        for fictional in (True, False):
            monkeypatch.setattr(Views, "synthetic", lambda _self, told=synthetic: told)
            monkeypatch.setattr(Views, "consents", lambda _self, told=fictional: {"fictional": told})
            text = hospital_report(Views(home, lambda: 0.0), RUN)
            assert ("Synthetic patients." in text, "Fictional consents." in text) == (synthetic, fictional)
    monkeypatch.undo()
    assert "Synthetic patients." in hospital_report(Views(home, lambda: 0.0), RUN), "the mapping says so"


@pytest.mark.parametrize("run", ["none", "../r1", ".", "a/b", "x" * 300])
def test_a_report_of_a_run_that_is_not_there(home: NodeHome, shell: Shell, run: str) -> None:
    code, _, err = shell(home, "report", run)
    assert (code, "model-missing" in err) == (2, True)


def test_the_data_are_described_by_a_process_beside(home: NodeHome) -> None:
    code, out, err = describe_source(home)
    assert code == 0, err
    assert int(json.loads(out)["quality"]["patients"]) > 100


def test_a_look_that_says_nonsense_has_failed() -> None:
    look = QualityLook(lambda: (0, "no json", ""))
    look._look()
    assert look.seen().state == "failed"
    assert "JSONDecodeError" in look.seen().error
