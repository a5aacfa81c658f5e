"""What both sides compute from verified messages alike: the cohort, the transcript, and the hash of a survivor set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from cameo_protocol import canonical
from cameo_protocol.errors import Reject
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.messages import HASH_BYTES, Ack, Advert, Shares, Upload, body_limit, open_from
from cameo_protocol.secagg.params import EpochParams, RoundStart, check_start

_SAME = {
    "plan_id": "plan-foreign",
    "run_id": "run-foreign",
    "epoch": "epoch-foreign",
    "rounds": "rounds-differ",
    "threshold": "threshold-differs",
    "colluders": "colluders-differ",
    "roster": "roster-differs",
    "encoding": "encoding-differs",
}


@dataclass(frozen=True)
class Cohort:
    """The parties of one set-up. members: ascending; transcript: T, 32 bytes; keys: each member's HPKE key."""

    params: EpochParams
    members: tuple[int, ...]
    transcript: bytes
    keys: Mapping[int, hpke.MLKEM768X25519PublicKey]

    def position(self, index: int) -> int:
        """Where a member stands in every row-per-peer blob; a stranger is a `Reject`."""
        if index not in self.members:
            raise Reject("party-unknown", what=f"index {index} is not in the cohort of this epoch")
        return self.members.index(index)

    def limit(self, kind: type) -> int:
        """Bound of a body of a message kind."""
        return body_limit(kind, parties=len(self.members), rounds=self.params.rounds)


def expected_advert(params: EpochParams, index: int, mlkem_key: bytes, x25519_key: bytes) -> Advert:
    """The advert of a party that knows the epoch as we do."""
    return Advert(
        sender=index,
        plan_id=params.plan_id,
        run_id=params.run_id,
        epoch=params.epoch,
        rounds=params.rounds,
        threshold=params.threshold,
        colluders=params.colluders,
        roster=params.roster_digest(),
        encoding=params.encoding_digest(),
        mlkem=mlkem_key,
        x25519=x25519_key,
    )


def read_advert(params: EpochParams, index: int, data: bytes) -> tuple[Advert, hpke.MLKEM768X25519PublicKey]:
    """Verify one advert against the roster and our own view of the epoch; every difference has its own code."""
    advert = open_from(Advert, data, params.party(index), max_bytes=body_limit(Advert, parties=1, rounds=params.rounds))
    ours = expected_advert(params, index, advert.mlkem, advert.x25519)
    for name, code in _SAME.items():
        if getattr(advert, name) != getattr(ours, name):
            raise PartyFault(code, index, what=f"its advert has another {name.replace('_', ' ')} than our plan")
    try:
        public = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(advert.mlkem),
            x25519.X25519PublicKey.from_public_bytes(advert.x25519),
        )
    except ValueError:
        raise PartyFault("key-invalid", index, what="its advert has no valid public key") from None
    return advert, public


def read_cohort(params: EpochParams, adverts: Mapping[int, bytes]) -> Cohort:
    """The cohort of a set of adverts: all verified, at least max(t, 3) of the roster, no key twice.

    T = H(params, the cohort, the hash of each advert in order).
    """
    strangers = adverts.keys() - params.indices
    if strangers:
        raise Reject("party-unknown", what=f"an advert from {min(strangers)}, which is not in the roster")
    if len(adverts) < params.least:
        raise Reject("cohort-too-small", what=f"{len(adverts)} adverts where {params.least} are needed")
    keys = {}
    seen: set[bytes] = set()
    for index in sorted(adverts):
        advert, keys[index] = read_advert(params, index, adverts[index])
        if advert.mlkem in seen or advert.x25519 in seen:
            raise PartyFault("key-reused", index, what="its advert repeats a public key of another party")
        seen |= {advert.mlkem, advert.x25519}
    members = tuple(sorted(adverts))
    rows = [[index, hashlib.sha256(adverts[index]).digest()] for index in members]
    transcript = canonical.digest("secagg/transcript", [params.digest(), rows])
    return Cohort(params, members, transcript, keys)


