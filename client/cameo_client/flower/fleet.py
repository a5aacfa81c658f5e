"""One hospital's connection to Flower's Fleet API over pinned TLS: activate, pull, push, heartbeat.

Flower's own `fleet_http_connection` ends the process when it cannot connect (`flwr_exit`), swallows exceptions and
sends itself SIGINT on a refusal, so we use the client class beneath it. A bundle is never asked for.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.retry import RetryInvoker
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from cameo_client.flower.keys import NodeKeys
from cameo_protocol.errors import OperatorError, Reject

# Flower's least interval; it calls a node lost after two of them.
HEARTBEAT_INTERVAL_S = 10.0
REQUEST_TIMEOUT_S = 30.0
# The largest vector or body is 64 MiB in chunks of 5 MiB; five more records carry it.
MAX_OBJECTS = 32
MAX_OBJECT_BYTES = 8 << 20
# A message can be seen a moment before its objects are there.
OBJECT_BACKOFF_S = 0.02
OBJECT_BACKOFF_CAP_S = 0.5
OBJECT_WAIT_S = 60.0


def tls_context(root_certificates: bytes) -> ssl.SSLContext:
    """TLS 1.3 that trusts only the given PEM certificates. Anything else is an `OperatorError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=root_certificates.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise OperatorError(
            "ca-unreadable",
            what="the coordinator's CA certificate is not a PEM certificate",
            do="ask the coordinator for its file again, then: cameo-node accept federation.json",
        ) from None
    return context


class _BoundedStream(httpx.SyncByteStream):
    """A response body that may not exceed `MAX_OBJECT_BYTES`."""

    def __init__(self, inner: httpx.SyncByteStream) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for chunk in self._inner:
            seen += len(chunk)
            if seen > MAX_OBJECT_BYTES:
                raise Reject("message-too-long", what=f"the coordinator sent over {MAX_OBJECT_BYTES} bytes at once")
            yield chunk

    def close(self) -> None:
        self._inner.close()


def _bound_response(response: httpx.Response) -> None:
    """Refuse compressed bodies (they could unpack to anything) and bound the others before they are read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Reject("message-compressed", what="the coordinator sent a compressed response")
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _BoundedStream(response.stream)


class Retry(Protocol):
    """Sends a request, again if it should."""

    def invoke(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The response, or the error of the last try."""


class Fleet:
    """The Fleet API for one node. Raises httpx errors (network, status) and `Reject` (content); never exits.

    retry: how a single request persists when the network or the coordinator is away. Every request may be sent
    twice: Flower takes a message that it knows as taken.
    """

    def __init__(self, address: str, root_certificates: bytes, keys: NodeKeys, retry: Retry | None = None) -> None:
        self._client = FleetHttpClient(
            f"https://{address}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(keys.private, keys.public),
            ],
            verify=tls_context(root_certificates),
            timeout=REQUEST_TIMEOUT_S,
            retry_invoker=cast("RetryInvoker | None", retry),
        )
        http = self._client._client
        # A redirect could point our signed requests at a machine inside the hospital.
        http.follow_redirects = False
        http.headers["accept-encoding"] = "identity"
        http.event_hooks = {"response": [_bound_response]}
        self._public = keys.public_bytes()
        self._node = Node()

    @property
    def node_id(self) -> int:
        """The id Flower gave this node; 0 before `activate`."""
        return int(self._node.node_id)

    def activate(self) -> int:
        """Announce this node; returns its id. Refused (HTTP error) for an unknown key and while it counts as online."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_INTERVAL_S)
        self._node = Node(node_id=self._client.ActivateNode(request).node_id)
        return self.node_id

    def resume(self, node_id: int) -> None:
        """Go on as a node whose id is known: one heartbeat puts it online from any state but unregistered."""
        self._node = Node(node_id=node_id)
        self.heartbeat()

    def deactivate(self) -> None:
        """Say goodbye, so that the coordinator need not wait for missing heartbeats."""
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))

    def heartbeat(self) -> None:
        """Stay online for two further intervals."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_INTERVAL_S)
        self._client.SendNodeHeartbeat(request)

    def pull(self) -> Message | None:
        """The next message for this node with its content, or None. Bounded in memory by the two limits above.

        A message that is malformed, or was withdrawn before its content came, is a `Reject`; it does not come again.
        """
        response = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        try:
            return self._pull_content(message_from_proto(response.messages_list[0]), response.message_object_trees[0])
        except (httpx.HTTPError, Reject):
            raise
        except Exception as error:  # Flower's decoders raise whatever the bytes make them raise.
            raise Reject("message-malformed", what=f"a message could not be read ({type(error).__name__})") from None

    def _pull_content(self, head: Message, tree: ObjectTree) -> Message:
        if sum(1 for _ in iterate_object_tree(tree)) > MAX_OBJECTS:
            raise Reject("message-too-long", what=f"a message of more than {MAX_OBJECTS} objects")
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(self._client.PullObject, self._node, head.metadata.run_id),
            lambda _: None,  # confirmed after the answer, see `confirm`
            return_type=Message,
            max_time=OBJECT_WAIT_S,
            initial_backoff=OBJECT_BACKOFF_S,
            backoff_cap=OBJECT_BACKOFF_CAP_S,
        )
        message.metadata.__dict__["_message_id"] = head.metadata.message_id
        return message

    def confirm(self, message: Message) -> None:
        """Let the coordinator delete a message's objects. Not urgent: done when the answer is on its way."""
        meta = message.metadata
        confirm = make_confirm_message_received_fn_protobuf(
            self._client.ConfirmMessageReceived, self._node, meta.run_id
        )
        confirm(meta.message_id)

    def push(self, reply: Message) -> None:
        """Send a reply and its objects. Flower's field for the time it took is left out: it would tell of the data.

        A reply that comes too late is dropped by the coordinator (HTTP 403) or during its upload (`Reject`).
        """
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            tree, objects = get_object_tree(reply), get_all_nested_objects(reply)
            response = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[tree],
                )
            )
            push_object = make_push_object_fn_protobuf(
                self._client.PushObject, self._node, reply.metadata.run_id, response.session_id
            )
            try:
                push_objects(objects, push_object, object_ids_to_push=set(response.objects_to_push))
            except ObjectPushError:
                raise Reject("reply-expired", what="the coordinator no longer takes this reply") from None

    def close(self) -> None:
        """Close the connection. Calling it twice is fine."""
        self._client.close()
