"""The gate: which of Flower's routes a hospital can reach, how much it may send, and who may use the rest.

Flower's Control and Runtime APIs have no user authentication, so they are never served on a public address.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What the agent calls. Registering and bundles are left out: a hospital runs only what it installed.
FLEET_PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
# Flower's chunks are 5 MiB; a message above this is refused before it is read.
MAX_BODY_BYTES = 8 << 20
CONTROL_PREFIX = "/v1/control/"
CONTROL_HEADER = "x-cameo-control"
HEALTH_PATH = "/health"


async def answer(send: Send, status: int) -> None:
    """An empty HTTP response."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class _TooLong(Exception):
    """A body without (or with a false) length went over the limit while it was read."""


class FleetGate:
    """The public side: answers POST on `FLEET_PATHS`, 404 to everything else, 413 to a body above `MAX_BODY_BYTES`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # uvicorn closes a websocket nobody accepts with 403; lifespan is off on this side
        if scope["method"] != "POST" or scope["path"] not in FLEET_PATHS:
            await answer(send, 404)
            return
        if _declared_length(scope) > MAX_BODY_BYTES:
            await answer(send, 413)
            return
        try:
            await self._app(scope, _bounded(receive), send)
        except _TooLong:
            await answer(send, 413)


def _declared_length(scope: Scope) -> int:
    """The Content-Length header; 0 without one, over the limit when it is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else MAX_BODY_BYTES + 1
    return 0


def _bounded(receive: Receive) -> Receive:
    """`receive`, until more than `MAX_BODY_BYTES` came."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise _TooLong
        return message

    return bounded


class LocalGate:
    """The loopback side: every route, but the Control API only with the token in `CONTROL_HEADER`, else 401.

    Other users of this machine can open a loopback port too; the token lies in a file that only its owner reads.
    `ready` says whether both servers answer; until then /health is 503.
    """

    def __init__(self, app: ASGIApp, token: str, ready: Callable[[], bool]) -> None:
        self._app, self._token, self._ready = app, token.encode(), ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == HEALTH_PATH:
            await answer(send, 200 if self._ready() else 503)
        elif scope["path"].startswith(CONTROL_PREFIX) and not self._allowed(scope):
            await answer(send, 401)
        else:
            await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == CONTROL_HEADER.encode()]
        return len(given) == 1 and hmac.compare_digest(given[0], self._token)
