"""The coordinator's side of a key set-up: adverts, shares, readies. It holds no secret.

A faulty message raises `PartyFault` (a `Reject` with `.party`) and changes nothing: the caller may drop that party
and set up again without it. Everything is rebuilt from the same raw messages, so a restart replays them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from cameo_protocol.errors import Reject
from cameo_protocol.secagg.boxes import box_bytes, box_hash
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.kdf import KEY_BYTES, TAG_BYTES
from cameo_protocol.secagg.messages import Ready, Shares, open_from
from cameo_protocol.secagg.params import EpochParams
from cameo_protocol.secagg.transcript import Cohort, read_cohort, read_shares, signed_box_hash


@dataclass(frozen=True)
class AwaitAdverts:
    """Waits for ADV messages of an epoch."""

    params: EpochParams


@dataclass(frozen=True)
class AwaitShares:
    """The cohort is settled; waits for SHR from each member. adverts: the bundle that each member gets."""

    cohort: Cohort
    adverts: Mapping[int, bytes]


class Delivery(NamedTuple):
    """What one member gets to answer with RDY: everybody's SHR envelopes, and its own boxes by dealer."""

    envelopes: Mapping[int, bytes]
    boxes: Mapping[int, bytes]


@dataclass(frozen=True)
class AwaitReadies:
    """All shares are dealt; waits for RDY from each member. deliveries: member -> what it gets."""

    cohort: Cohort
    dealt: Mapping[int, Shares]
    deliveries: Mapping[int, Delivery]


@dataclass(frozen=True)
class Epoch:
    """A cohort that is set up: what the coordinator needs to open sums, all of it public or wrapped."""

    cohort: Cohort
    dealt: Mapping[int, Shares]
    readies: Mapping[int, Ready]

    def commitment(self, party: int, round_no: int, *, survived: bool) -> bytes:
        """The dealer's 32-byte commitment to its b (survived) or c of a round."""
        rows = self.dealt[party].masks if survived else self.dealt[party].openers
        return rows[KEY_BYTES * round_no : KEY_BYTES * (round_no + 1)]

    def wrapped(self, party: int, peer: int, round_no: int) -> bytes:
        """The edge key of party and peer in a round, wrapped under the party's c; 32 bytes."""
        start = KEY_BYTES * _row(self.cohort, party, peer, round_no)
        return self.readies[party].wrapped[start : start + KEY_BYTES]

    def tag(self, party: int, peer: int, round_no: int) -> bytes:
        """The tag that a party published of its edge key with a peer in a round; 16 bytes."""
        start = TAG_BYTES * _row(self.cohort, party, peer, round_no)
        return self.readies[party].tags[start : start + TAG_BYTES]


def open_setup(params: EpochParams) -> AwaitAdverts:
    """Begin a key set-up."""
    return AwaitAdverts(params)


def collect_adverts(state: AwaitAdverts, adverts: Mapping[int, bytes]) -> AwaitShares:
    """Settle the cohort: who advertised in time, at least max(t, 3) of the roster."""
    return AwaitShares(read_cohort(state.params, adverts), dict(adverts))


def collect_shares(
    state: AwaitShares, envelopes: Mapping[int, bytes], boxes: Mapping[int, Mapping[int, bytes]]
) -> AwaitReadies:
    """Check and route the shares. envelopes: dealer -> SHR; boxes: dealer -> receiver -> box; of every member."""
    cohort = state.cohort
    dealt = _read_all_shares(cohort, envelopes)
    _demand_all(cohort, boxes, "boxes")
    for dealer, message in dealt.items():
        receivers = set(cohort.members) - {dealer}
        if boxes[dealer].keys() != receivers:
            raise PartyFault("boxes-incomplete", dealer, what="not one box for each other member")
        for receiver in sorted(receivers):
            box = boxes[dealer][receiver]
            if len(box) != box_bytes(cohort.params.rounds):
                raise PartyFault("box-invalid", dealer, what=f"its box for {receiver} has a wrong length")
            if box_hash(box) != signed_box_hash(cohort, message, receiver):
                raise PartyFault("box-swapped", dealer, what=f"its box for {receiver} is not the one it signed")
    deliveries = {
        member: Delivery(dict(envelopes), {d: boxes[d][member] for d in cohort.members if d != member})
        for member in cohort.members
    }
    return AwaitReadies(cohort, dealt, deliveries)


