"""Flower's Control API, called directly: Flower's own command line takes seconds a call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from cameo_protocol.errors import OperatorError
from cameo_server.flower.gate import CONTROL_HEADER


@dataclass(frozen=True)
class NodeSeen:
    """A registered node as Flower sees it. status: "registered" (never came), "online" or "offline"."""

    node_id: int
    name: str
    status: str
    public_key: bytes


@dataclass(frozen=True)
class RunSeen:
    """A run as Flower sees it.

    status: "pending", "starting", "running" or "finished"; outcome: "" until finished, then "completed", "failed" or
    "stopped"; details: Flower's words for a failure.
    """

    run_id: int
    status: str
    outcome: str
    details: str


class _Token:
    """Adds the token that the local gate asks for."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[CONTROL_HEADER] = self._token
        return call_next(context)


class Control:
    """A client for the loopback Control API at "127.0.0.1:port". Failures are `OperatorError`. A context manager."""

    def __init__(self, address: str, token: str) -> None:
        self._client = ControlHttpClient(f"http://{address}", interceptors=[_Token(token)])
        # Loopback traffic goes through no proxy, whatever the environment says.
        self._client._client.close()
        self._client._client = httpx.Client(trust_env=False, timeout=30.0)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calling it twice is fine."""
        self._client.close()

    def register_node(self, public_key: bytes, name: str) -> int:
        """Let a node in; returns its id. public_key: PEM, EC P-384."""
        with _failures("register the node"):
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)).node_id)

    def unregister_node(self, node_id: int) -> None:
        """Lock a node out: its next request is refused. Its key can never be registered again."""
        with _failures("unregister the node"):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def list_nodes(self) -> tuple[NodeSeen, ...]:
        """All nodes that are registered now."""
        with _failures("list the nodes"):
            nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        seen = (NodeSeen(n.node_id, n.name, n.status, bytes(n.public_key)) for n in nodes)
        return tuple(node for node in seen if node.status != "unregistered")

    def start_run(self, bundle: bytes, config: Mapping[str, str | int | float | bool]) -> int:
        """Start a run of a bundle (`bundle.build_bundle`); config: its declared keys. Returns Flower's run id."""
        request = StartRunRequest(
            fab=Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle),
            override_config=user_config_to_proto(dict(config)),
        )
        with _failures("start the run"):
            run_id = int(self._client.StartRun(request).run_id)
        if run_id == 0:
            raise OperatorError("flower-refused", what="the bundle is too large for Flower", do="make conf/ smaller")
        return run_id

    def stop_run(self, run_id: int) -> bool:
        """Stop a run; False when it could not be stopped."""
        with _failures("stop the run"):
            return bool(self._client.StopRun(StopRunRequest(run_id=run_id)).success)

    def run_status(self, run_id: int) -> RunSeen:
        """How a run is doing."""
        with _failures("look up the run"):
            run = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
        return RunSeen(run_id, run.status.status, run.status.sub_status, run.status.details)


@contextmanager
def _failures(action: str) -> Iterator[None]:
    """Flower's and the network's errors as ours."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        known = FlowerError.from_json(error.response.text)
        why = known.message if known is not None else f"HTTP {error.response.status_code}"
        raise OperatorError(
            "flower-refused", what=f"Flower would not {action}: {why}", do="run: cameo coordinator status"
        ) from None
    except (httpx.HTTPError, ValueError) as error:
        raise OperatorError(
            "superlink-unreachable",
            what=f"the SuperLink did not answer the request to {action} ({type(error).__name__})",
            do="run: cameo coordinator start",
        ) from None
