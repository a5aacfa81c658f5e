"""The gate: which of Flower's routes a hospital can reach, how much it may send, and who may use the rest.

Flower's Control and Runtime APIs have no user authentication, so they are never served on a public address.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable

from flwr.common.constant import SUPERLINK_NODE_ID
from starlette.types import ASGIApp, Receive, Scope, Send

from cameo_server.flower.turnstile import Answer, Bells, Turnstile, fleet_node

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
FLEET_PULL, RUNTIME_PULL = "/v1/fleet/pull-messages", "/v1/runtime/pull-messages"
# Flower's chunks are 5 MiB; a body above this is refused before it is read.
MAX_BODY_BYTES = 8 << 20
# So many bodies above the small size are read at once, whoever sends them, each for so many seconds at most.
SMALL_BYTES = 1 << 16
LARGE_AT_ONCE, BODY_S = 32, 120.0
# Of these, so many for one address: who sends slowly on purpose does not keep the other hospitals out.
LARGE_EACH = 16
CONTROL_PREFIX, STREAM_PREFIX = "/v1/control/", "/v1/control/stream-"
CONTROL_HEADER = "x-cameo-control"
HOLD_HEADER = "x-cameo-hold"
_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,6})?")
HEALTH_PATH = "/health"
# How long a request for messages may wait: an agent that is told to stop notices only then, and the ServerApp has
# deadlines to watch.
FLEET_HOLD_S, RUNTIME_HOLD_S = 2.0, 0.5


class _Refused(Exception):
    """A request that gets a bare status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def _bare(status: int) -> Answer:
    return Answer(status, [(b"content-length", b"0")], b"")


class _Places:
    """Places for large bodies, of which no address gets all."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(LARGE_AT_ONCE)
        self._each: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def take(self, scope: Scope) -> AsyncIterator[None]:
        """Wait for a place for whoever sends a request, and hold it."""
        address = str((scope.get("client") or ("",))[0])
        own = self._each.setdefault(address, asyncio.Semaphore(LARGE_EACH))
        self._users[address] += 1
        try:
            async with own, self._all:
                yield
        finally:
            self._users[address] -= 1
            if not self._users[address]:
                del self._users[address], self._each[address]


async def _read(scope: Scope, receive: Receive, limit: int, large: _Places) -> bytes:
    """The whole body. 413 above the limit, before reading where the length is declared; 408 when it takes too long."""
    declared = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            declared = int(value) if value.isdigit() and len(value) < 12 else limit + 1
    if declared is not None and declared > limit:
        raise _Refused(413)
    try:
        async with asyncio.timeout(BODY_S):
            if declared is not None and declared <= SMALL_BYTES:
                return await _receive(receive, limit)
            async with large.take(scope):
                return await _receive(receive, limit)
    except TimeoutError:
        raise _Refused(408) from None


async def _receive(receive: Receive, limit: int) -> bytes:
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(400)
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _Refused(413)
        more = message.get("more_body", False)
    return b"".join(pieces)


def _hold(scope: Scope) -> float:
    """How long the ServerApp lets its question wait, in seconds: `HOLD_HEADER`, else 0; at most the limit."""
    for name, value in scope["headers"]:
        if name == HOLD_HEADER.encode() and _SECONDS.fullmatch(value):
            return min(float(value), RUNTIME_HOLD_S)
    return 0.0


class _Gate:
    """What both sides share: read, enter, ring, and hold a request for messages while there are none."""

    def __init__(self, flower: Turnstile, bells: Bells) -> None:
        self._flower, self._bells = flower, bells
        self._large = _Places()

    async def _enter(self, scope: Scope, body: bytes) -> Answer:
        answer = await self._flower.enter(scope, body)
        self._bells.heard(scope["path"], body, answer)
        return answer

    async def _pull(self, scope: Scope, body: bytes, receive: Receive, node: int, hold_s: float) -> Answer:
        """Flower's answer, or its first one after a ring within the hold time. An empty body means no messages."""
        loop = asyncio.get_running_loop()
        end = loop.time() + hold_s
        gone = asyncio.ensure_future(receive())  # resolves when the caller hangs up
        try:
            while True:
                with self._bells.listen(node) as bell:  # before we look, so that no ring falls between
                    answer = await self._enter(scope, body)
                    left = end - loop.time()
                    if answer.status != 200 or answer.body or left <= 0 or self._bells.closed:
                        return answer
                    rung = asyncio.ensure_future(bell.wait())
                    await asyncio.wait((rung, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    rung.cancel()
                    if gone.done() or not bell.is_set():
                        return answer
        finally:
            gone.cancel()


class FleetGate(_Gate):
    """The public side: answers POST on `FLEET_PATHS`, 404 to everything else, 413 to a body above `MAX_BODY_BYTES`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websockets and no lifespan on this side
        try:
            if scope["method"] != "POST" or scope["path"] not in FLEET_PATHS:
                raise _Refused(404)
            body = await _read(scope, receive, MAX_BODY_BYTES, self._large)
            if scope["path"] == FLEET_PULL:
                answer = await self._pull(scope, body, receive, fleet_node(body), FLEET_HOLD_S)
            else:
                answer = await self._enter(scope, body)
        except _Refused as refused:
            answer = _bare(refused.status)
        await _send(send, answer)


class LocalGate(_Gate):
    """The loopback side: every route, but the Control API only with the token in `CONTROL_HEADER`, else 401.

    Other users of this machine can open a loopback port too; the token lies in a file that only its owner reads.
    `ready` says whether both servers answer; until then /health is 503.
    """

    def __init__(self, flower: Turnstile, bells: Bells, app: ASGIApp, token: str, ready: Callable[[], bool]) -> None:
        super().__init__(flower, bells)
        self._app, self._token, self._ready = app, token.encode(), ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path == HEALTH_PATH:
            answer = _bare(200 if self._ready() else 503)
        elif path.startswith(CONTROL_PREFIX) and not self._allowed(scope):
            answer = _bare(401)
        elif path.startswith(STREAM_PREFIX):  # stays open: it must not keep others out
            await self._app(scope, receive, send)
            return
        else:
            try:
                body = await _read(scope, receive, 8 * MAX_BODY_BYTES, self._large)
                if path == RUNTIME_PULL:
                    answer = await self._pull(scope, body, receive, SUPERLINK_NODE_ID, _hold(scope))
                else:
                    answer = await self._enter(scope, body)
            except _Refused as refused:
                answer = _bare(refused.status)
        await _send(send, answer)

    def _allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == CONTROL_HEADER.encode()]
        return len(given) == 1 and hmac.compare_digest(given[0], self._token)
