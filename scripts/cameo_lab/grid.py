"""Flower's `Grid` over direct calls: a ServerApp's loop and hospitals' ClientApps in one process.

For tests, sweeps and one-laptop research. The same apps run on Flower's simulation engine and on real processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1


class InProcessGrid(Grid):
    """A grid whose nodes are the given apps.

    handlers: node id -> its ClientApp, called when its answer is pulled. A node in `lost` takes messages and never
    answers. An app that raises answers with Flower's error code for that and no text, as an agent would. An unknown
    node's message is refused (id ""). Content is passed on as it is, without a copy.
    """

    def __init__(self, handlers: Mapping[int, ClientApp]) -> None:
        self._handlers = dict(handlers)
        self._waiting: dict[str, Message] = {}
        self._count = 0
        self._run: Run | None = None
        self.lost: set[int] = set()
        # Flower writes a message's sender and run from these when it is made.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SUPERLINK_NODE_ID, 1

    def set_run(self, run: Run) -> None:
        """Keep the run for whoever asks; it changes nothing here."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that was set."""
        return Run(**vars(self._run)) if self._run is not None else Run.create_empty(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the ServerApp to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are not lost, in order."""
        return [node for node in self._handlers if node not in self.lost]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; returns one id each, "" for a node that does not exist."""
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        if message.metadata.dst_node_id not in self._handlers:
            return ""
        self._count += 1
        message.metadata.__dict__["_message_id"] = f"message-{self._count}"
        self._waiting[message.metadata.message_id] = message
        return message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to these messages, each once. Lost nodes' messages stay: they may come back.

        An answer is made when the iteration comes to it, so that no more than one is in memory.
        """
        for message_id in message_ids:
            message = self._waiting.get(message_id)
            if message is not None and message.metadata.dst_node_id not in self.lost:
                yield self._answer(self._waiting.pop(message_id))

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(run_id=RUN_ID, node_id=node, node_config={}, state=RecordDict(), run_config={})
        try:
            return self._handlers[node](message, context)
        except Exception:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "node-failed"), reply_to=message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull at once; nothing is waited for, so `timeout` has no effect."""
        del timeout
        return self.pull_messages(self.push_messages(messages))
