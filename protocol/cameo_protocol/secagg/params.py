"""What every party of an epoch agrees on, and what opens a round.

Both ends build `EpochParams` from the plan they hold; nobody takes them from a message. The hospital's policy
(approved peers, floors for n, t and c) is checked by the caller before it advertises.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cameo_protocol import canonical
from cameo_protocol.errors import Reject
from cameo_protocol.layout import Layout, RoundKind
from cameo_protocol.secagg.encoding import range_needed, range_offered

MAX_PARTIES = 255  # Shamir abscissae are the non-zero elements of GF(2^8)
MAX_ROUNDS = 4096
LEAST_SURVIVORS = 3  # a sum of two shows each of them the other's


def default_threshold(parties: int) -> int:
    """t = floor(2n/3) + 1."""
    return 2 * parties // 3 + 1


def most_colluders(parties: int, threshold: int) -> int:
    """The largest c with 2t > n + c; negative when no t-quorum is unique."""
    return 2 * threshold - parties - 1


@dataclass(frozen=True)
class Party:
    """One hospital. index: 1..255, its Shamir abscissa; identity: its 32-byte Ed25519 public key."""

    index: int
    identity: bytes


@dataclass(frozen=True, kw_only=True)
class EpochParams:
    """The public facts of one key set-up, which covers rounds 0 .. rounds - 1.

    plan_id: 1..64 bytes. run_id: at most 128 characters. epoch: number of the set-up within the run.
    threshold t: answers that open a sum; colluders c: hospitals that may side with the coordinator, 2t > n + c.
    layouts: one for each kind of round. parties: ascending by index, keys distinct. noise: as in the plan.
    Unsound parameters, also an encoding whose sum could leave the signed range, are a `Reject`.
    """

    plan_id: bytes
    run_id: str
    epoch: int
    rounds: int
    threshold: int
    colluders: int
    layouts: tuple[Layout, ...]
    parties: tuple[Party, ...]
    noise: Literal["distributed", "local"] = "distributed"

    def __post_init__(self) -> None:
        _check_parties(self.parties)
        _check_threshold(len(self.parties), self.threshold, self.colluders)
        if not (1 <= len(self.plan_id) <= 64 and len(self.run_id) <= 128):
            raise _unsound("the plan id is 1..64 bytes and the run id at most 128 characters")
        if not (0 <= self.epoch < 2**31 and 1 <= self.rounds <= MAX_ROUNDS):
            raise _unsound(f"an epoch has a number >= 0 and 1..{MAX_ROUNDS} rounds")
        _check_layouts(self)

    @property
    def indices(self) -> frozenset[int]:
        """The indices of all parties."""
        return frozenset(party.index for party in self.parties)

    @property
    def least(self) -> int:
        """The smallest set that may be summed: max(t, 3)."""
        return max(self.threshold, LEAST_SURVIVORS)

    def party(self, index: int) -> Party:
        """The party of an index; an unknown one is a `Reject`."""
        for party in self.parties:
            if party.index == index:
                return party
        raise Reject("party-unknown", what=f"index {index} is not in the roster of this epoch")

    def layout(self, kind: RoundKind) -> Layout:
        """The layout of a kind of round; a kind without one is a `Reject`."""
        for layout in self.layouts:
            if layout.kind == kind:
                return layout
        raise Reject("kind-unknown", what=f"this epoch has no rounds of kind {kind!r}")

    def roster_digest(self) -> bytes:
        """32 bytes over every index and identity key."""
        return canonical.digest("secagg/roster", [[p.index, p.identity] for p in self.parties])

    def encoding_digest(self) -> bytes:
        """32 bytes over every layout (dimensions, clips, bounds, scales, noise) and the noise mode."""
        return canonical.digest("secagg/encoding", [[layout.digest() for layout in self.layouts], self.noise])

    def digest(self) -> bytes:
        """32 bytes that bind all of it."""
        numbers = [self.epoch, self.rounds, self.threshold, self.colluders]
        return canonical.digest(
            "secagg/params",
            [self.plan_id, self.run_id, numbers, self.encoding_digest(), self.roster_digest()],
        )


@dataclass(frozen=True)
class RoundStart:
    """What opens a round: its number in the epoch, its kind, who is invited (S), and the model's 32-byte hash."""

    round_no: int
    kind: RoundKind
    invited: frozenset[int]
    model_hash: bytes

    def invited_digest(self) -> bytes:
        """H(S), 32 bytes."""
        return _invited_digest(self.invited)

    def context(self, params: EpochParams) -> bytes:
        """ctx = H(kind, its layout, the global model), 32 bytes: whoever got another model signs another ctx."""
        return _context(self.kind, params.layout(self.kind), self.model_hash)


