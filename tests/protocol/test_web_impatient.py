"""Connections that say nothing, or too little, do not stay; those that are answered do."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from cameo_protocol.web import door
from cameo_protocol.web.door import serving
from cameo_protocol.web.impatient import impatient

WAIT_S = 1.0


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(door, "impatient", lambda: impatient(WAIT_S))
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> PlainTextResponse:
        await asyncio.sleep(2 * WAIT_S)
        return PlainTextResponse("late")

    @app.post("/form")
    async def form(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    with socket.create_server(("127.0.0.1", 0)) as listener, serving(app, listener, "impatient"):
        yield listener.getsockname()[1]


def _closed_after(way: socket.socket) -> float:
    """Seconds until the other side closes; at most ten."""
    way.settimeout(10)
    begun = time.monotonic()
    while way.recv(1 << 16):
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-More: "])
def test_who_does_not_say_what_he_wants_is_cut_off(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as way:
        way.sendall(said)
        assert _closed_after(way) < 3 * WAIT_S


def test_headers_a_byte_at_a_time_are_cut_off_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as way, pytest.raises(OSError):
        way.sendall(b"GET / HTTP/1.1\r\nX-More: ")
        for _ in range(50):
            way.sendall(b"a")
            time.sleep(WAIT_S / 10)


def test_the_second_request_of_a_connection_is_waited_for_no_longer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as way:
        way.sendall(b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        answer = b""
        while not answer.endswith(b"\r\n\r\n2"):
            answer += way.recv(1 << 16)
        way.sendall(b"POST /form HTTP/1.1\r\nHo")
        assert _closed_after(way) < 3 * WAIT_S


def test_a_slow_answer_and_a_slow_body_and_a_kept_connection_are_let_be(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/slow")
    assert connection.getresponse().read() == b"late"
    way = connection.sock
    time.sleep(WAIT_S / 2)
    connection.putrequest("POST", "/form")
    connection.putheader("Content-Length", "4")
    connection.endheaders(b"ab")
    time.sleep(2 * WAIT_S)
    connection.send(b"cd")
    assert connection.getresponse().read() == b"4"
    connection.request("GET", "/slow")
    assert connection.getresponse().read() == b"late"
    assert connection.sock is way, "all on one connection"
