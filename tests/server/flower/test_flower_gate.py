"""The gate alone: paths, sizes, token, bells, and one request at a time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse

from cameo_server.flower import gate, superlink
from cameo_server.flower.gate import FleetGate, LocalGate
from cameo_server.flower.turnstile import Answer, Bells, Turnstile

TOKEN = "7" * 64
Handler = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]


class App:
    """An ASGI app that notes what reaches it."""

    def __init__(self, handle: Handler | None = None) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.inside = self.most_inside = 0
        self._handle = handle

    async def __call__(self, scope, receive, send) -> None:
        body = (await receive())["body"]
        self.seen.append((scope["path"], body))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await asyncio.sleep(0)
        status, answer = await self._handle(scope["path"], body) if self._handle else (200, b"answer")
        self.inside -= 1
        await send({"type": "http.response.start", "status": status, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": answer})


async def call(
    target, path: str, body: bytes = b"", *, method: str = "POST", headers: dict[str, str] | None = None,
    chunks: list[bytes] | None = None, declare: bool = True, hang_up: float | None = None,
) -> tuple[int, bytes]:  # fmt: skip
    """One HTTP request to an ASGI app; status 0 when it sent nothing."""
    pieces = chunks if chunks is not None else [body]
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    if declare and "content-length" not in (headers or {}):
        pairs.append((b"content-length", str(sum(map(len, pieces))).encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    events = [{"type": "http.request", "body": p, "more_body": i + 1 < len(pieces)} for i, p in enumerate(pieces)]
    sent: list[dict] = []

    async def receive() -> dict:
        if events:
            return events.pop(0)
        await asyncio.sleep(3600 if hang_up is None else hang_up)
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    await target(scope, receive, send)
    return (sent[0]["status"], sent[1]["body"]) if sent else (0, b"")


def fleet(app: App) -> FleetGate:
    return FleetGate(Turnstile(app), Bells())


def local(app: App, ready: bool = True) -> LocalGate:
    return LocalGate(Turnstile(app), Bells(), app, TOKEN, lambda: ready)


def test_the_allowed_paths_are_passed_on_whole() -> None:
    async def go() -> None:
        app = App()
        for path in sorted(gate.FLEET_PATHS):
            assert await call(fleet(app), path, chunks=[b"a", b"b", b""]) == (200, b"answer")
        assert [body for _, body in app.seen] == [b"ab"] * len(gate.FLEET_PATHS)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/fleet/pull-messages"),
        ("HEAD", "/v1/fleet/pull-messages"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/unregister-node"),
        ("POST", "/v1/fleet/get-fab"),
        ("POST", "/v1/fleet/pull-messages/"),
        ("POST", "/v1/fleet//pull-messages"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/V1/fleet/pull-messages"),
        ("POST", "/v1/fleet/pull-messages\0"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("GET", "/health"),
        ("GET", "/docs"),
        ("GET", "/"),
        ("POST", ""),
    ],
)
def test_everything_else_is_404_and_reaches_nothing(method: str, path: str) -> None:
    app = App()
    assert asyncio.run(call(fleet(app), path, method=method)) == (404, b"")
    assert app.seen == []


def test_websockets_and_lifespan_are_not_for_the_public_side() -> None:
    async def go() -> None:
        app = App()
        for kind in ("websocket", "lifespan"):
            await fleet(app)({"type": kind, "path": "/v1/fleet/pull-messages"}, None, None)  # type: ignore[arg-type]
        assert app.seen == []

    asyncio.run(go())


@pytest.mark.parametrize(
    ("chunks", "headers"),
    [
        ([b""], {"content-length": str(gate.MAX_BODY_BYTES + 1)}),
        ([b""], {"content-length": "9" * 5000}),
        ([b""], {"content-length": "-1"}),
        ([b""], {"content-length": "1e9"}),
        ([bytes(1 << 20)] * 9, {"content-length": "5"}),
    ],
)
def test_a_long_or_lying_body_is_413_and_reaches_nothing(chunks, headers) -> None:
    app = App()
    assert asyncio.run(call(fleet(app), "/v1/fleet/push-object", chunks=chunks, headers=headers)) == (413, b"")
    assert app.seen == []


def test_a_long_body_of_no_declared_length_is_413() -> None:
    app = App()
    answer = asyncio.run(call(fleet(app), "/v1/fleet/push-object", chunks=[bytes(1 << 20)] * 9, declare=False))
    assert answer == (413, b"")
    assert app.seen == []


def test_a_body_that_never_ends_is_408(monkeypatch) -> None:
    monkeypatch.setattr(gate, "BODY_S", 0.05)

    async def go() -> None:
        app = App()

        async def never() -> dict:
            await asyncio.sleep(3600)
            return {}

        sent: list[dict] = []

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/fleet/push-object", "headers": []}
        await fleet(app)(scope, never, send)
        assert sent[0]["status"] == 408
        assert app.seen == []

    asyncio.run(go())


def test_who_sends_slowly_from_one_address_does_not_keep_the_others_out() -> None:
    async def go() -> None:
        target = fleet(App())
        statuses: list[int] = []

        async def one(address: str | None, body: asyncio.Event | None) -> None:
            async def receive() -> dict:
                if body is not None:
                    await body.wait()
                return {"type": "http.request", "body": b"x" * 70_000, "more_body": False}

            async def send(message: dict) -> None:
                statuses.extend([message["status"]] if "status" in message else [])

            client = {"client": (address, 1)} if address else {}
            scope = {"type": "http", "method": "POST", "path": "/v1/fleet/push-object", "headers": [], **client}
            await target(scope, receive, send)

        let_go = asyncio.Event()
        slow = [asyncio.ensure_future(one("192.0.2.66", let_go)) for _ in range(3 * gate.LARGE_AT_ONCE)]
        await asyncio.sleep(0.05)
        for address in ("192.0.2.1", "2001:db8::1", None):
            await asyncio.wait_for(one(address, None), 5)
        assert statuses == [200, 200, 200]
        let_go.set()
        await asyncio.gather(*slow)
        assert statuses == [200] * (3 + len(slow)), "they wait, and are not refused"
        assert not target._large._each, "nothing is kept of who has gone"

    asyncio.run(go())


def test_many_large_bodies_are_read_a_few_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(gate, "LARGE_AT_ONCE", 2)

    async def go() -> None:
        reading = most = 0
        target = fleet(App())

        async def one() -> None:
            async def receive() -> dict:
                nonlocal reading, most
                reading += 1
                most = max(most, reading)
                await asyncio.sleep(0.01)
                reading -= 1
                return {"type": "http.request", "body": b"x", "more_body": False}

            async def send(_: dict) -> None:
                return None

            await target(
                {"type": "http", "method": "POST", "path": "/v1/fleet/push-object", "headers": []}, receive, send
            )

        await asyncio.gather(*(one() for _ in range(10)))
        assert most == 2

    asyncio.run(go())


def test_the_control_api_is_for_who_holds_the_token() -> None:
    async def go() -> None:
        path = "/v1/control/start-run"
        for headers in ({}, {gate.CONTROL_HEADER: ""}, {gate.CONTROL_HEADER: TOKEN[:-1] + "8"}, {"cookie": TOKEN}):
            app = App()
            assert await call(local(app), path, headers=headers) == (401, b"")
            assert app.seen == []
        assert await call(local(App()), path, headers={gate.CONTROL_HEADER: TOKEN}) == (200, b"answer")
        assert await call(local(App()), "/v1/runtime/acquire-task") == (200, b"answer")
        app = App()
        assert (await call(local(app), "/v1/control/stream-logs"))[0] == 401
        assert (await call(local(app), "/v1/control/stream-logs", headers={gate.CONTROL_HEADER: TOKEN}))[0] == 200

    asyncio.run(go())


def test_health_is_whether_both_servers_answer() -> None:
    assert asyncio.run(call(local(App(), ready=False), "/health", method="GET"))[0] == 503
    assert asyncio.run(call(local(App(), ready=True), "/health", method="GET"))[0] == 200


def test_one_request_at_a_time_from_both_sides() -> None:
    async def go() -> None:
        app = App()
        flower, bells = Turnstile(app), Bells()
        public, inner = FleetGate(flower, bells), LocalGate(flower, bells, app, TOKEN, lambda: True)
        calls = [call(public, "/v1/fleet/push-object") for _ in range(20)]
        calls += [call(inner, "/v1/runtime/push-object") for _ in range(20)]
        await asyncio.gather(*calls)
        assert len(app.seen) == 40
        assert app.most_inside == 1

    asyncio.run(go())


def test_an_app_that_fails_leaves_the_turnstile_open() -> None:
    async def go() -> None:
        async def fail(path: str, body: bytes) -> tuple[int, bytes]:
            if body == b"bad":
                raise RuntimeError
            return 200, b"fine"

        target = fleet(App(fail))
        with pytest.raises(RuntimeError):
            await call(target, "/v1/fleet/push-object", b"bad")
        assert await call(target, "/v1/fleet/push-object", b"good") == (200, b"fine")

    asyncio.run(go())


class Mail:
    """What Flower would do with messages for node 5, as far as the bells go."""

    def __init__(self) -> None:
        self.there: list[bytes] = []

    async def __call__(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path.endswith("pull-messages"):
            return 200, self.there.pop() if self.there else b""
        if path == "/v1/runtime/push-messages":
            answer = PushAppMessagesResponse(session_id="s", objects_to_push=["a", "b"])
            return 200, answer.SerializeToString()
        if path == "/v1/fleet/push-messages":
            self.there.append(b"reply")
            return 200, PushMessagesResponse(session_id="r", objects_to_push=[]).SerializeToString()
        if body == PUSH_B:
            self.there.append(b"message")
        return 200, b"stored"


PULL = PullMessagesRequest(node=Node(node_id=5)).SerializeToString()
PUSH = PushAppMessagesRequest(messages_list=[ProtoMessage(metadata=Metadata(dst_node_id=5))]).SerializeToString()
PUSH_A, PUSH_B = (PushObjectRequest(session_id="s", object_id=i).SerializeToString() for i in "ab")


def test_a_question_waits_for_a_message_with_all_its_objects() -> None:
    async def go() -> None:
        app = App(Mail())
        flower, bells = Turnstile(app), Bells()
        public, inner = FleetGate(flower, bells), LocalGate(flower, bells, app, TOKEN, lambda: True)
        question = asyncio.create_task(call(public, gate.FLEET_PULL, PULL))
        await asyncio.sleep(0.01)
        await call(inner, "/v1/runtime/push-messages", PUSH)
        await call(inner, "/v1/runtime/push-object", PUSH_A)
        await asyncio.sleep(0.01)
        assert not question.done(), "one object is missing"
        assert sum(path == gate.FLEET_PULL for path, _ in app.seen) == 1
        await call(inner, "/v1/runtime/push-object", PUSH_B)
        assert await asyncio.wait_for(question, 1) == (200, b"message")

    asyncio.run(go())


def test_a_question_for_another_node_is_not_disturbed(monkeypatch) -> None:
    monkeypatch.setattr(gate, "FLEET_HOLD_S", 0.1)

    async def go() -> None:
        app = App(Mail())
        flower, bells = Turnstile(app), Bells()
        public, inner = FleetGate(flower, bells), LocalGate(flower, bells, app, TOKEN, lambda: True)
        other = PullMessagesRequest(node=Node(node_id=6)).SerializeToString()
        question = asyncio.create_task(call(public, gate.FLEET_PULL, other))
        await asyncio.sleep(0.01)
        for path, body in (("push-messages", PUSH), ("push-object", PUSH_A), ("push-object", PUSH_B)):
            await call(inner, f"/v1/runtime/{path}", body)
        assert await question == (200, b"")
        assert sum(body == other for _, body in app.seen) == 1

    asyncio.run(go())


def test_the_server_app_waits_as_long_as_it_says() -> None:
    async def go() -> None:
        app = App(Mail())
        flower, bells = Turnstile(app), Bells()
        public, inner = FleetGate(flower, bells), LocalGate(flower, bells, app, TOKEN, lambda: True)
        clock = asyncio.get_running_loop().time
        for header, least, most in (({}, 0, 0.05), ({gate.HOLD_HEADER: "0.100"}, 0.09, 0.3)):
            began = clock()
            assert await call(inner, gate.RUNTIME_PULL, b"", headers=header) == (200, b"")
            assert least <= clock() - began <= most
        for value in ("nan", "inf", "-1", "1e9", "", "x", "9" * 40):
            assert gate._hold({"headers": [(gate.HOLD_HEADER.encode(), value.encode())]}) == 0.0
        assert gate._hold({"headers": [(gate.HOLD_HEADER.encode(), b"999")]}) == gate.RUNTIME_HOLD_S
        question = asyncio.create_task(call(inner, gate.RUNTIME_PULL, b"", headers={gate.HOLD_HEADER: "0.5"}))
        await asyncio.sleep(0.01)
        began = clock()
        answer = PushMessagesRequest(messages_list=[ProtoMessage()]).SerializeToString()
        await call(public, "/v1/fleet/push-messages", answer)
        assert await question == (200, b"reply")
        assert clock() - began < 0.3, "a reply without further objects rings at once"

    asyncio.run(go())


def test_a_caller_that_hangs_up_and_a_process_that_ends_are_not_kept_waiting() -> None:
    async def go() -> None:
        app = App(Mail())
        bells = Bells()
        public = FleetGate(Turnstile(app), bells)
        await asyncio.wait_for(call(public, gate.FLEET_PULL, PULL, hang_up=0.02), 1)
        question = asyncio.create_task(call(public, gate.FLEET_PULL, PULL))
        await asyncio.sleep(0.02)
        bells.close()
        assert await asyncio.wait_for(question, 1) == (200, b"")
        assert await asyncio.wait_for(call(public, gate.FLEET_PULL, PULL), 1) == (200, b"")
        assert bells._bells == {}, "nothing is remembered of who listened"

    asyncio.run(go())


def test_a_refusal_is_not_held() -> None:
    async def refuse(path: str, body: bytes) -> tuple[int, bytes]:
        return 401, b""

    assert asyncio.run(asyncio.wait_for(call(fleet(App(refuse)), gate.FLEET_PULL, PULL), 1)) == (401, b"")


def test_bells_do_not_grow_with_senders_that_never_finish() -> None:
    bells = Bells()
    for number in range(3000):
        reply = PushMessagesResponse(session_id=str(number), objects_to_push=["a"]).SerializeToString()
        bells.heard("/v1/fleet/push-messages", b"", Answer(200, [], reply))
    assert len(bells._sessions) == 1024
    for path in ("/v1/fleet/push-messages", "/v1/runtime/push-messages", "/v1/fleet/push-object"):
        bells.heard(path, b"\xff\xff", Answer(200, [], b"\xff\xff"))
        bells.heard(path, b"\xff\xff", Answer(403, [], b""))
    assert SUPERLINK_NODE_ID == 1


def test_both_listeners_cut_off_who_says_nothing() -> None:
    config = superlink._server(App()).config
    config.load()
    assert config.http_protocol_class.__name__ == "Impatient", "tests/protocol/test_web_impatient.py says what it does"
