"""Answers the coordinator's messages, one at a time, in the one order there is.

The order is kept by types: each phase object holds what exists in it, and each message names the phase it needs.
A message that does not fit is refused and leaves the state as it was. Whatever goes wrong inside, only a stable
code of ours goes back; texts and traces stay in the hospital's own log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cameo_client.node.admission import Admitted, Gatekeeper
from cameo_client.node.publication import Library
from cameo_protocol.epochs import epoch_params
from cameo_protocol.errors import CameoError, OperatorError, PeerMisbehaved, Reject
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.client_round import Acked, Live, Uploaded, acknowledge, reveal, upload
from cameo_protocol.secagg.client_setup import Advertised, Shared, advertise, ready, share
from cameo_protocol.secagg.journal import Journal
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.secagg.params import check_start
from cameo_protocol.stages import (
    ACK,
    ADMIT,
    ADVERTISE,
    FINISH,
    MAX_ROUND_ITEM,
    MAX_SETUP_ITEM,
    PUBLISH,
    READY,
    REVEAL,
    ROLLED_BACK,
    SHARE,
    UPLOAD,
    EpochCall,
    RoundCall,
    SurvivorsCall,
    error_packet,
    pair,
    unpair,
)

FAILED_LOCALLY = "failed-local"
OUT_OF_ORDER = "out-of-order"


@dataclass(frozen=True)
class Advertising:
    """After the first message of an epoch's set-up."""

    admitted: Admitted
    state: Advertised


@dataclass(frozen=True)
class Sharing:
    """After the second message of an epoch's set-up."""

    admitted: Admitted
    state: Shared


@dataclass(frozen=True)
class Living:
    """The epoch is set up: rounds may be asked for."""

    admitted: Admitted
    epoch: int
    state: Live


@dataclass(frozen=True)
class InRound:
    """A vector of this round has been handed out."""

    living: Living
    state: Uploaded


@dataclass(frozen=True)
class Acknowledged:
    """One survivor set of this round has been acknowledged."""

    living: Living
    state: Acked


@dataclass(frozen=True)
class Idle:
    """No run."""


Phase = Idle | Admitted | Advertising | Sharing | Living | InRound | Acknowledged
ROUND_STAGES = (UPLOAD, ACK, REVEAL)


def _pass(_point: str) -> None:
    """A failpoint that is off."""


