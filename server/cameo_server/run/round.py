"""One round: upload, acknowledge, reveal, open. A void round opens nothing and is never asked for again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.messages import pack
from cameo_protocol.secagg.params import RoundStart
from cameo_protocol.secagg.server_round import Void, open_round
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.stages import ACK, REVEAL, UPLOAD, RoundCall
from cameo_server.run.party import Parties


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A sum that was opened. total: (dim,) uint32; survivors: indices in the sum; seconds: per stage."""

    total: npt.NDArray[np.uint32]
    survivors: frozenset[int]
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class VoidRound:
    """Nothing was opened; reason says at which stage too few answered."""

    reason: str
    seconds: dict[str, float]


@dataclass
class _Stopwatch:
    clock: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0

    def start(self) -> None:
        self._last = self.clock()

    def lap(self, stage: str) -> None:
        now = self.clock()
        self.seconds[stage] = round(now - self._last, 4)
        self._last = now


def run_round(parties: Parties, epoch: Epoch, call: RoundCall, parameters: bytes) -> Opened | VoidRound:
    """Carry one secure sum through over the invited hospitals of `call`.

    parameters: the global model's bytes that go to every hospital and are bound into every signature.
    Hospitals that do not answer a stage leave `parties.active`.
    """
    watch = _Stopwatch(parties.clock)
    watch.start()
    start = RoundStart(
        round_no=call.round_no,
        kind=call.kind,
        invited=frozenset(call.invited),
        model_hash=call.model_hash(parameters),
    )
    wait = parties.plan.deadlines.stage
    collecting = open_round(epoch, start)
    request = Packet(UPLOAD, call.encode(), parameters)
    for index, packet in parties.ask(UPLOAD, dict.fromkeys(call.invited, request), wait):
        _take(parties, index, UPLOAD, partial(collecting.add_upload, index, packet.body, packet.vector))
    parties.traffic.masked += len(collecting.answered)
    survivors = collecting.close()
    watch.lap("upload")
    if isinstance(survivors, Void):
        return VoidRound(reason=survivors.reason, seconds=watch.seconds)

    request = Packet(ACK, pack(survivors.headers))
    for index, packet in parties.ask(ACK, dict.fromkeys(sorted(survivors.headers), request), wait):
        _take(parties, index, ACK, partial(survivors.add_ack, index, packet.body))
    quorum = survivors.close()
    watch.lap("ack")
    if isinstance(quorum, Void):
        return VoidRound(reason=quorum.reason, seconds=watch.seconds)

    request = Packet(REVEAL, pack(quorum.acks))
    for index, packet in parties.ask(REVEAL, dict.fromkeys(sorted(quorum.acks), request), wait):
        _take(parties, index, REVEAL, partial(quorum.add_reveal, index, packet.body))
    opened = quorum.close()
    watch.lap("reveal")
    if isinstance(opened, Void):
        return VoidRound(reason=opened.reason, seconds=watch.seconds)
    return Opened(total=opened.total, survivors=opened.survivors, seconds=watch.seconds)


def _take(parties: Parties, index: int, stage: str, accept: Callable[[], None]) -> None:
    """Give an answer to the secure sum; a party whose answer is refused is dropped by name."""
    try:
        accept()
    except Reject as error:
        parties.drop(index, stage, error.code, what=error.what)
