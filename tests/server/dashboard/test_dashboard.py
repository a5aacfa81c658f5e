"""The dashboard over HTTP: who gets in, what each role may do, what is refused."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cameo_lab.bench.local import free_port
from cameo_server.api.services import Coordinator
from cameo_server.audit import open_audit
from cameo_server.dashboard.server import serve_dashboard
from cameo_server.home import CoordinatorHome
from cameo_server.membership import init_coordinator
from cameo_server.run.store import RunStore

from .conftest import HOSTILE, ROLES, Page

# path -> status by role; None = nobody is logged in (a reader is sent to the log-in page).
GET = {
    "/": (303, 303, 303, 303),
    "/runs": (200, 200, 200, 303),
    "/runs/table": (200, 200, 200, 303),
    "/runs/r1": (200, 200, 200, 303),
    "/runs/r1/panel": (200, 200, 200, 303),
    "/runs/r1/points": (200, 200, 200, 303),
    "/runs/r1/report": (404, 404, 404, 303),
    "/runs/none": (404, 404, 404, 303),
    "/runs/..%2f..%2fetc": (404, 404, 404, 404),
    "/sites": (200, 200, 200, 303),
    "/sites/table": (200, 200, 200, 303),
    "/login": (200, 200, 200, 200),
    "/static/cameo.css": (200, 200, 200, 200),
    "/docs": (404, 404, 404, 404),
    "/openapi.json": (404, 404, 404, 404),
}
POST = {
    "/runs/r1/stop": (303, 303, 403, 401),
    "/sites/nobody/approve": (409, 403, 403, 401),
    "/sites/nobody/revoke": (409, 403, 403, 401),
    "/logout": (303, 303, 303, 303),
}
WHO = (*ROLES, None)


@pytest.mark.parametrize(("place", "role"), list(enumerate(WHO)))
def test_every_role_on_every_page(page: Page, place: int, role: str | None) -> None:
    with page.client(role) as client:
        for path, expected in GET.items():
            assert client.get(path).status_code == expected[place], (path, role)
        for path, expected in POST.items():
            answer = client.post(path, data={"fingerprint": "x"})
            assert answer.status_code == expected[place], (path, role)


def test_the_matrix_has_every_route(page: Page) -> None:
    from cameo_protocol.web.links import Links
    from cameo_protocol.web.sessions import Sessions
    from cameo_server.api.services import Coordinator
    from cameo_server.dashboard.app import Dashboard, create

    app = create(Dashboard(Coordinator(page.home), Links(b"", time.time, 0.0), Sessions(bytes, time.time), 1))
    routes = {(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()}
    tried = {("GET", path) for path in GET} | {("POST", path) for path in POST}
    named = {(m, p.replace("r1", "{run}").replace("nobody", "{name}")) for m, p in tried}
    assert {(m, p) for m, p in routes if m != "HEAD"} <= named


def test_a_link_works_once(page: Page) -> None:
    link = page.link()
    with httpx.Client(trust_env=False) as first, httpx.Client(trust_env=False) as second:
        assert first.get(link).status_code == 303
        assert second.get(link).status_code == 401


@pytest.mark.parametrize("age", [700.0, -60.0])
def test_an_old_link_and_one_from_the_future_are_refused(page: Page, age: float) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.get(page.link(made=time.time() - age)).status_code == 401


@pytest.mark.parametrize("link", ["x", "A" * 5000, "%00", "=", "é"])
def test_garbage_is_no_link(page: Page, link: str) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{page.url}/login", params={"link": link}).status_code == 401


def test_another_host_name_is_not_answered(page: Page) -> None:
    with page.client() as client:
        assert client.get("/runs", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
def test_a_form_of_another_page_changes_nothing(page: Page, origin: str) -> None:
    with page.client() as client:
        assert client.post("/runs/r1/stop", headers={"Origin": origin}).status_code == 403
    assert not RunStore(page.home.runs / "r1").stop_asked()


def test_every_answer_has_the_strict_policy(page: Page) -> None:
    with page.client() as client:
        for path in GET:
            policy = client.get(path).headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy


def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_others(page: Page) -> None:
    with httpx.Client(trust_env=False) as client:
        cookie = client.get(page.link()).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_name_with_markup_stays_text(page: Page) -> None:
    with page.client() as client:
        text = client.get("/sites").text
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_stopping_leaves_word_for_the_run(page: Page) -> None:
    with page.client("researcher") as client:
        client.post("/runs/r1/stop")
    assert RunStore(page.home.runs / "r1").stop_asked()
    with open_audit(page.home) as log:
        last = [entry for entry, _ in log.entries()][-1]
    assert (last.kind, last.who, last.about) == ("run-stop-asked", "researcher", "r1")


def test_a_report_is_shown_where_there_is_one(page: Page) -> None:
    (page.home.runs / "r1" / "report.html").write_text("<h1>it</h1>")
    with page.client("auditor") as client:
        assert "/runs/r1/report" in client.get("/runs/r1").text
        answer = client.get("/runs/r1/report")
    assert (answer.status_code, answer.text) == (200, "<h1>it</h1>")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script" not in policy


def test_log_out_ends_the_session(page: Page) -> None:
    with page.client() as client:
        kept = dict(client.cookies)
        client.post("/logout")
        assert client.get("/runs", cookies=kept).status_code == 303


def test_pages_are_light(page: Page) -> None:
    with page.client() as client:
        paths = ["/runs/r1", *(f"/static/{n}" for n in ("cameo.css", "live.js", "htmx.min.js", "uPlot.iife.min.js"))]
        assert sum(len(client.get(path).content) for path in paths) < 150_000


def test_two_pages_on_one_machine_keep_their_sessions_apart(page: Page, tmp_path: Path) -> None:
    """A browser sends the cookies of localhost to every port: the coordinator's page and a hospital's are two."""
    home, port = CoordinatorHome(tmp_path / "other"), free_port()
    init_coordinator(home, federation="other", host="localhost", fleet_port=9092, page_port=port, now=datetime.now(UTC))
    other = Page(home, port)
    with serve_dashboard(Coordinator(home)), page.client() as client:
        assert client.get(other.link()).status_code == 303
        assert [client.get(f"{one.url}/runs").status_code for one in (page, other)] == [200, 200]
        assert client.post(f"{other.url}/logout", headers={"Origin": other.url}).status_code == 303
        assert [client.get(f"{one.url}/runs").status_code for one in (page, other)] == [200, 303]
