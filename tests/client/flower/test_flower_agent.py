"""The agent against a coordinator that behaves, goes away, refuses, or attacks."""

import ast
import gzip
import inspect
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from coordinator_double import NODE, Coordinator, request
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from cameo_client.flower import agent as agent_module
from cameo_client.flower import fleet as fleet_module
from cameo_client.flower.agent import AgentState, Pace, run_agent
from cameo_client.flower.keys import generate_node_key
from cameo_client.flower.records import from_record
from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.packet import Packet

KEYS = generate_node_key()
QUICK = Pace(busy=0.01, idle=0.05, retry=0.02, retry_cap=0.1)
PACKET = Packet("upload", b"body", b"vector")


def eventually(what: Callable[[], object], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Running:
    """An agent in a thread."""

    def __init__(self, coordinator: Coordinator, handle=lambda p: p, node_id: int | None = None) -> None:
        self.stop = threading.Event()
        self.states: list[tuple[AgentState, int]] = []
        self.failure: list[BaseException] = []

        def serve() -> None:
            try:
                run_agent(
                    coordinator.address, coordinator.tls.ca.read_bytes(), KEYS, handle, self.stop,
                    lambda *state: self.states.append(state), node_id=node_id, pace=QUICK,
                )  # fmt: skip
            except BaseException as error:
                self.failure.append(error)

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()

    def is_in(self, state: AgentState) -> Callable[[], bool]:
        return lambda: bool(self.states) and self.states[-1][0] is state

    def end(self) -> None:
        self.stop.set()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def coordinator(tmp_path) -> Iterator[Coordinator]:
    coordinator = Coordinator(tmp_path / "tls")
    coordinator.start()
    yield coordinator
    coordinator.stop()


@pytest.fixture
def start(coordinator: Coordinator) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(handle=lambda p: p, **options) -> Running:
        started.append(Running(coordinator, handle, **options))
        return started[-1]

    yield start
    for agent in started:
        agent.end()


def test_it_answers_and_says_goodbye(coordinator: Coordinator, start) -> None:
    agent = start(lambda p: Packet("uploaded", p.body[::-1], p.vector))
    sent = request(PACKET)
    coordinator.waiting.append(sent)
    eventually(lambda: coordinator.pushed)
    reply = coordinator.pushed[0]
    assert from_record(reply.content) == Packet("uploaded", b"ydob", b"vector")
    assert reply.metadata.reply_to_message_id == sent.metadata.message_id
    agent.end()
    assert agent.states == [
        (AgentState.CONNECTING, 0),
        (AgentState.ONLINE, NODE),
        (AgentState.STOPPED, NODE),
    ]
    assert coordinator.paths[-1] == "deactivate-node"


def test_a_bundle_is_never_asked_for(coordinator: Coordinator, start) -> None:
    start()
    coordinator.waiting.append(request(PACKET))
    eventually(lambda: coordinator.pushed)
    assert set(coordinator.paths) <= {
        "activate-node", "pull-messages", "pull-object", "push-messages", "push-object", "confirm-message-received",
        "send-node-heartbeat",
    }  # fmt: skip
    for module in (agent_module, fleet_module):
        names = {n.attr for n in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(n, ast.Attribute)}
        assert not {name for name in names if "fab" in name.lower()}


def test_a_reply_expires_with_its_request_whatever_the_clock_here_says(coordinator: Coordinator, start) -> None:
    sent = request(PACKET)
    sent.metadata.created_at -= 3600.0 * 5  # as if this clock were five hours ahead
    sent.metadata.__dict__["_message_id"] = sent.object_id
    coordinator.waiting.append(sent)
    start()
    eventually(lambda: coordinator.pushed)
    meta = coordinator.pushed[0].metadata
    assert meta.created_at + meta.ttl == sent.metadata.created_at + sent.metadata.ttl


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Reject("plan-invalid", what="patient 4711"), "plan-invalid"),
        (OperatorError("budget-spent", what="patient 4711", do="patient 4711"), "budget-spent"),
        (ValueError("patient 4711"), "node-failed"),
        (ZeroDivisionError("patient 4711"), "node-failed"),
    ],
)
def test_an_error_leaves_as_a_code_only(coordinator: Coordinator, start, caplog, error, code) -> None:
    def fail(packet: Packet) -> Packet:
        raise error

    start(fail)
    coordinator.waiting.append(request(PACKET))
    eventually(lambda: coordinator.pushed)
    assert coordinator.pushed[0].error.reason == code
    assert b"4711" not in b"".join(coordinator.raw)
    assert "4711" not in caplog.text


