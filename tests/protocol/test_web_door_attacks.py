"""What a web site in the same browser, or another account of the machine, may try on a page: over a real port."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Form, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry

from cameo_protocol.web.door import Door, allowed, serving
from cameo_protocol.web.headers import MOST_FORM
from cameo_protocol.web.links import LINK_SECONDS, Links, Visitor, make_link
from cameo_protocol.web.scrape import serve_metrics
from cameo_protocol.web.sessions import IDLE_SECONDS, Sessions

WHO = Visitor("A. Officer", "officer")


@dataclass
class Site:
    """A page that takes one form, and what has come in by it. now: the page's clock."""

    port: int
    links: Links
    taken: list[str]
    now: list[float]

    def link(self, made: float | None = None) -> str:
        return make_link(self.links.key, WHO, self.now[0] if made is None else made, os.urandom(16))

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        """One request as it is given, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        own = f"localhost:{self.port}"
        base = {"Host": own, "Origin": f"http://{own}"} if method == "POST" else {"Host": own}
        for name, value in (base | {name.replace("_", "-"): value for name, value in headers.items()}).items():
            if value:
                connection.putheader(name, value)
        if method == "POST" and "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered already
            connection.send(body)
        return connection.getresponse()

    def cookie(self) -> str:
        answer = self.ask("GET", f"/login?link={self.link()}")
        assert answer.status == 303
        return (answer.getheader("set-cookie") or "").partition(";")[0]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    for name, text in (("login.html", "log in"), ("error.html", "{{ status }} {{ what }}")):
        (tmp_path / name).write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, now, taken = listener.getsockname()[1], [time.time()], []
        links = Links(os.urandom(32), lambda: now[0], now[0])
        sessions = Sessions(os.urandom, lambda: now[0])
        door = Door(links=links, sessions=sessions, port=port, start="/secret", templates=tmp_path, tabs=())
        app, _ = door.open()
        _add(app, taken)
        with serving(app, listener, "attacked"):
            yield Site(port, links, taken, now)


def _add(app: FastAPI, taken: list[str]) -> None:
    @app.get("/secret", dependencies=[Depends(allowed("officer"))])
    def secret() -> Response:
        return PlainTextResponse("91 patients")

    @app.post("/form", dependencies=[Depends(allowed("officer"))])
    def form(text: Annotated[str, Form()]) -> Response:
        taken.append(text)
        return PlainTextResponse("taken")


FORM = {"Content_Type": "application/x-www-form-urlencoded"}
FILES = {"Content_Type": "multipart/form-data; boundary=b"}


def _upload(size: int) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="text"; filename="x"\r\n\r\n'
    return head + b"a" * size + b"\r\n--b--\r\n"


def test_a_long_form_is_refused_before_it_is_read(site: Site) -> None:
    cookie = site.cookie()
    assert site.ask("POST", "/form", b"text=yes", Cookie=cookie, **FORM).status == 200
    for kind, body in ((FORM, b"text=" + b"a" * MOST_FORM), (FILES, _upload(MOST_FORM))):
        assert site.ask("POST", "/form", body, **kind).status == 413, "nobody is logged in"
        assert site.ask("POST", "/form", body, Cookie=cookie, **kind).status == 413
        # The answer comes to the headers alone: not one byte of the body is waited for.
        assert site.ask("POST", "/form", Content_Length=str(1 << 40), **kind).status == 413
        assert site.ask("POST", "/form", body, Content_Length=f"{len(body):025}", **kind).status == 413
        chunk = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        assert site.ask("POST", "/form", chunk, Transfer_Encoding="chunked", **kind).status == 413
    assert site.taken == ["yes"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example:{port}"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Host": "localhost:1"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 421),
        ({"Origin": ""}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "https://localhost:{port}"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 403),
        ({"Origin": "http://localhost:{port}.evil.example"}, 403),
        ({"Cookie": ""}, 401),
    ],
)
def test_a_form_from_elsewhere_is_not_taken(site: Site, headers: dict[str, str], status: int) -> None:
    named = {name: value.format(port=site.port) for name, value in headers.items()}
    answer = site.ask("POST", "/form", b"text=no", **({"Cookie": site.cookie()} | FORM | named))
    assert site.taken == []
    if answer.status != 400:  # what some HTTP parsers say to no Host at all
        assert answer.status == status
        assert answer.getheader("x-frame-options") == "DENY"
        assert "frame-ancestors 'none'" in (answer.getheader("content-security-policy") or "")
    assert b"91 patients" not in answer.read()


def test_one_link_opens_one_session_however_many_use_it_at_once(site: Site) -> None:
    for _ in range(5):
        code = site.link()
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: site.ask("GET", f"/login?link={code}").status, range(12)))  # noqa: B023
        assert sorted(answers) == [303] + [401] * 11


def test_a_link_that_is_spelt_in_another_way_is_the_same_link(site: Site) -> None:
    code = site.link()
    assert site.ask("GET", f"/login?link={code}").status == 303
    for again in (code, code + "=", code + "%3D%3D", "%20" + code, code[:9] + "%C3%A9" + code[9:], code + "%00"):
        assert site.ask("GET", f"/login?link={again}").status == 401


@pytest.mark.parametrize("away", [-LINK_SECONDS - 2, -10 * LINK_SECONDS, 60])
def test_a_link_of_another_time_opens_nothing(site: Site, away: float) -> None:
    site.links.started -= 10**6
    assert site.ask("GET", f"/login?link={site.link(site.now[0] + away)}").status == 401


def test_a_session_is_not_longer_because_the_clock_was_set_back(site: Site) -> None:
    cookie = site.cookie()
    assert site.ask("GET", "/secret", Cookie=cookie).status == 200
    site.now[0] -= 2  # as time servers do
    assert site.ask("GET", "/secret", Cookie=cookie).status == 200
    site.now[0] -= 30 * 24 * 3600
    assert site.ask("GET", "/secret", Cookie=cookie).status == 401
    site.now[0] += 30 * 24 * 3600 + IDLE_SECONDS - 60
    assert site.ask("GET", "/secret", Cookie=cookie).status == 401, "what has ended does not come back"


def test_a_session_that_somebody_else_chose_is_none(site: Site) -> None:
    name = site.cookie().partition("=")[0]
    for value in ("", "0" * 64, "x", "a" * 4000):
        assert site.ask("GET", "/secret", Cookie=f"{name}={value}").status == 401
    fresh = site.ask("GET", f"/login?link={site.link()}", Cookie=f"{name}={'0' * 64}")
    given = fresh.getheader("set-cookie") or ""
    assert "0" * 64 not in given
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in given.split(";")}
    assert "Domain" not in given


def test_log_in_leads_to_the_pages_own_start_only(site: Site) -> None:
    for extra in ("&next=//evil.example", "&start=http://evil.example", "&link=x"):
        answer = site.ask("GET", f"/login?link={site.link()}{extra}")
        assert answer.getheader("location") in (None, "/secret")
    for path in ("//evil.example", "/%2f%2fevil.example", "/\\evil.example", "//evil.example/login"):
        assert "evil" not in (site.ask("GET", path).getheader("location") or "")


def test_files_beside_the_static_ones_are_not_given_away(site: Site) -> None:
    for path in (
        "/static/../door.py", "/static/..%2fdoor.py", "/static/%2e%2e/door.py", "/static/%2e%2e%2fdoor.py",
        "/static/..%5cdoor.py", "/static//etc/passwd", "/static/", "/static",
    ):  # fmt: skip
        answer = site.ask("GET", path)
        assert answer.status in (307, 404), path
        assert b"own_host" not in answer.read()


def test_who_connects_to_the_metrics_and_says_nothing_holds_nobody_up(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.monotonic()
    with serve_metrics(CollectorRegistry(), port):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        idle[0].sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        idle.pop().close()
    assert time.monotonic() - begun < 5, "nor does the end wait for them"
    for each in idle:
        each.close()
    assert "Traceback" not in "".join(capfd.readouterr())
