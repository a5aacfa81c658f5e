"""A coordinator for the agent's tests: real TLS and Flower's protocol, but it answers as the test wants."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from flwr.app import Message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from cameo_client.flower.records import to_record
from cameo_lab.bench.local import LocalTls, free_port, make_local_tls
from cameo_protocol.packet import Packet

NODE = 7
Reply = tuple[int, dict[str, str], bytes]
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def request(packet: Packet, message_type: str = "query", node: int = NODE) -> Message:
    message = Message(to_record(packet), node, message_type, ttl=60)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


@dataclass
class Coordinator:
    """override: path -> what to answer instead; it may return None to answer as usual."""

    folder: Path
    tls: LocalTls = field(init=False)
    port: int = field(default_factory=free_port)
    override: dict[str, Callable[[bytes], Reply | None]] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    waiting: list[Message] = field(default_factory=list)
    pushed: list[Message] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    trees: list[tuple[Message, ObjectTree]] = field(default_factory=list)
    _objects: dict[str, bytes] = field(default_factory=dict)
    _came: dict[str, bytes] = field(default_factory=dict)
    _expected: list[str] = field(default_factory=list)
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.tls = make_local_tls(self.folder)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=self.port, log_config=None, lifespan="off", interface="asgi3", ws="none",
            ssl_certfile=str(self.tls.certificate), ssl_keyfile=str(self.tls.key), timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = None

    async def _app(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        path = scope["path"].removeprefix("/v1/fleet/")
        self.paths.append(path)
        status, headers, answer = (self.override.get(path, lambda _: None)(body)) or self._usual(path, body)
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": answer})

    def _usual(self, path: str, body: bytes) -> Reply:
        answer = {
            "activate-node": lambda: ActivateNodeResponse(node_id=NODE).SerializeToString(),
            "send-node-heartbeat": lambda: SendNodeHeartbeatResponse(success=True).SerializeToString(),
            "pull-messages": self._pull,
            "pull-object": lambda: self._pull_object(PullObjectRequest.FromString(body)),
            "push-messages": lambda: self._push(PushMessagesRequest.FromString(body)),
            "push-object": lambda: self._push_object(PushObjectRequest.FromString(body)),
        }.get(path, lambda: b"")()
        return 200, {"content-type": "application/x-protobuf"}, answer

    def _pull(self) -> bytes:
        if self.trees:
            head, tree = self.trees.pop(0)
            return _pulled(head, tree)
        if not self.waiting:
            return b""
        message = self.waiting.pop(0)
        self._objects = {i: o.deflate() for i, o in get_all_nested_objects(message).items()}
        return _pulled(message, get_object_tree(message))

    def _pull_object(self, asked: PullObjectRequest) -> bytes:
        content = self._objects.get(asked.object_id, b"")
        return PullObjectResponse(object_found=True, object_available=True, object_content=content).SerializeToString()

    def _push(self, pushed: PushMessagesRequest) -> bytes:
        assert len(pushed.clientapp_runtime_list) == 0, "how long it took would tell of the data"
        self._expected = [t.object_id for t in iterate_object_tree(pushed.message_object_trees[0])]
        return PushMessagesResponse(objects_to_push=self._expected, session_id="s").SerializeToString()

    def _push_object(self, pushed: PushObjectRequest) -> bytes:
        self.raw.append(pushed.object_content)
        self._came[pushed.object_id] = pushed.object_content
        if set(self._came) >= set(self._expected):
            self.pushed.append(inflate_object_from_contents(self._expected[-1], self._came))
            self._came = {}
        return PushObjectResponse(stored=True).SerializeToString()


def _pulled(head: Message, tree: ObjectTree) -> bytes:
    from flwr.app.message import remove_content_from_message

    proto = message_to_proto(remove_content_from_message(head))
    return PullMessagesResponse(messages_list=[proto], message_object_trees=[tree]).SerializeToString()