def test_a_message_of_another_type_gets_a_code_and_is_not_handled(coordinator: Coordinator, start) -> None:
    handled: list[Packet] = []
    start(lambda p: handled.append(p) or p)
    coordinator.waiting.append(request(PACKET, "train"))
    eventually(lambda: coordinator.pushed)
    assert coordinator.pushed[0].error.reason == "message-type-refused"
    assert handled == []


def test_it_waits_for_a_coordinator_and_survives_its_restart(tmp_path) -> None:
    coordinator = Coordinator(tmp_path)
    agent = Running(coordinator)
    eventually(agent.is_in(AgentState.UNREACHABLE))
    for round_no in range(2):
        coordinator.start()
        eventually(agent.is_in(AgentState.ONLINE))
        coordinator.waiting.append(request(PACKET))
        eventually(lambda n=round_no: len(coordinator.pushed) == n + 1)
        coordinator.stop()
        eventually(agent.is_in(AgentState.UNREACHABLE))
    agent.end()
    assert agent.failure == []


def test_an_answer_outlasts_a_coordinator_that_went_away_meanwhile(coordinator: Coordinator, start) -> None:
    def handle(packet: Packet) -> Packet:
        coordinator.stop()
        return packet

    calls: list[Packet] = []
    agent = start(lambda p: calls.append(p) or handle(p))
    coordinator.waiting.append(request(PACKET))
    eventually(agent.is_in(AgentState.UNREACHABLE))
    coordinator.start()
    eventually(lambda: coordinator.pushed)
    assert from_record(coordinator.pushed[0].content) == PACKET
    assert len(calls) == 1, "nothing is computed, or paid for, twice"


def test_a_refusal_is_tried_again(coordinator: Coordinator, start) -> None:
    coordinator.override["activate-node"] = lambda _: (401, {}, b"")
    agent = start()
    eventually(agent.is_in(AgentState.REFUSED))
    del coordinator.override["activate-node"]
    eventually(agent.is_in(AgentState.ONLINE))


def test_a_lock_out_in_the_middle_is_seen_and_never_ends_the_process(coordinator: Coordinator, start) -> None:
    agent = start()
    eventually(agent.is_in(AgentState.ONLINE))
    coordinator.override["pull-messages"] = lambda _: (401, {}, b"")
    coordinator.override["activate-node"] = coordinator.override["send-node-heartbeat"] = lambda _: (401, {}, b"")
    eventually(agent.is_in(AgentState.REFUSED))
    assert agent.thread.is_alive()


def test_a_known_node_id_needs_no_activation(coordinator: Coordinator, start) -> None:
    agent = start(node_id=NODE)
    eventually(agent.is_in(AgentState.ONLINE))
    assert "activate-node" not in coordinator.paths


def test_a_node_id_of_before_a_new_registration_is_replaced(coordinator: Coordinator, start) -> None:
    coordinator.override["send-node-heartbeat"] = lambda _: (401, {}, b"")
    agent = start(node_id=99)
    eventually(agent.is_in(AgentState.ONLINE))
    assert agent.states[-1] == (AgentState.ONLINE, NODE)


def test_a_run_that_ended_meanwhile_is_no_matter(coordinator: Coordinator, start) -> None:
    refusals = iter([(403, {}, b""), None, None])
    coordinator.override["push-messages"] = lambda _: next(refusals)
    start()
    coordinator.waiting += [request(PACKET), request(PACKET._replace(body=b"second"))]
    eventually(lambda: coordinator.pushed)
    assert from_record(coordinator.pushed[0].content).body == b"second"


def test_it_follows_no_redirect(coordinator: Coordinator, start, tmp_path) -> None:
    inside = Coordinator(tmp_path / "inside")
    inside.start()
    headers = {"location": f"https://{inside.address}/v1/fleet/activate-node"}
    coordinator.override["activate-node"] = lambda _: (307, headers, b"")
    agent = start()
    eventually(agent.is_in(AgentState.REFUSED))
    inside.stop()
    assert inside.paths == []


