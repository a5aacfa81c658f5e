"""Made-up requests to the dashboard: never a server error, whoever sends them."""

from __future__ import annotations

import time

import pytest

from cameo_protocol.web.links import Links
from cameo_protocol.web.sessions import Sessions
from cameo_server.api.services import Coordinator
from cameo_server.dashboard.app import Dashboard, create
from web_fuzz import fuzz

from .conftest import Page


@pytest.mark.parametrize("role", ["coordinator", None])
def test_no_request_is_a_server_error(page: Page, role: str | None) -> None:
    app = create(Dashboard(Coordinator(page.home), Links(b"", time.time, 0.0), Sessions(bytes, time.time), 1))
    with page.client(role) as client:
        seen = fuzz(app, client)
    assert sum(seen.values()) > 40
    assert seen[404 if role else 303] > 0
