"""What `cameo coordinator` says of its ports and its links."""

from __future__ import annotations

import json

import pytest

from cameo_server import launch
from cameo_server.cli import coordinator
from cameo_server.home import write_file

from .conftest import Api


def test_a_link_to_the_page_says_how_long_it_is_good(stopped_api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    home = stopped_api.home
    with launch._only_one(home):
        write_file(home.flower / launch.STATE, b"{}")
        coordinator.page("auditor", home=home.root, as_json=True)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["url"].startswith("http://localhost:")
    assert "once, on this machine, for ten minutes" in shown.err


def test_the_help_names_every_open_port() -> None:
    text = coordinator.start.__doc__ or ""
    assert all(f"{port} port" in text for port in ("fleet", "operator", "join"))
    assert "everything else" not in text
