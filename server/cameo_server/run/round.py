"""One round: upload, acknowledge, reveal, open. A void round opens nothing and is never asked for again.

Everything that arrives is in the round's log before it is used, and the survivor set is there, once and for all,
before any hospital hears of it. So a coordinator that died finishes the round with the set it had chosen: the log is
replayed, and only those are asked who have not answered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.messages import pack
from cameo_protocol.secagg.server_round import Collecting, Quorum, Survivors, Void, open_round
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.stages import ACK, REVEAL, UPLOAD, RoundCall, SurvivorsCall, unpair
from cameo_server.run.party import Parties
from cameo_server.run.record import RoundLog


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A sum that was opened. total: (dim,) uint32; survivors: indices in the sum; seconds: per stage.

    helpers: who revealed though it was not counted on; it is there, and in the epoch.
    """

    total: npt.NDArray[np.uint32]
    survivors: frozenset[int]
    seconds: dict[str, float]
    helpers: frozenset[int] = frozenset()


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


@dataclass(frozen=True)
class _Round:
    """What all stages of a round need."""

    parties: Parties
    epoch: Epoch
    call: RoundCall
    parameters: bytes
    log: RoundLog

    @property
    def wait(self) -> float:
        return self.parties.plan.deadlines.stage

    @property
    def threshold(self) -> int:
        return self.epoch.cohort.params.threshold


def run_round(parties: Parties, epoch: Epoch, call: RoundCall, parameters: bytes, log: RoundLog) -> Opened | VoidRound:
    """Carry one secure sum through over the invited hospitals of `call`, or finish the one that `log` holds.

    parameters: the global model's bytes that go to every hospital and are bound into every signature. Hospitals that
    do not answer a stage in time leave `parties.active`; what they send later is not looked at. Memory is O(d).
    """
    watch = _Stopwatch(parties.clock)
    watch.start()
    this = _Round(parties, epoch, call, parameters, log)
    log.repair()
    if not log.begun:
        log.append("call", call.encode(), sync=True)
    survivors = _collect(this)
    watch.lap("upload")
    if isinstance(survivors, Void):
        return VoidRound(reason=survivors.reason, seconds=watch.seconds)
    quorum = _acknowledge(this, survivors)
    watch.lap("ack")
    if isinstance(quorum, Void):
        return VoidRound(reason=quorum.reason, seconds=watch.seconds)
    helpers = frozenset(quorum.acks) - parties.active
    _reveal(this, quorum)
    helpers &= quorum.answered
    opened = quorum.close(threads=os.cpu_count() or 1)
    watch.lap("reveal")
    if isinstance(opened, Void):
        return VoidRound(reason=opened.reason, seconds=watch.seconds)
    return Opened(total=opened.total, survivors=opened.survivors, seconds=watch.seconds, helpers=helpers)


def _collect(this: _Round) -> Survivors | Void:
    """Add up the masked vectors, each verified first; the set of those that came in time is then settled."""
    parties, log = this.parties, this.log
    collecting = open_round(this.epoch, this.call.start(this.call.model_hash(this.parameters)))
    for row in log.rows("upload"):
        _take(parties, row.party, UPLOAD, partial(collecting.add_upload, row.party, row.body, row.vector))
    settled = log.first("survivors")
    if settled is None:
        missing = [i for i in this.call.invited if i not in collecting.answered and i not in parties.declined]
        request = Packet(UPLOAD, this.call.encode(), this.parameters)
        heads: dict[int, bytes] = {}
        for index, packet in parties.ask(UPLOAD, dict.fromkeys(missing, request), this.wait):
            if _take(parties, index, UPLOAD, partial(_add_upload, collecting, heads, index, packet)):
                log.append("upload", unpair(packet.body)[0], party=index, vector=packet.vector)
        parties.take_heads(heads)
    parties.traffic.masked += len(collecting.answered)
    survivors = collecting.close()
    if isinstance(survivors, Void):
        return survivors
    headers = pack(survivors.headers)
    if settled is None:
        log.append("survivors", headers, sync=True)
    elif settled.body != headers:  # a vector was lost with the disk: another set must never be shown
        return Void(this.call.round_no, "record-damaged")
    return survivors


def _add_upload(collecting: Collecting, heads: dict[int, bytes], index: int, packet: Packet) -> None:
    header, head = unpair(packet.body)
    collecting.add_upload(index, header, packet.vector)
    heads[index] = head


def _acknowledge(this: _Round, survivors: Survivors) -> Quorum | Void:
    """Ask the whole cohort to stand by the set; wait for those who are counted on, and for others while needed."""
    parties, log = this.parties, this.log
    for row in log.rows("ack"):
        _take(parties, row.party, ACK, partial(survivors.add_ack, row.party, row.body))

    def enough() -> bool:
        return len(survivors.answered) >= this.threshold

    if not enough():
        hash_ = this.call.model_hash(this.parameters)
        request = Packet(ACK, SurvivorsCall(call=this.call, model_hash=hash_, headers=survivors.headers).encode())
        missing = [i for i in this.epoch.cohort.members if i not in survivors.answered and i not in parties.declined]
        counted_on = [i for i in missing if i in parties.active]
        order = dict.fromkeys([*counted_on, *missing], request)
        for index, packet in parties.ask(ACK, order, this.wait, counted_on=counted_on, enough=enough):
            if _take(parties, index, ACK, partial(survivors.add_ack, index, packet.body)):
                log.append("ack", packet.body, party=index)
    return survivors.close()


def _reveal(this: _Round, quorum: Quorum) -> None:
    """Ask those who stand by the set for their shares."""
    parties, log = this.parties, this.log
    for row in log.rows("reveal"):
        _take(parties, row.party, REVEAL, partial(quorum.add_reveal, row.party, row.body))
    if len(quorum.answered) >= this.threshold:
        return
    request = Packet(REVEAL, pack(quorum.acks))
    missing = [index for index in sorted(quorum.acks) if index not in quorum.answered]
    for index, packet in parties.ask(REVEAL, dict.fromkeys(missing, request), this.wait):
        if _take(parties, index, REVEAL, partial(quorum.add_reveal, index, packet.body)):
            log.append("reveal", packet.body, party=index)


def _take(parties: Parties, index: int, stage: str, accept: Callable[[], None]) -> bool:
    """Give an answer to the secure sum; a party whose answer is refused is dropped by name. Whether it was taken."""
    try:
        accept()
    except Reject as error:
        parties.drop(index, stage, error.code, what=error.what)
        return False
    return True
