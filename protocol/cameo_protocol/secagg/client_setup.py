"""A hospital's side of a key set-up: advertise, share, ready. Each step uses up the state before it.

A step that is refused leaves its state as it was. A set-up that loses a party starts again from `advertise`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import Reject
from cameo_protocol.secagg import kdf, shamir
from cameo_protocol.secagg.boxes import Contents, box_hash, new_key_pair, open_box, seal_box
from cameo_protocol.secagg.client_round import Live
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.journal import Journal
from cameo_protocol.secagg.keys import Bytes, RoundKeys, Withheld
from cameo_protocol.secagg.messages import Ready, Shares, seal
from cameo_protocol.secagg.params import EpochParams
from cameo_protocol.secagg.transcript import Cohort, expected_advert, read_cohort, read_shares, signed_box_hash

Random = Callable[[int], bytes]
KEY = kdf.KEY_BYTES


class Advertised(Withheld):
    """Has published fresh keys; waits for everybody's."""

    __slots__ = ("envelope", "identity", "index", "params", "private")

    def __init__(
        self,
        params: EpochParams,
        index: int,
        identity: Ed25519PrivateKey,
        private: hpke.MLKEM768X25519PrivateKey,
        envelope: bytes,
    ) -> None:
        self.params = params
        self.index = index
        self.identity = identity
        self.private: hpke.MLKEM768X25519PrivateKey | None = private
        self.envelope = envelope


class Shared(Withheld):
    """Has dealt its shares; waits for everybody's. `cohort` is settled."""

    __slots__ = ("cohort", "dealt", "envelope", "identity", "index", "private")

    def __init__(
        self,
        cohort: Cohort,
        index: int,
        identity: Ed25519PrivateKey,
        private: hpke.MLKEM768X25519PrivateKey,
        dealt: _Dealt,
        envelope: bytes,
    ) -> None:
        self.cohort = cohort
        self.index = index
        self.identity = identity
        self.private: hpke.MLKEM768X25519PrivateKey | None = private
        self.dealt = dealt
        self.envelope = envelope


class ShareMessage(NamedTuple):
    """What a hospital sends after `share`: its signed envelope, and one sealed box for each peer."""

    envelope: bytes
    boxes: Mapping[int, bytes]


class _Dealt(Withheld):
    """A dealer's own secrets: b and c (R, 32) each, z (n, 32), and its own shares of b and c (R, 32)."""

    __slots__ = ("masks", "openers", "own_mask_shares", "own_open_shares", "z")

    def __init__(self, masks: Bytes, openers: Bytes, z: Bytes) -> None:
        self.masks = masks
        self.openers = openers
        self.z = z
        self.own_mask_shares: Bytes = np.zeros_like(masks)
        self.own_open_shares: Bytes = np.zeros_like(openers)

    def erase(self) -> None:
        """Overwrite all of it."""
        for buffer in (self.masks, self.openers, self.z, self.own_mask_shares, self.own_open_shares):
            buffer.fill(0)


def advertise(params: EpochParams, index: int, key: Ed25519PrivateKey, random: Random) -> tuple[Advertised, bytes]:
    """ADV: fresh public keys, signed with the epoch as this hospital knows it.

    index, key: this hospital's in `params`; another key is a `Reject`. random: a CSPRNG.
    """
    if params.party(index).identity != key.public_key().public_bytes_raw():
        raise Reject("identity-differs", what=f"the roster names another key for party {index} than ours")
    pair = new_key_pair(random)
    envelope = seal(key, expected_advert(params, index, pair.mlkem, pair.x25519))
    return Advertised(params, index, key, pair.private, envelope), envelope


def share(state: Advertised, adverts: Mapping[int, bytes], random: Random) -> tuple[Shared, ShareMessage]:
    """SHR: independent b and c for every round, Shamir-shared at once, and sealed to each member of the cohort.

    adverts: index -> ADV of everybody who takes part, our own among them, at least max(t, 3).
    One set of adverts for one key: a second call is a `Reject`.
    """
    if state.private is None:
        raise Reject("already-shared", what="this key set-up has dealt its shares; start a new one")
    cohort = read_cohort(state.params, adverts)
    if adverts.get(state.index) != state.envelope:
        raise Reject("own-advert-differs", what="the adverts do not hold ours as we sent it")
    dealt, boxes = _deal(cohort, state.index, random)
    transcript, me = cohort.transcript, state.index
    message = Shares(
        sender=me,
        transcript=transcript,
        masks=_commitments("mask", transcript, me, dealt.masks),
        openers=_commitments("open", transcript, me, dealt.openers),
        boxes=b"".join(box_hash(boxes[peer]) for peer in cohort.members if peer != me),
    )
    envelope = seal(state.identity, message)
    shared = Shared(cohort, me, state.identity, state.private, dealt, envelope)
    state.private = None
    return shared, ShareMessage(envelope, boxes)