def _object(content: bytes) -> bytes:
    answer = PullObjectResponse(object_found=True, object_available=True, object_content=content)
    return answer.SerializeToString()


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (({"content-encoding": "gzip"}, gzip.compress(bytes(100 << 20))), "message-compressed"),
        (({}, _object(bytes(9 << 20))), "message-too-long"),
        (({}, _object(b"junk")), "message-malformed"),
        (({}, _object(b"Array  3\0abc")), "message-malformed"),
        (({}, PullObjectResponse(object_found=False).SerializeToString()), "message-malformed"),
    ],
    ids=["gzip-bomb", "too-long", "junk", "not-a-message", "withdrawn"],
)
def test_a_hostile_object_is_dropped_and_the_agent_goes_on(
    coordinator: Coordinator, start, caplog, attack, code
) -> None:
    handled: list[Packet] = []
    coordinator.override["pull-object"] = lambda _: (200, *attack)
    agent = start(lambda p: handled.append(p) or p)
    coordinator.waiting.append(request(Packet("bad", b"")))
    eventually(lambda: f'"message-dropped", "code": "{code}"' in caplog.text)
    del coordinator.override["pull-object"]
    coordinator.waiting.append(request(PACKET))
    eventually(lambda: coordinator.pushed)
    assert handled == [PACKET]
    assert agent.thread.is_alive()


def test_a_message_of_too_many_objects_is_dropped_unread(coordinator: Coordinator, start) -> None:
    message = request(PACKET)
    tree = get_object_tree(message)
    tree.children.extend(ObjectTree(object_id=f"{i:064x}") for i in range(fleet_module.MAX_OBJECTS))
    coordinator.trees.append((message, tree))
    start()
    eventually(lambda: coordinator.paths.count("pull-messages") > 2)
    assert "pull-object" not in coordinator.paths


@pytest.mark.parametrize("junk", [b"\xff" * 9, b"{}", bytes(1 << 16)])
def test_junk_instead_of_an_answer_is_survived(coordinator: Coordinator, start, junk) -> None:
    coordinator.override["activate-node"] = lambda _: (200, {}, junk)
    agent = start()
    eventually(lambda: coordinator.paths.count("activate-node") > 1)
    coordinator.override["activate-node"] = lambda _: (200, {}, ActivateNodeResponse(node_id=3).SerializeToString())
    eventually(agent.is_in(AgentState.ONLINE))


def test_it_stops_quickly_while_nobody_answers(tmp_path) -> None:
    agent = Running(Coordinator(tmp_path))
    eventually(agent.is_in(AgentState.UNREACHABLE))
    began = time.monotonic()
    agent.end()
    assert time.monotonic() - began < 2
    assert agent.states[-1][0] is AgentState.STOPPED


def test_only_tls_1_3_and_only_the_pinned_ca(coordinator: Coordinator) -> None:
    context = fleet_module.tls_context(coordinator.tls.ca.read_bytes())
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_a_ca_that_is_none_is_an_operator_error() -> None:
    for ca in (b"", b"junk", "straße".encode("latin1")):
        with pytest.raises(OperatorError) as error:
            run_agent("127.0.0.1:1", ca, KEYS, lambda p: p, threading.Event())
        assert error.value.code == "ca-unreadable"


def test_heartbeats_go_on_while_the_handler_is_busy(coordinator: Coordinator, start, monkeypatch) -> None:
    monkeypatch.setattr(agent_module, "HEARTBEAT_INTERVAL_S", 0.05)
    busy = threading.Event()

    def handle(packet: Packet) -> Packet:
        busy.wait(5)
        return packet

    start(handle)
    coordinator.waiting.append(request(PACKET))
    eventually(lambda: not coordinator.waiting)
    before = coordinator.paths.count("send-node-heartbeat")
    eventually(lambda: coordinator.paths.count("send-node-heartbeat") > before + 3)
    assert not coordinator.pushed
    busy.set()
    eventually(lambda: coordinator.pushed)
