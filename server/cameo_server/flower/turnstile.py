"""Flower's app, entered by one request at a time, whole in memory; and bells that end a wait for messages.

Why one at a time: every request writes to SQLite, which has one writer; requests that meet there sleep and try again.
Reading a request before it enters also keeps a slow or hostile sender from holding a place inside.

Why bells: a hospital asks for messages all the time. Its request waits here until a message with all its objects is
there, instead of coming back every few milliseconds. Nothing depends on a bell: a wait that ends early or late only
asks Flower again.

Measured with four hospitals on two busy cores, medians of an exchange: 0.85 s with neither, 0.46 s with bells,
0.34 s with both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Scope

_MAX_SESSIONS = 1024


class Answer(NamedTuple):
    """A whole HTTP response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Turnstile:
    """Calls an ASGI app with whole requests, one after the other, in the order they came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turn = asyncio.Lock()

    async def enter(self, scope: Scope, body: bytes) -> Answer:
        """The app's answer to one request. What the app raises comes out here."""
        pieces: list[bytes] = []
        start: dict[str, object] = {}
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:  # the app listens for the end of the connection; that is the caller's business
                await asyncio.Event().wait()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                pieces.append(message.get("body", b""))

        async with self._turn:
            await self._app({**scope, "state": dict(scope.get("state", {}))}, receive, send)
        return Answer(int(start["status"]), list(start.get("headers", [])), b"".join(pieces))  # type: ignore[call-overload]


@dataclass
class _Session:
    """Messages on their way: who gets them, and which of their objects are still to come."""

    nodes: frozenset[int]
    missing: set[str]


@dataclass
class Bells:
    """Rings for a node when a message for it has come with all its objects. The ServerApp is `SUPERLINK_NODE_ID`."""

    closed: bool = False
    _bells: dict[int, set[asyncio.Event]] = field(default_factory=dict)
    _sessions: dict[str, _Session] = field(default_factory=dict)

    @contextmanager
    def listen(self, node: int) -> Iterator[asyncio.Event]:
        """An event that is set by the next ring for a node. Earlier rings do not count."""
        bell = asyncio.Event()
        self._bells.setdefault(node, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[node].discard(bell)
            if not self._bells[node]:
                del self._bells[node]

    def ring(self, nodes: frozenset[int]) -> None:
        """Wake whoever listens for these nodes."""
        for node in nodes:
            for bell in self._bells.get(node, ()):
                bell.set()

    def close(self) -> None:
        """Wake everybody for the last time: the process is ending."""
        self.closed = True
        self.ring(frozenset(self._bells))

    def heard(self, path: str, body: bytes, answer: Answer) -> None:
        """Note what a successful request did: messages pushed, or one of their objects."""
        if answer.status != 200:
            return
        try:
            if path == "/v1/runtime/push-messages":
                pushed = PushAppMessagesRequest.FromString(body)
                nodes = frozenset(message.metadata.dst_node_id for message in pushed.messages_list)
                reply = PushAppMessagesResponse.FromString(answer.body)
                self._pushed(reply.session_id, nodes, set(reply.objects_to_push))
            elif path == "/v1/fleet/push-messages":
                done = PushMessagesResponse.FromString(answer.body)
                self._pushed(done.session_id, frozenset({SUPERLINK_NODE_ID}), set(done.objects_to_push))
            elif path.endswith("/push-object"):
                came = PushObjectRequest.FromString(body)
                self._came(came.session_id, came.object_id)
        except DecodeError:
            return

    def _pushed(self, session: str, nodes: frozenset[int], missing: set[str]) -> None:
        if not missing:
            self.ring(nodes)
            return
        while len(self._sessions) >= _MAX_SESSIONS:  # senders that never finished; the oldest go
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = _Session(nodes, missing)

    def _came(self, session: str, object_id: str) -> None:
        known = self._sessions.get(session)
        if known is None:
            return
        known.missing.discard(object_id)
        if not known.missing:
            del self._sessions[session]
            self.ring(known.nodes)


def fleet_node(body: bytes) -> int:
    """Which node a Fleet pull is for; 0 when the body does not say."""
    try:
        return int(PullMessagesRequest.FromString(body).node.node_id)
    except DecodeError:
        return 0