# The same for every header of a round, so they are kept for as long as a round takes.
@lru_cache(maxsize=16)
def _invited_digest(invited: frozenset[int]) -> bytes:
    return canonical.digest("secagg/invited", sorted(invited))


@lru_cache(maxsize=16)
def _context(kind: RoundKind, layout: Layout, model_hash: bytes) -> bytes:
    return canonical.digest("secagg/context", [kind, layout.digest(), model_hash])


def check_start(params: EpochParams, cohort: Collection[int], start: RoundStart) -> None:
    """Refuse a start with a round outside the epoch, an unknown kind, or an S that is foreign or below max(t, 3)."""
    if not 0 <= start.round_no < params.rounds:
        raise Reject("round-unknown", what=f"round {start.round_no} of an epoch of {params.rounds} rounds")
    params.layout(start.kind)
    if not start.invited <= frozenset(cohort):
        raise Reject("invited-foreign", what="the invited set has a party outside the cohort of this epoch")
    if len(start.invited) < params.least:
        raise Reject("invited-too-small", what=f"{len(start.invited)} invited where {params.least} are needed")
    if len(start.model_hash) != 32:
        raise Reject("model-hash-invalid", what="the model hash is not 32 bytes")


def _unsound(what: str) -> Reject:
    return Reject("epoch-invalid", what=what)


def _check_parties(parties: tuple[Party, ...]) -> None:
    indices = [party.index for party in parties]
    if not LEAST_SURVIVORS <= len(parties) <= MAX_PARTIES:
        raise _unsound(f"an epoch has {LEAST_SURVIVORS}..{MAX_PARTIES} parties, not {len(parties)}")
    if not all(1 <= index <= MAX_PARTIES for index in indices):
        raise _unsound(f"a party's index lies outside 1..{MAX_PARTIES}")
    if indices != sorted(set(indices)):
        raise _unsound("the parties are not in ascending order of distinct indices")
    if any(len(party.identity) != 32 for party in parties):
        raise _unsound("an identity key is not 32 bytes")
    if len({party.identity for party in parties}) != len(parties):
        raise _unsound("two parties have the same identity key")


def _check_threshold(n: int, t: int, c: int) -> None:
    if not (t <= n and c >= 0 and 2 * t > n + c):
        raise _unsound(f"n={n}, t={t}, c={c}: two quorums could form; 2t > n + c and t <= n must hold")


def _check_layouts(params: EpochParams) -> None:
    kinds = [layout.kind for layout in params.layouts]
    if not kinds or len(set(kinds)) != len(kinds):
        raise _unsound("an epoch has at least one layout, and one a kind")
    n, t, c = len(params.parties), params.threshold, params.colluders
    for layout in params.layouts:
        if not layout.blocks or any(block.dim < 1 for block in layout.blocks):
            raise _unsound(f"the layout of {layout.kind} rounds has no lanes")
        for block in layout.blocks:
            if not all(math.isfinite(x) and x > 0 for x in (block.clip, block.bound, block.sigma)):
                raise _unsound(f"block {block.name}: clip, bound and noise must be finite and above zero")
            if block.scale < 1 or (block.counts and block.scale != 1):
                raise _unsound(f"block {block.name}: the scale is at least 1, and 1 for counts")
            if range_needed(block, n=n, t=t, c=c, local=params.noise == "local") > range_offered():
                raise _unsound(f"block {block.name}: a sum of {n} could leave the signed 32-bit range")
