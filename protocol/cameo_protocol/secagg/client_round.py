"""A hospital's side of a round: upload once, acknowledge one survivor set, reveal one share a party, forget.

    FREE -- upload --> UPLOADED -- acknowledge --> ACKED(U) -- reveal --> ERASED
    FREE -- acknowledge (not invited, or its upload never left) --> ACKED(U)

Accepting a round erases all keys and shares of the rounds below it. What is refused leaves the state as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import Bug, Reject
from cameo_protocol.secagg.journal import Journal
from cameo_protocol.secagg.kernel import Stream, apply_streams
from cameo_protocol.secagg.keys import RoundKeys, Withheld
from cameo_protocol.secagg.messages import Ack, Reveal, Upload, seal
from cameo_protocol.secagg.params import RoundStart, check_start
from cameo_protocol.secagg.transcript import Cohort, SurvivorSet, read_ack, read_survivors

Lanes = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Free:
    """No round is open; every round below `floor` is over."""

    floor: int = 0


@dataclass(frozen=True)
class Uploaded:
    """The one masked vector of this round was made; header: what was signed with it."""

    start: RoundStart
    header: bytes


@dataclass(frozen=True)
class Acked:
    """The one survivor set of this round that this hospital stands by."""

    survivors: SurvivorSet


class Live(Withheld):
    """A hospital in an epoch. It holds keys and shares of the rounds to come, and where it stands in this one."""

    __slots__ = ("_identity", "_journal", "_keys", "_state", "cohort", "index")

    def __init__(
        self, cohort: Cohort, index: int, identity: Ed25519PrivateKey, keys: RoundKeys, journal: Journal
    ) -> None:
        self.cohort = cohort
        self.index = index
        self._identity = identity
        self._keys = keys
        self._journal = journal
        self._state: Free | Uploaded | Acked = Free()

    @property
    def floor(self) -> int:
        """The lowest round that may still be opened."""
        match self._state:
            case Free(floor):
                return floor
            case Uploaded(start) | Acked(SurvivorSet(start)):
                return start.round_no + 1

    def close(self) -> None:
        """End the epoch: every key and share is overwritten; nothing can be uploaded or revealed any more."""
        self._keys.erase_before(self.cohort.params.rounds)
        self._state = Free(self.cohort.params.rounds)

    def holds_nothing_of(self, round_no: int) -> bool:
        """Whether every key and share of a round is overwritten."""
        return self._keys.holds_nothing_of(round_no)


def upload(
    live: Live, start: RoundStart, vector: Lanes, *, threads: int = 1, consume: bool = False
) -> tuple[Uploaded, bytes, Lanes]:
    """UPL: mask the vector of a round and sign its header. At most once a round, also across crashes.

    vector: shape (dim of the round's kind,), uint32, noised. Returns the state, the header and the masked vector.
    consume: the vector is masked in place and returned, so that nothing unmasked stays in memory, and no second
    vector is needed; otherwise it is not changed. The journal has the round before anything is returned; b and k of
    the round are overwritten. A start below the hospital's floor, for strangers, or without us is a `Reject`.
    """
    cohort = live.cohort
    _check_new(live, start)
    if live.index not in start.invited:
        raise Reject("not-invited", what=f"party {live.index} is not in the invited set of this round")
    dim = cohort.params.layout(start.kind).dim
    if vector.shape != (dim,) or vector.dtype != np.uint32:
        raise Bug("vector-shape", what=f"a {start.kind} vector is uint32 of shape ({dim},)")
    context = start.context(cohort.params)
    live._journal.record(cohort.transcript, start.round_no, "upload", context)
    masked = vector.astype("<u4", copy=not consume)
    apply_streams(masked, _streams(live, start), threads=threads)
    live._keys.erase_upload_keys(start.round_no)
    live._keys.erase_before(start.round_no)
    header = seal(
        live._identity,
        Upload(
            sender=live.index,
            transcript=cohort.transcript,
            round_no=start.round_no,
            invited=start.invited_digest(),
            context=context,
            vector=hashlib.sha256(masked.data).digest(),
        ),
    )
    live._state = Uploaded(start, header)
    return live._state, header, masked


def acknowledge(live: Live, where: RoundStart | Uploaded, headers: Mapping[int, bytes]) -> tuple[Acked, bytes]:
    """ACK: stand by one survivor set of a round, given by the survivors' signed headers. At most once a round.

    where: what `upload` returned, or the round's start for a member that did not upload (not invited, or failed).
    If we are among the survivors, our header must be the one we signed; if our upload was lost we may still answer.
    """
    start = where.start if isinstance(where, Uploaded) else where
    own = _own_header(live, start)
    survivors = read_survivors(live.cohort, start, headers)
    if live.index in headers and headers[live.index] != own:
        raise Reject("own-header-differs", what="the survivors hold a header of ours that we did not send")
    round_no = start.round_no
    live._journal.record(live.cohort.transcript, round_no, "ack", survivors.digest)
    live._keys.erase_upload_keys(round_no)
    live._keys.erase_before(round_no)
    live._state = Acked(survivors)
    ack = Ack(
        sender=live.index,
        transcript=live.cohort.transcript,
        round_no=round_no,
        survivors=survivors.digest,
    )
    return live._state, seal(live._identity, ack)


def reveal(live: Live, acked: Acked, acks: Mapping[int, bytes]) -> bytes:
    """REV: against t acknowledgements of the same set, one share for each party of S; then forget the round.

    For a survivor the share of its own-mask seed b, for a dropout the share of its opener c: never both.
    """
    if live._state is not acked:
        raise Reject("round-over", what="this acknowledgement is not the one that this hospital stands by now")
    cohort, survivors = live.cohort, acked.survivors
    if len(acks) < cohort.params.threshold:
        raise Reject("quorum-too-small", what=f"{len(acks)} acks where {cohort.params.threshold} are needed")
    for index in sorted(acks):
        read_ack(cohort, survivors, index, acks[index])
    round_no = survivors.start.round_no
    live._journal.record(cohort.transcript, round_no, "reveal", survivors.digest)
    shares = []
    for index in sorted(survivors.start.invited):
        kept = live._keys.mask_shares if index in survivors.members else live._keys.open_shares
        shares.append(kept[round_no, cohort.position(index)].tobytes())
    live._keys.erase_before(round_no + 1)
    live._state = Free(round_no + 1)
    message = Reveal(
        sender=live.index,
        transcript=cohort.transcript,
        round_no=round_no,
        survivors=survivors.digest,
        shares=b"".join(shares),
    )
    return seal(live._identity, message)


def _check_new(live: Live, start: RoundStart) -> None:
    check_start(live.cohort.params, live.cohort.members, start)
    if start.round_no < live.floor:
        raise Reject("round-spent", what=f"round {start.round_no} is over here; the next may be {live.floor}")


def _own_header(live: Live, start: RoundStart) -> bytes | None:
    """The header we sent in this round, or None if we did not upload; a round that is over is a `Reject`."""
    match live._state:
        case Uploaded(ours, header) if ours == start:
            return header
        case Uploaded(ours, _) if ours.round_no == start.round_no:
            raise Reject("start-differs", what=f"round {start.round_no} was started here in another way")
        case Acked(SurvivorSet(ours)) if ours.round_no == start.round_no:
            raise Reject("already-acknowledged", what=f"round {start.round_no} has its one survivor set here")
    _check_new(live, start)
    return None


def _streams(live: Live, start: RoundStart) -> list[Stream]:
    """Own mask added; edge keys added toward higher indices and subtracted toward lower ones, so that they cancel.

    The keys are views of the buffers that are overwritten afterwards, not copies.
    """
    round_no = start.round_no
    streams = [Stream(live._keys.masks[round_no].data, True)]
    for peer in sorted(start.invited - {live.index}):
        key = live._keys.edges[round_no, live.cohort.position(peer)]
        streams.append(Stream(key.data, live.index < peer))
    return streams
