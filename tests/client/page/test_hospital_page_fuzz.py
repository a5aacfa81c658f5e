"""Made-up requests to the hospital's page: never a server error, whoever sends them."""

from __future__ import annotations

import pytest

from web_fuzz import fuzz

from .conftest import Served


@pytest.mark.parametrize("role", ["care", None])
def test_no_request_is_a_server_error(page: Served, role: str | None) -> None:
    with page.client(role) as client:
        seen = fuzz(page.app, client)
    assert sum(seen.values()) > 40
    assert seen[200 if role else 303] > 0
    assert not role or seen[422] > 0, "bad forms were among them"