class Hospital:
    """One hospital's answers. Thread-safe: messages are handled one after the other.

    A coordinator that died before it had an answer asks again. The message of a round that was answered last, asked
    again byte for byte, gets the same bytes: nothing is computed, charged or changed, and nothing new is told.

    journal: records what is about to leave and refuses a second time; it must be on disk when it returns.
    report: called with (code, what) for the hospital's own log. reach: called with the name of each failpoint.
    """

    def __init__(
        self,
        gate: Gatekeeper,
        library: Library,
        journal: Journal,
        random: Callable[[int], bytes],
        report: Callable[[str, str], None],
        reach: Callable[[str], None] = _pass,
    ) -> None:
        self._gate = gate
        self._library = library
        self._journal = journal
        self._random = random
        self._report = report
        self._reach = reach
        self._phase: Phase = Idle()
        self._last: tuple[Packet, Packet] | None = None
        self._lock = threading.Lock()
        self._stages: dict[str, Callable[[Packet], Packet]] = {
            ADMIT: self._admit,
            ADVERTISE: self._advertise,
            SHARE: self._share,
            READY: self._ready,
            UPLOAD: self._upload,
            ACK: self._acknowledge,
            REVEAL: self._reveal,
            PUBLISH: self._publish,
            FINISH: self._finish,
        }

    def handle(self, packet: Packet) -> Packet:
        """The answer to one packet. Never raises: a failure becomes an error packet that says only a code."""
        stage = self._stages.get(packet.kind)
        if stage is None:
            return error_packet("unknown-stage")
        with self._lock:
            try:
                self._reach(f"{packet.kind}-asked")
                answer = self._answer(packet, stage)
                self._reach(f"{packet.kind}-answered")
                return answer
            except PeerMisbehaved as error:
                # What the other side sent is its own; naming it tells nothing about our patients.
                self._report(error.code, error.what)
                return error_packet(error.code)
            except OperatorError as error:
                # Only that an old ledger was put back may be told: it follows from no patient, and others must know.
                code = error.code if error.code == ROLLED_BACK else FAILED_LOCALLY
                self._report(code, f"{error.code}: {error.what}; {error.do}, while answering {packet.kind}")
                return error_packet(code)
            except Exception as error:  # the last line of defence: no text of ours may travel
                # Its words may hold a patient's value, so not even our own log gets them, unless they are ours.
                said = f"{error.code}: {error.what}" if isinstance(error, CameoError) else type(error).__name__
                self._report(FAILED_LOCALLY, f"{said}, while answering {packet.kind}")
                return error_packet(FAILED_LOCALLY)

    def _answer(self, packet: Packet, stage: Callable[[Packet], Packet]) -> Packet:
        if self._last is not None and packet == self._last[0]:
            return self._last[1]
        answer = stage(packet)
        if packet.kind in ROUND_STAGES:
            self._last = packet, answer
        return answer

    # --- before rounds ------------------------------------------------------------------------------------------

    def _admit(self, packet: Packet) -> Packet:
        current = self._current()
        run, admitted, answer = self._gate.consider(packet.body, current)
        if admitted is None:
            self._end(run)  # whoever declines the run that it is in answers no more of it
        elif admitted is not current:
            self._erase_keys()
            self._phase = admitted
        return Packet(ADMIT, answer)

    def _current(self) -> Admitted | None:
        match self._phase:
            case Admitted() as admitted:
                return admitted
            case Advertising(admitted=admitted) | Sharing(admitted=admitted) | Living(admitted=admitted):
                return admitted
            case InRound(living=living) | Acknowledged(living=living):
                return living.admitted
            case Idle():
                return None

    def _admitted(self) -> Admitted:
        current = self._current()
        if current is None:
            raise _out_of_order("no run has been admitted")
        return current

    def _advertise(self, packet: Packet) -> Packet:
        """A new epoch may begin in any phase of an admitted run; whatever an older epoch held is gone then."""
        admitted = self._admitted()
        call = EpochCall.decode(packet.body)
        self._gate.check_policy(admitted)
        admitted.check_epoch(call)
        params = epoch_params(admitted.plan, call)
        state, advert = advertise(params, admitted.index, self._gate.identity, self._random)
        admitted.last_epoch = call.epoch
        self._erase_keys()
        self._phase = Advertising(admitted, state)
        return Packet(ADVERTISE, advert)

    def _share(self, packet: Packet) -> Packet:
        if not isinstance(self._phase, Advertising):
            raise _out_of_order("shares were asked for before keys were advertised")
        adverts = unpack(packet.body, max_item_bytes=MAX_SETUP_ITEM)
        self._phase.admitted.check_cohort(tuple(sorted(adverts)))
        state, message = share(self._phase.state, adverts, self._random)
        self._phase = Sharing(self._phase.admitted, state)
        return Packet(SHARE, pair(message.envelope, pack(message.boxes)))

    def _ready(self, packet: Packet) -> Packet:
        if not isinstance(self._phase, Sharing):
            raise _out_of_order("readiness was asked for before shares were made")
        envelopes, boxes = (unpack(part, max_item_bytes=MAX_SETUP_ITEM) for part in unpair(packet.body))
        live, answer = ready(self._phase.state, envelopes, boxes, self._journal)
        self._phase = Living(self._phase.admitted, live.cohort.params.epoch, live)
        return Packet(READY, answer)

    # --- a round ------------------------------------------------------------------------------------------------

    def _living(self) -> Living:
        match self._phase:
            case Living() as living:
                return living
            case InRound(living=living) | Acknowledged(living=living):
                return living
        raise _out_of_order("no epoch is set up")

    def _upload(self, packet: Packet) -> Packet:
        """Check, then charge the ledger, then compute: the spend is on disk before any byte can leave."""
        living = self._living()
        call = RoundCall.decode(packet.body)
        admitted = living.admitted
        parameters = admitted.check_round(call, packet.vector, living.epoch)
        start = call.start(call.model_hash(packet.vector))
        live = living.state
        check_start(live.cohort.params, live.cohort.members, start)
        if start.round_no < live.floor:
            raise Reject("round-spent", what=f"round {start.round_no} is over here; the next may be {live.floor}")
        self._gate.check_echo(admitted.plan, admitted.index, call.heads)
        self._gate.keep_receipt(call, admitted.index)
        self._gate.check_policy(admitted)
        admitted.check_cohort(tuple(sorted(live.cohort.members)))
        admitted.charge(call)
        self._gate.witness.released(call)
        self._reach("upload-charged")
        vector = admitted.contributor.noisy_vector(call.kind, parameters)
        state, header, masked = upload(live, start, vector, threads=os.cpu_count() or 1, consume=True)
        self._phase = InRound(living, state)
        return Packet(UPLOAD, pair(header, self._gate.head()), np.ascontiguousarray(masked, dtype="<u4").tobytes())

    def _acknowledge(self, packet: Packet) -> Packet:
        """Any member of the cohort may stand by a survivor set, also one whose upload was lost or not asked for."""
        living = self._living()
        asked = SurvivorsCall.decode(packet.body)
        living.admitted.check_call(asked.call, living.epoch)
        state, answer = acknowledge(living.state, asked.call.start(asked.model_hash), asked.headers)
        self._phase = Acknowledged(living, state)
        return Packet(ACK, answer)

    def _reveal(self, packet: Packet) -> Packet:
        if not isinstance(self._phase, Acknowledged):
            raise _out_of_order("shares were asked for before an acknowledgement")
        living = self._phase.living
        acks = unpack(packet.body, max_item_bytes=MAX_ROUND_ITEM)
        answer = reveal(living.state, self._phase.state, acks)
        self._phase = living
        return Packet(REVEAL, answer)

    # --- the end ------------------------------------------------------------------------------------------------

    def _publish(self, packet: Packet) -> Packet:
        run, answer = self._library.store(packet.body)
        self._end(run)
        return Packet(PUBLISH, answer)

    def _finish(self, packet: Packet) -> Packet:
        self._end(self._gate.finish(packet.body))
        return Packet(FINISH, b"")

    def _end(self, run: str) -> None:
        """The run is over. A late word about another one, left while we were away, ends nothing here."""
        current = self._current()
        if current is not None and current.run == run:
            self._erase_keys()
            self._phase = Idle()

    def _erase_keys(self) -> None:
        """Overwrite the keys of an epoch that is being left, and forget its last answer."""
        self._last = None
        match self._phase:
            case Living() as living:
                living.state.close()
            case InRound(living=living) | Acknowledged(living=living):
                living.state.close()


def _out_of_order(what: str) -> Reject:
    return Reject(OUT_OF_ORDER, what=what)
