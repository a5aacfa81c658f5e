"""What a round of Flower's SecAgg+ costs, by its own client mod and server workflow (1.41), over a complete graph.

A client is measured through `secaggplus_mod`, all four messages of a round, since Flower makes keys and shares anew
every round. Its peers are real keys and real ciphertexts. The server is measured on `unmask_stage` of
`SecAggPlusWorkflow`; the masked total that it starts from is made with Flower's own mask generator.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.secure_aggregation.secaggplus_constants import Stage as FlowerStage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.server import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from cameo_lab.bench.secagg_clock import Stages
from cameo_lab.grid import InProcessGrid
from cameo_protocol.errors import Bug
from cameo_protocol.secagg.params import default_threshold

Floats = npt.NDArray[np.float64]
MOD, RANGE, CLIP, WEIGHT, EXAMPLES = 1 << 32, 1 << 22, 8.0, 1000.0, 1000
ME = 1


class _Peer:
    """Another client: its two key pairs, and a seed of its own."""

    def __init__(self) -> None:
        self.private1, public1 = generate_key_pairs()
        self.private2, public2 = generate_key_pairs()
        self.public1, self.public2 = public_key_to_bytes(public1), public_key_to_bytes(public2)
        self.seed = os.urandom(32)


def measure_client(n: int, values: Floats, repeats: int) -> dict[str, float]:
    """Median CPU seconds of one client by stage: setup, share_keys, collect (quantise and mask), unmask."""
    InProcessGrid({})  # names this process to Flower, so that messages can be made
    _hush()
    peers = {i: _Peer() for i in range(1, n + 1) if i != ME}
    context = Context(run_id=1, node_id=ME, node_config={}, state=RecordDict(), run_config={})
    stages = Stages()
    for repeat in range(repeats + 1):
        _client_round(n, values, peers, context, stages if repeat else Stages())
    return stages.medians()


def _client_round(n: int, values: Floats, peers: dict[int, _Peer], context: Context, stages: Stages) -> None:
    parameters = ndarrays_to_parameters([values])

    def ask(stage: str, config: dict[str, Any]) -> ConfigRecord:
        fitted = fitres_to_recorddict(FitRes(Status(Code.OK, ""), _copy(parameters), EXAMPLES, {}), keep_input=False)
        message = _query(ME, ConfigRecord({Key.STAGE: stage, **config}))
        with stages.time(stage):
            reply = secaggplus_mod(message, context, lambda m, _: Message(fitted, reply_to=m))
        return reply.content.config_records[RECORD_KEY_CONFIGS]

    t = default_threshold(n)
    own = ask(
        FlowerStage.SETUP,
        {
            Key.SAMPLE_NUMBER: n,
            Key.SHARE_NUMBER: n,
            Key.THRESHOLD: t,
            Key.CLIPPING_RANGE: CLIP,
            Key.TARGET_RANGE: RANGE,
            Key.MOD_RANGE: MOD,
            Key.MAX_WEIGHT: WEIGHT,
        },
    )
    mine = [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]
    keys = {str(ME): mine} | {str(i): [p.public1, p.public2] for i, p in peers.items()}
    ask(FlowerStage.SHARE_KEYS, keys)
    share = create_shares(os.urandom(32), t, n)[0]
    key_share = create_shares(private_key_to_bytes(next(iter(peers.values())).private1), t, n)[0]
    boxes = []
    for i, peer in peers.items():
        shared = generate_shared_key(peer.private2, bytes_to_public_key(_bytes(mine[1])))
        boxes.append(encrypt(shared, share_keys_plaintext_concat(i, ME, share, key_share)))
    ask(FlowerStage.COLLECT_MASKED_VECTORS, {Key.CIPHERTEXT_LIST: boxes, Key.SOURCE_LIST: list(peers)})
    ask(FlowerStage.UNMASK, {Key.ACTIVE_NODE_ID_LIST: [ME, *peers], Key.DEAD_NODE_ID_LIST: []})


def measure_server(n: int, values: Floats, lost: Sequence[int]) -> float:
    """CPU seconds of opening a sum once: `unmask_stage`, from everybody's shares to the mean.

    lost: who dropped out after sharing its keys. The mean is checked against the plain one.
    """
    grid = _Shares({})
    _hush()
    peers = {i: _Peer() for i in range(1, n + 1)}
    alive = [i for i in peers if i not in lost]
    grid.shares, t = {i: {} for i in alive}, default_threshold(n)
    for i, peer in peers.items():
        secret = private_key_to_bytes(peer.private1) if i in lost else peer.seed
        for holder, share in zip(peers, create_shares(secret, t, n), strict=True):
            if holder in grid.shares:
                grid.shares[holder][i] = share
    total, quantised = _masked_total(peers, alive, lost, values)
    state = WorkflowState(
        sampled_node_ids=set(peers),
        active_node_ids=set(alive),
        num_shares=n,
        threshold=t,
        clipping_range=CLIP,
        quantization_range=RANGE,
        mod_range=MOD,
        max_weight=WEIGHT,
        nid_to_neighbours={i: set(peers) for i in peers},
        nid_to_publickeys={i: [p.public1, p.public2] for i, p in peers.items()},
        aggregate_ndarrays=total,
    )
    kept = FitRes(Status(Code.OK, ""), Parameters([], ""), EXAMPLES, {})
    state.legacy_results = [(None, kept)]  # type: ignore[list-item]
    workflow = SecAggPlusWorkflow(1.0, t, max_weight=WEIGHT, clipping_range=CLIP, quantization_range=RANGE)
    stages = Stages()
    with stages.time("open"):
        done = workflow.unmask_stage(grid, _legacy_context(), state)
    (mean,) = parameters_to_ndarrays(kept.parameters)
    if not done or not np.allclose(mean, quantised * (2 * CLIP / RANGE) - CLIP, atol=1e-9):
        raise Bug("bench-wrong", what="Flower's opened mean of the benchmark is not the plain mean")
    return stages.medians()["open"]


class _Shares(InProcessGrid):
    """Answers the unmask message of every living node with the shares it holds. shares: holder -> owner -> share."""

    shares: dict[int, dict[int, bytes]]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """One reply each."""
        del timeout
        return [self._reply(message) for message in messages]

    def _reply(self, message: Message) -> Message:
        asked = message.content.config_records[RECORD_KEY_CONFIGS]
        owners = [*_ints(asked[Key.ACTIVE_NODE_ID_LIST]), *_ints(asked[Key.DEAD_NODE_ID_LIST])]
        held = self.shares[message.metadata.dst_node_id]
        answer = ConfigRecord({Key.NODE_ID_LIST: owners, Key.SHARE_LIST: [held[i] for i in owners]})
        return Message(RecordDict({RECORD_KEY_CONFIGS: answer}), reply_to=message)


def _masked_total(
    peers: dict[int, _Peer], alive: Sequence[int], lost: Sequence[int], values: Floats
) -> tuple[list[npt.NDArray[Any]], npt.NDArray[Any]]:
    """What the uploads of the living add up to, each with the same vector; and that vector, quantised."""
    ratio = round(EXAMPLES / WEIGHT * RANGE)
    quantised = quantize([values], CLIP, RANGE)[0].astype(np.int64)
    total = [np.array([ratio * len(alive)]), quantised * len(alive)]
    shapes = [part.shape for part in total]
    for i in alive:
        _add(total, pseudo_rand_gen(peers[i].seed, MOD, shapes), 1)
        for gone in lost:
            shared = generate_shared_key(peers[i].private1, bytes_to_public_key(peers[gone].public1))
            _add(total, pseudo_rand_gen(shared, MOD, shapes), 1 if i > gone else -1)
    return [part & (MOD - 1) for part in total], quantised


def _add(total: list[npt.NDArray[Any]], mask: Sequence[npt.NDArray[Any]], sign: int) -> None:
    for part, more in zip(total, mask, strict=True):
        np.add(part, sign * more, out=part)


class _NoStrategy(FedAvg):
    """Leaves the opened mean as it is: what a strategy does with it is not the secure sum's cost."""

    def aggregate_fit(self, *_: Any, **__: Any) -> tuple[None, dict[str, Any]]:
        """Nothing."""
        return None, {}


def _legacy_context() -> LegacyContext:
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    context.state[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    return LegacyContext(context, strategy=_NoStrategy())


def _hush() -> None:
    """Flower tells every step; its logger is set up when it is imported."""
    logging.getLogger("flwr").setLevel(logging.WARNING)


def _query(node: int, config: ConfigRecord) -> Message:
    return Message(RecordDict({RECORD_KEY_CONFIGS: config}), node, "train")


def _copy(parameters: Parameters) -> Parameters:
    return Parameters(list(parameters.tensors), parameters.tensor_type)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise Bug("bench-wrong", what="Flower's record holds something else than bytes")
    return value


def _ints(value: object) -> list[int]:
    return [int(item) for item in value] if isinstance(value, list) else []
