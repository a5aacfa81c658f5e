"""One exchange: a packet to each hospital, and their answers as they come, until a deadline of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable import inflatable_utils
from flwr.superlink.grid import http_grid

from cameo_protocol.errors import Reject
from cameo_protocol.logs import get_logger
from cameo_protocol.packet import Packet
from cameo_server.flower.gate import HOLD_HEADER
from cameo_server.flower.records import from_record, to_record

log = get_logger(__name__)
# Waits between two looks for answers, in seconds: short at first, longer while nothing comes.
_FIRST_WAIT_S, _LONGEST_WAIT_S, _GROWTH = 0.01, 0.2, 1.3
# An answer can be seen a moment before its objects are there; Flower would wait 1 s.
_OBJECT_BACKOFF_S, _OBJECT_BACKOFF_CAP_S = 0.02, 0.25
_LEAST_OBJECT_WAIT_S = 1.0
# Beyond the deadline a message is of no use: a hospital that comes back later must not act on it.
_TTL_MARGIN_S = 1.0
# So many answers with their vectors may be in memory at once.
_PORTION = 8
# How long a posted message waits for a hospital to come back.
_KEPT_S = 3600.0


@dataclass(frozen=True)
class _Post:
    """A packet left for a node."""

    node: int
    packet: Packet
    keep_s: float


class Exchange:
    """Asks hospitals over any Flower `Grid`: in process, Ray simulation or real processes."""

    def __init__(self, grid: Grid, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._grid, self._sleep = grid, sleep
        self._posted: dict[str, _Post] = {}

    def ask(
        self,
        requests: Mapping[int, Packet],
        deadline_s: float,
        wanted: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[tuple[int, Packet]]:
        """Send one packet to each node now; iterate over (node id, answer) as they come.

        requests: by Flower node id. deadline_s: seconds from this call, > 0. wanted: end as soon as so many answered.
        The iteration ends when all or enough answered, or at the deadline after a last look. A node that answers with
        an error or something that is no packet, or is unknown or offline, yields nothing; its code is logged. Each
        node yields at most once. Equal packets are serialised and uploaded once. A `ConnectionError` says that the
        SuperLink died while it was given the packets.
        """
        end = clock() + deadline_s
        pending = self._push(requests, deadline_s + _TTL_MARGIN_S)
        return self._answers(pending, end, len(pending) if wanted is None else wanted, clock)

    def post(self, requests: Mapping[int, Packet], keep_s: float = _KEPT_S) -> None:
        """Leave one packet for each node and do not wait: it is there when the node comes back within `keep_s`.

        That holds while this run lasts; afterwards Flower delivers nothing of it.
        """
        for message_id, node in self._push(requests, keep_s).items():
            self._posted[message_id] = _Post(node, requests[node], keep_s)

    def collect(self) -> Iterator[tuple[int, Packet]]:
        """The answers to posted packets that are there now, each once. Does not wait."""
        if not self._posted:
            return
        # Flower deletes a message when one asks for its answer while the node is offline: ask only for the others.
        online = set(self._grid.get_node_ids())
        there = [message_id for message_id, post in self._posted.items() if post.node in online]
        for message in self._pull(there, _LEAST_OBJECT_WAIT_S, hold_s=0.0) if there else []:
            post = self._posted.pop(message.metadata.reply_to_message_id, None)
            if post is None:
                continue
            if message.has_error() and message.error.code == ErrorCode.NODE_UNAVAILABLE:
                self.post({post.node: post.packet}, post.keep_s)  # it left between the two questions
                continue
            packet = _open(post.node, message)
            if packet is not None:
                yield post.node, packet

    def _push(self, requests: Mapping[int, Packet], ttl_s: float) -> dict[str, int]:
        """Message id -> node, of the messages that were taken."""
        records: dict[Packet, RecordDict] = {}
        nodes = list(requests)
        messages = []
        for node in nodes:
            packet = requests[node]
            if packet not in records:
                records[packet] = to_record(packet)
            messages.append(Message(records[packet], node, "query", ttl=ttl_s))
        try:
            ids = self._grid.push_messages(messages) if messages else []
        except inflatable_utils.ObjectPushError as error:
            # A SuperLink that was started again knows the messages, but not that their objects are still to come.
            raise ConnectionError("the SuperLink was started again while it was given messages") from error
        taken = {message_id: node for message_id, node in zip(ids, nodes, strict=True) if message_id}
        for node in set(nodes) - set(taken.values()):
            log.warning("node-dropped", node=node, code="node-unknown")
        return taken

    def _answers(
        self, pending: dict[str, int], end: float, wanted: int, clock: Callable[[], float]
    ) -> Iterator[tuple[int, Packet]]:
        got, wait = 0, _FIRST_WAIT_S
        while pending and got < wanted:
            left, before = end - clock(), len(pending)
            for message in self._look(list(pending), left):
                node = pending.pop(message.metadata.reply_to_message_id, None)
                packet = None if node is None else _open(node, message)
                if node is not None and packet is not None:
                    got += 1
                    yield node, packet
            if left <= 0:
                return
            wait = _FIRST_WAIT_S if len(pending) < before else min(wait * _GROWTH, _LONGEST_WAIT_S)
            if pending and got < wanted:
                self._sleep(max(0.0, min(wait, end - clock())))

    def _look(self, ids: list[str], left_s: float) -> Iterator[Message]:
        """The answers that are there, a few at a time: memory must not grow with the number of hospitals."""
        portions = [ids[start : start + _PORTION] for start in range(0, len(ids), _PORTION)]
        for portion in portions:
            # Only a question about all of them may wait: the first answer could be one of another portion.
            yield from self._pull(portion, left_s, hold_s=left_s if len(portions) == 1 else 0.0)

    def _pull(self, ids: list[str], left_s: float, *, hold_s: float) -> Iterable[Message]:
        """The answers that are there. hold_s: how long our SuperLink may wait for the first one."""
        if isinstance(self._grid, http_grid.HttpGrid):
            _set_patience(self._grid, max(left_s, _LEAST_OBJECT_WAIT_S), hold_s)
        return self._grid.pull_messages(ids)


def _set_patience(grid: http_grid.HttpGrid, objects_s: float, hold_s: float) -> None:
    """How long and how often `HttpGrid` looks for the objects of an answer, and how long the gate holds its question.

    `HttpGrid` offers no setting for either (contract-tested).
    """
    http_grid.pull_objects = partial(  # type: ignore[attr-defined]
        inflatable_utils.pull_objects,
        max_time=objects_s,
        initial_backoff=_OBJECT_BACKOFF_S,
        backoff_cap=_OBJECT_BACKOFF_CAP_S,
    )
    grid._runtime_client._client.headers[HOLD_HEADER] = f"{max(0.0, hold_s):.3f}"


def _open(node: int, message: Message) -> Packet | None:
    """The packet in an answer, or None with the reason logged."""
    if message.has_error():
        log.warning("node-dropped", node=node, code=_code(message))
        return None
    try:
        return from_record(message.content)
    except Reject as error:
        log.warning("node-dropped", node=node, code=error.code)
        return None
    finally:
        _drain(message.content)


def _drain(content: RecordDict) -> None:
    """Let go of a message's records: they hang in cycles, so a vector would stay in memory until Python looks."""
    for record in content.values():
        record.clear()
    content.clear()


def _code(message: Message) -> str:
    """The code in an error answer, kept only if it looks like one: it comes from the other side."""
    reason = message.error.reason or ""
    plain = len(reason) <= 64 and reason.replace("-", "").isalnum() and reason.isascii()
    return reason if plain else f"flower-error-{message.error.code}"
