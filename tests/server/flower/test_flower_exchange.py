"""`Exchange` over the in-process grid and over a grid that does as the test says, with a clock of ours."""

import json
import logging
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from cameo_client.flower.client_app import make_client_app
from cameo_lab.grid import InProcessGrid
from cameo_protocol.errors import OperatorError
from cameo_protocol.packet import Packet
from cameo_server.flower import exchange as module
from cameo_server.flower.exchange import Exchange

ASK = Packet("round", b"1")


def dropped(caplog: pytest.LogCaptureFixture, node: int, code: str) -> bool:
    rows = [json.loads(record.getMessage()) for record in caplog.records]
    return any((row["event"], row.get("node"), row["code"]) == ("node-dropped", str(node), code) for row in rows)


class Clock:
    """A clock that only sleeping moves; `at` runs things on the way."""

    def __init__(self) -> None:
        self.now = 100.0
        self.plan: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)
        for moment, act in [p for p in self.plan if p[0] <= self.now]:
            self.plan.remove((moment, act))
            act()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        self.plan.append((100.0 + moment, act))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def answering(packet: Packet) -> Packet:
    return Packet("answer", packet.body + b"!", packet.vector)


def world(clock: Clock, handles: dict[int, Callable[[Packet], Packet]]) -> tuple[InProcessGrid, Exchange]:
    grid = InProcessGrid({node: make_client_app(handle) for node, handle in handles.items()})
    return grid, Exchange(grid, sleep=clock.sleep)


def test_all_answer(clock: Clock) -> None:
    _, exchange = world(clock, dict.fromkeys((1, 2, 3), answering))
    answers = list(exchange.ask({1: ASK, 2: ASK, 3: Packet("round", b"3")}, 5, clock=clock))
    assert sorted(answers) == [
        (1, Packet("answer", b"1!")),
        (2, Packet("answer", b"1!")),
        (3, Packet("answer", b"3!")),
    ]
    assert clock.now == 100.0, "nothing was waited for"


def test_a_superlink_that_was_started_again_under_a_push_is_a_lost_connection(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, exchange = world(clock, {1: answering})

    def push(_: object) -> None:
        raise ObjectPushError("ab" * 32, 7, "session")

    monkeypatch.setattr(grid, "push_messages", push)
    with pytest.raises(ConnectionError):
        exchange.ask({1: ASK}, 5, clock=clock)
    with pytest.raises(ConnectionError):
        exchange.post({1: ASK})


def test_nobody_is_asked(clock: Clock) -> None:
    _, exchange = world(clock, {1: answering})
    assert list(exchange.ask({}, 5, clock=clock)) == []
    assert list(exchange.collect()) == []


def test_a_silent_node_costs_the_deadline_and_no_more(clock: Clock) -> None:
    grid, exchange = world(clock, dict.fromkeys((1, 2), answering))
    grid.lost = {2}
    assert [n for n, _ in exchange.ask({1: ASK, 2: ASK}, 5, clock=clock)] == [1]
    assert 105.0 <= clock.now < 105.01


def test_the_last_look_is_at_the_deadline(clock: Clock) -> None:
    grid, exchange = world(clock, dict.fromkeys((1, 2), answering))
    grid.lost = {2}
    clock.at(4.999, grid.lost.clear)
    assert sorted(n for n, _ in exchange.ask({1: ASK, 2: ASK}, 5, clock=clock)) == [1, 2]


def test_enough_is_enough(clock: Clock) -> None:
    grid, exchange = world(clock, dict.fromkeys((1, 2, 3), answering))
    grid.lost = {3}
    assert len(list(exchange.ask(dict.fromkeys((1, 2, 3), ASK), 5, wanted=2, clock=clock))) == 2
    assert clock.now == 100.0
    assert list(exchange.ask({1: ASK}, 5, wanted=0, clock=clock)) == []


def test_messages_leave_when_asked_not_when_iterated(clock: Clock) -> None:
    grid, exchange = world(clock, {1: answering})
    answers = exchange.ask({1: ASK}, 5, clock=clock)
    assert len(grid._waiting) == 1
    assert [n for n, _ in answers] == [1]


def test_an_error_is_a_dropped_node_with_its_code_in_the_log(clock: Clock, caplog) -> None:
    def refuse(_: Packet) -> Packet:
        raise OperatorError("budget-spent", what="0.15 left of 3.00", do="")

    _, exchange = world(clock, {1: refuse, 2: answering})
    with caplog.at_level(logging.WARNING):
        assert [n for n, _ in exchange.ask({1: ASK, 2: ASK, 9: ASK}, 5, clock=clock)] == [2]
    assert dropped(caplog, 1, "budget-spent")
    assert dropped(caplog, 9, "node-unknown")
    assert "0.15" not in caplog.text
    assert clock.now == 100.0


@pytest.mark.parametrize("reason", ["patient 4711", "x" * 65, "a\nb", "", None, "Ärger", "<b>"])
def test_words_of_the_other_side_are_not_logged(reason: str | None) -> None:
    message = Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=Message(RecordDict(), 5, "query", ttl=9))
    assert module._code(message) == f"flower-error-{ErrorCode.NODE_UNAVAILABLE}"