def collect_readies(state: AwaitReadies, readies: Mapping[int, bytes]) -> Epoch:
    """Finish the set-up: RDY of every member, and both ends of every edge must have published the same tag."""
    return _finish(state.cohort, state.dealt, readies)


def restore(
    params: EpochParams, adverts: Mapping[int, bytes], envelopes: Mapping[int, bytes], readies: Mapping[int, bytes]
) -> Epoch:
    """The epoch again, after a restart, from the stored messages; the boxes are not needed any more."""
    cohort = read_cohort(params, adverts)
    return _finish(cohort, _read_all_shares(cohort, envelopes), readies)


def _finish(cohort: Cohort, dealt: Mapping[int, Shares], readies: Mapping[int, bytes]) -> Epoch:
    _demand_all(cohort, readies, "ready messages")
    read = {member: _read_ready(cohort, member, readies[member]) for member in cohort.members}
    epoch = Epoch(cohort, dealt, read)
    _check_edges(epoch)
    return epoch


def _demand_all(cohort: Cohort, messages: Mapping[int, object], what: str) -> None:
    missing = set(cohort.members) - messages.keys()
    if missing:
        raise PartyFault("setup-incomplete", min(missing), what=f"its {what} did not arrive")
    strangers = messages.keys() - set(cohort.members)
    if strangers:
        raise Reject("party-unknown", what=f"{what} from {min(strangers)}, which is not in the cohort")


def _read_all_shares(cohort: Cohort, envelopes: Mapping[int, bytes]) -> dict[int, Shares]:
    _demand_all(cohort, envelopes, "shares")
    return {dealer: read_shares(cohort, dealer, envelopes[dealer]) for dealer in cohort.members}


def _read_ready(cohort: Cohort, member: int, data: bytes) -> Ready:
    message = open_from(Ready, data, cohort.params.party(member), max_bytes=cohort.limit(Ready))
    if message.transcript != cohort.transcript:
        raise PartyFault("transcript-foreign", member, what="its ready belongs to another epoch or cohort")
    rows = cohort.params.rounds * (len(cohort.members) - 1)
    if (len(message.wrapped), len(message.tags)) != (KEY_BYTES * rows, TAG_BYTES * rows):
        raise PartyFault("ready-malformed", member, what="not one wrapped key and tag a round and peer")
    return message


def _row(cohort: Cohort, party: int, peer: int, round_no: int) -> int:
    """Row of a peer in a party's ready message: rounds outside, peers ascending without the party inside."""
    place, own = cohort.position(peer), cohort.position(party)
    return round_no * (len(cohort.members) - 1) + place - (place > own)


def _check_edges(epoch: Epoch) -> None:
    """Name the party with the most differing edges; one differing edge alone accuses the higher index of the two."""
    members = epoch.cohort.members
    shape = (epoch.cohort.params.rounds, len(members) - 1, TAG_BYTES)
    tags = [np.frombuffer(epoch.readies[member].tags, dtype=np.uint8).reshape(shape) for member in members]
    blamed: Counter[int] = Counter()
    for low, high in combinations(range(len(members)), 2):
        # Without the party itself, a higher one stands one row earlier.
        if not np.array_equal(tags[low][:, high - 1], tags[high][:, low]):
            blamed.update((members[low], members[high]))
    if blamed:
        party = max(blamed, key=lambda index: (blamed[index], index))
        raise PartyFault("edge-differs", party, what="it and a peer published different tags of their edge keys")
