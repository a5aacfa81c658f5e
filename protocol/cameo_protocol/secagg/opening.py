"""Opening a round: from revealed shares to the keystreams that stand between the masked total and the sum.

Every opened secret is checked against its dealer's commitment, every unwrapped edge key against the tag that both
ends published, before anything is subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cameo_protocol.secagg import kdf, shamir
from cameo_protocol.secagg.kernel import Stream
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.secagg.transcript import SurvivorSet

KEY = kdf.KEY_BYTES


@dataclass(frozen=True, repr=False)
class Opened:
    """The keystreams to apply to the masked total. blamed: revealers whose shares had to be left out."""

    streams: Sequence[Stream]
    blamed: frozenset[int] = frozenset()


@dataclass(frozen=True)
class NotOpened:
    """Why not. reason: "shares-wrong" (a dealer or a revealer) or "edges-wrong" (blamed wrapped another key)."""

    reason: str
    blamed: frozenset[int] = frozenset()


def open_round_keys(epoch: Epoch, survivors: SurvivorSet, shares: Mapping[int, bytes]) -> Opened | NotOpened:
    """Join the shares of at least t revealers and check the result.

    shares: revealer -> 32 bytes for each party of S, ascending. If the first t do not fit the commitments, each one
    revealer is left out in turn, where more than t answered. If that does not help, the round is void; the one
    dealer whose secret fits in no choice is blamed (two lying revealers can make that an honest one: a hint).
    """
    threshold = epoch.cohort.params.threshold
    revealers = sorted(shares)
    never_fits = survivors.start.invited
    for left_out in (None, *revealers):
        chosen = [index for index in revealers if index != left_out][:threshold]
        if len(chosen) < threshold:
            return NotOpened("shares-wrong")
        secrets = _join(survivors, shares, chosen)
        wrong = _mismatches(epoch, survivors, secrets)
        if not wrong:
            blamed: frozenset[int] = frozenset() if left_out is None else frozenset({left_out})
            return _streams(epoch, survivors, secrets, blamed)
        never_fits &= wrong
    return NotOpened("shares-wrong", never_fits if len(never_fits) == 1 else frozenset())


def _join(survivors: SurvivorSet, shares: Mapping[int, bytes], chosen: Sequence[int]) -> dict[int, bytes]:
    rows = np.stack([np.frombuffer(shares[index], dtype=np.uint8) for index in chosen])
    flat = shamir.join(rows, chosen).tobytes()
    parties = sorted(survivors.start.invited)
    return {party: flat[KEY * place : KEY * (place + 1)] for place, party in enumerate(parties)}


def _mismatches(epoch: Epoch, survivors: SurvivorSet, secrets: Mapping[int, bytes]) -> frozenset[int]:
    """The dealers whose opened secret is not the one that they committed to."""
    round_no, transcript = survivors.start.round_no, epoch.cohort.transcript
    wrong = set()
    for party, secret in secrets.items():
        survived = party in survivors.members
        use = "mask" if survived else "open"
        opened = kdf.commitment(use, transcript, party, round_no, secret)
        if opened != epoch.commitment(party, round_no, survived=survived):
            wrong.add(party)
    return frozenset(wrong)


def _streams(
    epoch: Epoch, survivors: SurvivorSet, secrets: Mapping[int, bytes], blamed: frozenset[int]
) -> Opened | NotOpened:
    """Own masks of survivors are subtracted; edges of a dropout to survivors are undone, by the survivors' signs."""
    round_no, transcript = survivors.start.round_no, epoch.cohort.transcript
    members = epoch.cohort.members
    streams = [Stream(secrets[party], False) for party in sorted(survivors.members)]
    liars = set()
    for gone in sorted(survivors.start.invited - survivors.members):
        pad = kdf.wrap_pad(secrets[gone], transcript, gone, round_no, len(members))
        for peer in sorted(survivors.members):
            start = KEY * epoch.cohort.position(peer)
            wrapped = epoch.wrapped(gone, peer, round_no)
            key = bytes(a ^ b for a, b in zip(wrapped, pad[start : start + KEY], strict=True))
            low, high = min(gone, peer), max(gone, peer)
            if kdf.edge_tag(transcript, low, high, round_no, key) != epoch.tag(gone, peer, round_no):
                liars.add(gone)
            streams.append(Stream(key, peer > gone))  # the survivor added it if peer < gone
    return NotOpened("edges-wrong", frozenset(liars)) if liars else Opened(streams, blamed)
