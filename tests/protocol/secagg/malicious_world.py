"""The world of a scripted attack: a coordinator, c hospitals on its side, and honest hospitals with the real code."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from secagg_parties import Federation, epoch_params, identity, set_up, stream, vectors

from cameo_protocol.errors import Reject
from cameo_protocol.secagg import client_round, client_setup, messages
from cameo_protocol.secagg.boxes import new_key_pair
from cameo_protocol.secagg.client_round import Live
from cameo_protocol.secagg.keys import RoundKeys
from cameo_protocol.secagg.params import EpochParams, RoundStart, default_threshold, most_colluders
from cameo_protocol.secagg.transcript import expected_advert


@dataclass
class World:
    """One attack: a federation whose last c hospitals collude, and a seeded choice of victims."""

    seed: object

    def __post_init__(self) -> None:
        self.rng = random.Random(repr(self.seed))
        n = self.rng.choice((4, 5))
        t = default_threshold(n)
        chosen = sorted(self.rng.sample(range(1, 256), n))
        self.params = epoch_params(n, t, most_colluders(n, t), rounds=3, dim=5, indices=chosen)
        self.members = chosen
        colluders = set(self.rng.sample(chosen, self.params.colluders))
        self.colluders = sorted(colluders)
        self.honest = [i for i in chosen if i not in colluders]
        self.victim = self.rng.choice(self.honest)
        self.refusals: list[Reject] = []
        self.opened: dict[tuple[int, int], dict[str, set[int]]] = defaultdict(lambda: {"b": set(), "c": set()})

    def federation(self, params: EpochParams | None = None) -> Federation:
        """A set-up that went well."""
        return set_up(params or self.params, seed=self.seed)

    def refused(self, codes: str, call: Callable[..., Any], *args: Any) -> None:
        """Demand that the call is refused with one of the codes, and that it released nothing and changed nothing."""
        asked = [arg for arg in args if isinstance(arg, Live)]
        if args and isinstance(args[0], Federation):
            asked.append(args[0].lives[args[1]])
        before = [_fingerprint(live) for live in asked]
        try:
            call(*args)
        except Reject as error:
            refusal = error
        else:
            raise AssertionError(f"accepted where {codes} was due")
        assert refusal.code in codes.split(), f"{refusal.code} is not among {codes}"
        assert refusal.what, "a refusal says what was wrong"
        assert before == [_fingerprint(live) for live in asked], "a refusal leaves state, keys and journal as they were"
        self.refusals.append(refusal)

    def uploads(self, fed: Federation, starts: Mapping[int, RoundStart]) -> dict[int, Any]:
        """Let hospitals upload, each on the start that it was told."""
        inputs = vectors(starts, 5)
        return {i: client_round.upload(fed.lives[i], start, inputs[i]) for i, start in starts.items()}

    def acks(self, fed: Federation, ups: Mapping[int, Any], of: Iterable[int], voters: Iterable[int]) -> dict[int, Any]:
        """Let hospitals acknowledge the survivor set `of`."""
        headers = {i: ups[i][1] for i in of}
        return {i: client_round.acknowledge(fed.lives[i], ups[i][0], headers) for i in voters}

    def reveal(self, fed: Federation, index: int, acked: client_round.Acked, acks: Mapping[int, bytes]) -> bytes:
        """Let a hospital reveal, and record whose secrets that opens a share of."""
        released = client_round.reveal(fed.lives[index], acked, acks)
        survivors = acked.survivors
        for party in survivors.start.invited:
            use = "b" if party in survivors.members else "c"
            self.opened[party, survivors.start.round_no][use].add(index)
        return released

    def leaks(self) -> bool:
        """Whether anybody's b and c of one round could both be opened."""
        need = self.params.threshold - len(self.colluders)
        honest = set(self.honest)
        return any(all(len(found[use] & honest) >= need for use in "bc") for found in self.opened.values())

    def adverts(self) -> tuple[dict[int, client_setup.Advertised], dict[int, bytes]]:
        """Everybody's first step of a set-up."""
        first = {i: client_setup.advertise(self.params, i, identity(i), stream((self.seed, i))) for i in self.members}
        return {i: state for i, (state, _) in first.items()}, {i: advert for i, (_, advert) in first.items()}

    def dealt(self) -> dict[int, Any]:
        """Everybody's set-up up to SHR."""
        states, adverts = self.adverts()
        return {i: client_setup.share(states[i], adverts, stream((self.seed, i))) for i in self.members}

    def colluding_acks(self, fed: Federation, acked: client_round.Acked) -> dict[int, bytes]:
        """What the colluders sign of a survivor set: anything that the coordinator likes."""
        facts = {"transcript": fed.epoch.cohort.transcript, "round_no": acked.survivors.start.round_no}
        digest = acked.survivors.digest
        return {
            i: messages.seal(identity(i), messages.Ack(sender=i, survivors=digest, **facts)) for i in self.colluders
        }

    def colluding_headers(self, fed: Federation, start: RoundStart) -> dict[int, bytes]:
        """Headers that fit whatever start a victim was told."""
        facts = {
            "transcript": fed.epoch.cohort.transcript,
            "round_no": start.round_no,
            "invited": start.invited_digest(),
            "context": start.context(fed.params),
            "vector": bytes(32),
        }
        chosen = [i for i in self.colluders if i in start.invited]
        return {i: messages.seal(identity(i), messages.Upload(sender=i, **facts)) for i in chosen}

    def told_otherwise(self, code: str, **facts: Any) -> None:
        """The others were told other facts of the epoch than the victim; it must notice from their adverts."""
        states, adverts = self.adverts()
        for i in self.members:
            if i != self.victim:
                pair = new_key_pair(stream((self.seed, i, "told")))
                lie = replace(expected_advert(self.params, i, pair.mlkem, pair.x25519), **facts)
                adverts[i] = messages.seal(identity(i), lie)
        self.refused(code, client_setup.share, states[self.victim], adverts, stream(1))


def _fingerprint(live: Live) -> tuple[object, ...]:
    """Where a hospital stands, all its keys and shares, and its journal."""
    keys = [getattr(live._keys, name).tobytes() for name in RoundKeys.__slots__]
    return (live._state, *keys, dict(live._journal.entries))


def outsider() -> Ed25519PrivateKey:
    """A key of the attacker's own."""
    return Ed25519PrivateKey.from_private_bytes(stream("outsider")(32))