class ScriptedGrid(InProcessGrid):
    """Answers are what `answers` says, for all messages that were pushed."""

    def __init__(self, answers: list[Callable[[list[Message]], list[Message]]]) -> None:
        super().__init__(dict.fromkeys((1, 2), make_client_app(answering)))
        self.sent: list[Message] = []
        self.script = answers

    def push_messages(self, messages):
        messages = list(messages)
        self.sent += messages
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        return self.script.pop(0)(self.sent) if self.script else []


def reply(to: Message, content: RecordDict) -> Message:
    return Message(content, reply_to=to)


def test_twice_unasked_and_malformed_answers_count_once_or_not_at_all(clock: Clock, caplog) -> None:
    good = RecordDict({"cameo": ConfigRecord({"kind": "k", "body": b"", "vector": b""})})
    stranger = Message(RecordDict(), 1, "query", ttl=9)
    grid = ScriptedGrid(
        [
            lambda sent: [reply(sent[0], good), reply(sent[0], good), reply(stranger, good)],
            lambda sent: [reply(sent[0], good), reply(sent[1], RecordDict())],
        ]
    )
    exchange = Exchange(grid, sleep=clock.sleep)
    assert list(exchange.ask({1: ASK, 2: ASK}, 5, clock=clock)) == [(1, Packet("k", b""))]
    assert dropped(caplog, 2, "packet-malformed")


def test_equal_packets_share_one_record_and_messages_expire_after_the_deadline(clock: Clock) -> None:
    grid = ScriptedGrid([])
    list(Exchange(grid, sleep=clock.sleep).ask({1: Packet("k", b"x"), 2: Packet("k", b"x")}, 5, clock=clock))
    first, second = grid.sent
    assert first.content is second.content
    assert 5 < first.metadata.ttl <= 7


def test_a_posted_packet_is_answered_when_its_node_comes_back(clock: Clock) -> None:
    grid, exchange = world(clock, dict.fromkeys((1, 2), answering))
    grid.lost = {2}
    exchange.post({2: ASK})
    assert list(exchange.collect()) == []
    grid.lost.clear()
    assert list(exchange.collect()) == [(2, Packet("answer", b"1!"))]
    assert list(exchange.collect()) == []


def test_a_posted_packet_outlasts_flowers_error_for_an_offline_node(clock: Clock) -> None:
    # Flower deletes the message with this error; the packet is posted anew.
    error = Error(ErrorCode.NODE_UNAVAILABLE, "offline")
    grid = ScriptedGrid([lambda sent: [Message(error, reply_to=sent[0])]])
    exchange = Exchange(grid, sleep=clock.sleep)
    exchange.post({1: ASK}, keep_s=50)
    assert list(exchange.collect()) == []
    assert len(grid.sent) == 2
    assert grid.sent[1].metadata.ttl == 50
    good = RecordDict({"cameo": ConfigRecord({"kind": "k", "body": b"", "vector": b""})})
    grid.script.append(lambda sent: [reply(sent[1], good)])
    assert list(exchange.collect()) == [(1, Packet("k", b""))]


def test_a_coordinator_that_was_away_until_after_the_deadline_looks_once_more(clock: Clock) -> None:
    good = RecordDict({"cameo": ConfigRecord({"kind": "k", "body": b"", "vector": b""})})

    def away(_: list[Message]) -> list[Message]:
        clock.now += 60
        return []

    grid = ScriptedGrid([away, lambda sent: [reply(sent[0], good)]])
    exchange = Exchange(grid, sleep=clock.sleep)
    assert list(exchange.ask({1: ASK, 2: ASK}, 5, clock=clock)) == [(1, Packet("k", b""))]


def test_flower_is_not_asked_for_the_answer_of_a_node_that_is_offline(clock: Clock) -> None:
    # It would delete the message.
    def never(_: list[Message]) -> list[Message]:
        raise AssertionError

    grid = ScriptedGrid([never])
    grid.lost = {1}
    exchange = Exchange(grid, sleep=clock.sleep)
    exchange.post({1: ASK})
    assert list(exchange.collect()) == []