def ready(
    state: Shared, share_envelopes: Mapping[int, bytes], boxes: Mapping[int, bytes], journal: Journal
) -> tuple[Live, bytes]:
    """RDY: open the boxes of all peers, derive the edge keys of every round, publish them wrapped under our c.

    share_envelopes: index -> SHR of the whole cohort, ours too. boxes: dealer -> the box for us, all peers.
    Afterwards z, the pair keys, c and the HPKE key are gone; only keys and shares of single rounds are left.
    """
    private, cohort, me = state.private, state.cohort, state.index
    if private is None:
        raise Reject("already-ready", what="this key set-up is live; start a new one")
    peers = [index for index in cohort.members if index != me]
    if share_envelopes.keys() != set(cohort.members) or boxes.keys() != set(peers):
        raise Reject("shares-incomplete", what="shares and boxes of exactly the cohort's members are needed")
    if share_envelopes[me] != state.envelope:
        raise Reject("own-shares-differ", what="the share messages do not hold ours as we sent it")
    keys = RoundKeys(cohort.params.rounds, len(cohort.members))
    for peer in peers:
        _check_box(cohort, share_envelopes[peer], boxes[peer], dealer=peer, receiver=me)
        contents = open_box(boxes[peer], private, cohort.transcript, peer, me, cohort.params.rounds)
        _take(keys, state, peer, contents)
    here = cohort.position(me)
    keys.masks[:] = state.dealt.masks
    keys.mask_shares[:, here] = state.dealt.own_mask_shares
    keys.open_shares[:, here] = state.dealt.own_open_shares
    envelope = seal(state.identity, _wrap(state, keys))
    state.dealt.erase()
    state.private = None
    return Live(cohort, me, state.identity, keys, journal), envelope


def _deal(cohort: Cohort, me: int, random: Random) -> tuple[_Dealt, dict[int, bytes]]:
    rounds, members = cohort.params.rounds, cohort.members
    secrets = _drawn(random, 2 * rounds)
    z = _drawn(random, len(members))
    dealt = _Dealt(secrets[:rounds].copy(), secrets[rounds:].copy(), z)
    flat = shamir.split(secrets.reshape(-1), cohort.params.threshold, members, random)
    shares = flat.reshape(len(members), 2, rounds, KEY)
    boxes = {}
    for position, peer in enumerate(members):
        if peer == me:
            dealt.own_mask_shares[:] = shares[position, 0]
            dealt.own_open_shares[:] = shares[position, 1]
            continue
        contents = Contents(z[position].tobytes(), shares[position, 0], shares[position, 1])
        boxes[peer] = seal_box(contents, cohort.keys[peer], cohort.transcript, me, peer)
    secrets.fill(0)
    flat.fill(0)
    return dealt, boxes


def _drawn(random: Random, rows: int) -> Bytes:
    """Fresh secrets in a buffer that can be overwritten, shape (rows, 32)."""
    return np.frombuffer(bytearray(random(rows * KEY)), dtype=np.uint8).reshape(rows, KEY)


def _commitments(use: str, transcript: bytes, me: int, secrets: Bytes) -> bytes:
    return b"".join(
        kdf.commitment(use, transcript, me, round_no, secret.tobytes()) for round_no, secret in enumerate(secrets)
    )


def _check_box(cohort: Cohort, envelope: bytes, box: bytes, *, dealer: int, receiver: int) -> None:
    message = read_shares(cohort, dealer, envelope)
    if box_hash(box) != signed_box_hash(cohort, message, receiver):
        raise PartyFault("box-swapped", dealer, what="the box is not the one that it signed for us")


def _take(keys: RoundKeys, state: Shared, peer: int, contents: Contents) -> None:
    """Keep a dealer's shares, and the edge keys of every round that follow from both halves of the pair secret."""
    cohort, me = state.cohort, state.index
    there = cohort.position(peer)
    keys.mask_shares[:, there] = contents.mask_shares
    keys.open_shares[:, there] = contents.open_shares
    low, high = min(me, peer), max(me, peer)
    own = state.dealt.z[there].tobytes()
    halves = (own, contents.z) if me < peer else (contents.z, own)
    pair = kdf.pair_key(cohort.transcript, *halves)
    for round_no in range(cohort.params.rounds):
        key = kdf.edge_key(pair, cohort.transcript, low, high, round_no)
        keys.edges[round_no, there] = np.frombuffer(key, dtype=np.uint8)


def _wrap(state: Shared, keys: RoundKeys) -> Ready:
    cohort, me = state.cohort, state.index
    wrapped, tags = [], []
    for round_no in range(cohort.params.rounds):
        opener = state.dealt.openers[round_no].tobytes()
        pad = kdf.wrap_pad(opener, cohort.transcript, me, round_no, len(cohort.members))
        for position, peer in enumerate(cohort.members):
            if peer == me:
                continue
            key = keys.edges[round_no, position]
            under = np.frombuffer(pad, dtype=np.uint8)[KEY * position : KEY * (position + 1)]
            wrapped.append((key ^ under).tobytes())
            pair = (min(me, peer), max(me, peer))
            tags.append(kdf.edge_tag(cohort.transcript, *pair, round_no, key.tobytes()))
    return Ready(sender=me, transcript=cohort.transcript, wrapped=b"".join(wrapped), tags=b"".join(tags))