def read_shares(cohort: Cohort, dealer: int, envelope: bytes) -> Shares:
    """Verify one SHR message of a cohort member: signer, T, and a row for each round and each peer."""
    message = open_from(Shares, envelope, cohort.params.party(dealer), max_bytes=cohort.limit(Shares))
    if message.transcript != cohort.transcript:
        raise PartyFault("transcript-foreign", dealer, what="its shares belong to another epoch or cohort")
    rows = HASH_BYTES * cohort.params.rounds
    boxes = HASH_BYTES * (len(cohort.members) - 1)
    if (len(message.masks), len(message.openers), len(message.boxes)) != (rows, rows, boxes):
        raise PartyFault("shares-malformed", dealer, what="not one commitment a round and one box a peer")
    return message


def signed_box_hash(cohort: Cohort, message: Shares, receiver: int) -> bytes:
    """The hash that a dealer signed of its box for a receiver."""
    peers = [index for index in cohort.members if index != message.sender]
    start = HASH_BYTES * peers.index(receiver)
    return message.boxes[start : start + HASH_BYTES]


def read_header(cohort: Cohort, start: RoundStart, index: int, data: bytes) -> Upload:
    """Verify one upload header of a round: signer, T, r, S and ctx, each with its own code."""
    header = open_from(Upload, data, cohort.params.party(index), max_bytes=cohort.limit(Upload))
    if header.transcript != cohort.transcript:
        raise PartyFault("transcript-foreign", index, what="its header belongs to another epoch or cohort")
    if header.round_no != start.round_no:
        raise PartyFault("round-foreign", index, what=f"its header belongs to round {header.round_no}")
    if header.invited != start.invited_digest():
        raise PartyFault("invited-differs", index, what="its header names another invited set")
    if header.context != start.context(cohort.params):
        raise PartyFault("context-differs", index, what="its header names another model or kind of round")
    return header


@dataclass(frozen=True)
class SurvivorSet:
    """A verified set U of a round, and the hash that is acknowledged: over r, S, ctx, U and its vector hashes."""

    start: RoundStart
    members: frozenset[int]
    digest: bytes


def read_survivors(cohort: Cohort, start: RoundStart, headers: Mapping[int, bytes]) -> SurvivorSet:
    """Verify a survivor set given by its signed headers: U within S, |U| >= max(t, 3), every header of this round."""
    check_start(cohort.params, cohort.members, start)
    strangers = headers.keys() - start.invited
    if strangers:
        raise Reject("survivor-foreign", what=f"survivor {min(strangers)} was not invited to this round")
    if len(headers) < cohort.params.least:
        raise Reject("survivors-too-few", what=f"{len(headers)} survivors where {cohort.params.least} are needed")
    rows = []
    for index in sorted(headers):
        rows.append([index, read_header(cohort, start, index, headers[index]).vector])
    facts = [cohort.transcript, start.round_no, start.invited_digest(), start.context(cohort.params), rows]
    return SurvivorSet(start, frozenset(headers), canonical.digest("secagg/survivors", facts))


def read_ack(cohort: Cohort, survivors: SurvivorSet, index: int, data: bytes) -> Ack:
    """Verify one acknowledgement of exactly this survivor set."""
    cohort.position(index)
    ack = open_from(Ack, data, cohort.params.party(index), max_bytes=cohort.limit(Ack))
    if ack.transcript != cohort.transcript:
        raise PartyFault("transcript-foreign", index, what="its ack belongs to another epoch or cohort")
    if ack.round_no != survivors.start.round_no:
        raise PartyFault("round-foreign", index, what=f"its ack belongs to round {ack.round_no}")
    if ack.survivors != survivors.digest:
        raise PartyFault("ack-of-another-set", index, what="it acknowledged another survivor set")
    return ack
