"""The coordinator's side of a round: collect uploads, survivors' acks, a quorum's reveals; open the sum or void it.

    COLLECT -- close --> SURVIVORS -- close --> QUORUM -- close --> SUM
        any close with too few answers --> VOID          (a void round is never asked for again)

Vectors are added up as they arrive, so memory is O(d). A state accepts until it is closed; a refused message leaves
it as it was. Replaying the same raw messages gives the same states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Reject
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.kernel import apply_streams
from cameo_protocol.secagg.messages import MASKED_LANE_BYTES, Reveal, open_from
from cameo_protocol.secagg.opening import Opened, open_round_keys
from cameo_protocol.secagg.params import RoundStart, check_start
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.secagg.transcript import SurvivorSet, read_ack, read_header, read_survivors

Lanes = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Void:
    """The round gave no sum, and its number is spent. reason: a stable code. blamed: who is at fault, if known."""

    round_no: int
    reason: str
    blamed: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Summed:
    """The sum over the survivors, shape (d,), uint32, modulo 2^32. blamed: who revealed a wrong share, if anybody."""

    round_no: int
    total: Lanes
    survivors: frozenset[int]
    blamed: frozenset[int] = frozenset()


def open_round(epoch: Epoch, start: RoundStart) -> Collecting:
    """Begin a round; S must lie in the cohort and have at least max(t, 3) members."""
    check_start(epoch.cohort.params, epoch.cohort.members, start)
    return Collecting(epoch, start)


class Collecting:
    """Takes masked vectors of the invited."""

    def __init__(self, epoch: Epoch, start: RoundStart) -> None:
        self.epoch = epoch
        self.start = start
        self._dim = epoch.cohort.params.layout(start.kind).dim
        self._total: Lanes | None = np.zeros(self._dim, dtype=np.uint32)
        self._headers: dict[int, bytes] = {}

    @property
    def answered(self) -> frozenset[int]:
        """Who has uploaded."""
        return frozenset(self._headers)

    def add_upload(self, index: int, header: bytes, vector: bytes) -> None:
        """Verify one upload and add it up. vector: little-endian uint32, 4 d bytes, bound by the header's hash."""
        total = _still_open(self._total)
        if index not in self.start.invited:
            raise Reject("not-invited", what=f"an upload from {index}, which is not in the invited set")
        if index in self._headers:
            raise PartyFault("upload-repeated", index, what="it has uploaded in this round")
        if len(vector) != MASKED_LANE_BYTES * self._dim:
            raise PartyFault("vector-length", index, what=f"{len(vector)} bytes of vector for {self._dim} lanes")
        signed = read_header(self.epoch.cohort, self.start, index, header)
        if hashlib.sha256(vector).digest() != signed.vector:
            raise PartyFault("vector-differs", index, what="its vector is not the one that its header signs")
        np.add(total, np.frombuffer(vector, dtype="<u4"), out=total)
        self._headers[index] = header

    def close(self) -> Survivors | Void:
        """Take who has uploaded as U. Later uploads are refused, and their b is never opened."""
        total = _still_open(self._total)
        self._total = None
        if len(self._headers) < self.epoch.cohort.params.least:
            return Void(self.start.round_no, "uploads-too-few")
        return Survivors(self.epoch, self.start, self._headers, total)


class Survivors:
    """Takes acknowledgements of the survivor set from any member of the cohort. headers: what each of them gets."""

    def __init__(self, epoch: Epoch, start: RoundStart, headers: Mapping[int, bytes], total: Lanes) -> None:
        self.epoch = epoch
        self.start = start
        self.headers = dict(headers)
        self.survivors: SurvivorSet = read_survivors(epoch.cohort, start, headers)
        self._total: Lanes | None = total
        self._acks: dict[int, bytes] = {}

    @property
    def answered(self) -> frozenset[int]:
        """Who has acknowledged."""
        return frozenset(self._acks)

    def add_ack(self, index: int, envelope: bytes) -> None:
        """Verify and keep one acknowledgement of this survivor set."""
        _still_open(self._total)
        if index in self._acks:
            raise PartyFault("ack-repeated", index, what="it has acknowledged in this round")
        read_ack(self.epoch.cohort, self.survivors, index, envelope)
        self._acks[index] = envelope

    def close(self) -> Quorum | Void:
        """A quorum if at least t acknowledged."""
        total = _still_open(self._total)
        self._total = None
        if len(self._acks) < self.epoch.cohort.params.threshold:
            return Void(self.start.round_no, "acks-too-few")
        return Quorum(self.epoch, self.survivors, self._acks, total)


class Quorum:
    """Takes reveals from any member of the cohort. acks: what each of them gets."""

    def __init__(self, epoch: Epoch, survivors: SurvivorSet, acks: Mapping[int, bytes], total: Lanes) -> None:
        self.epoch = epoch
        self.survivors = survivors
        self.acks = dict(acks)
        self._total: Lanes | None = total
        self._shares: dict[int, bytes] = {}

    @property
    def answered(self) -> frozenset[int]:
        """Who has revealed."""
        return frozenset(self._shares)

    def add_reveal(self, index: int, envelope: bytes) -> None:
        """Verify and keep one reveal: of this set, with one share for each member of S."""
        _still_open(self._total)
        cohort, start = self.epoch.cohort, self.survivors.start
        cohort.position(index)
        if index in self._shares:
            raise PartyFault("reveal-repeated", index, what="it has revealed in this round")
        message = open_from(Reveal, envelope, cohort.params.party(index), max_bytes=cohort.limit(Reveal))
        if message.transcript != cohort.transcript:
            raise PartyFault("transcript-foreign", index, what="its reveal belongs to another epoch or cohort")
        if message.round_no != start.round_no:
            raise PartyFault("round-foreign", index, what=f"its reveal belongs to round {message.round_no}")
        if message.survivors != self.survivors.digest:
            raise PartyFault("reveal-of-another-set", index, what="it revealed for another survivor set")
        if len(message.shares) != 32 * len(start.invited):
            raise PartyFault("reveal-malformed", index, what="not one share for each invited party")
        self._shares[index] = message.shares

    def close(self, *, threads: int = 1) -> Summed | Void:
        """Open the sum with t reveals, everything checked against the dealers' commitments first; or void."""
        total = _still_open(self._total)
        self._total = None
        round_no = self.survivors.start.round_no
        if len(self._shares) < self.epoch.cohort.params.threshold:
            return Void(round_no, "reveals-too-few")
        opened = open_round_keys(self.epoch, self.survivors, self._shares)
        if not isinstance(opened, Opened):
            return Void(round_no, opened.reason, opened.blamed)
        apply_streams(total, opened.streams, threads=threads)
        return Summed(round_no, total, self.survivors.members, opened.blamed)


def _still_open(total: Lanes | None) -> Lanes:
    if total is None:
        raise Reject("stage-closed", what="this stage of the round is closed; the message came too late")
    return total
