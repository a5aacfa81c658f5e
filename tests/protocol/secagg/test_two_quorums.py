"""No two survivor sets of a round can both reach a quorum, and nobody's b and c are both opened (invariants 4, 6).

First an exhaustive check with the real hospitals at n=4, t=3, c=1: every set that a malicious coordinator could show,
to every honest hospital, with every selection of the acks that follow. Then the rule itself for all small n, t, c,
with the control that it fails exactly where 2t <= n + c.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
from secagg_parties import epoch_params, identity, reveal_kinds, set_up, snapshot, vectors

from cameo_protocol.errors import Reject
from cameo_protocol.secagg import client_round, messages

HONEST, LIAR = (1, 2, 3), 4


@pytest.fixture(scope="module")
def explored():
    """sets: every showable header set. acked[i, k]: hospital i after it acknowledged set k, its ack, its state."""
    fed = set_up(epoch_params(rounds=1))
    start, inputs = fed.start(), vectors(fed.all, 7)
    ups = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in fed.all}
    header = messages.open_from(messages.Upload, ups[LIAR][1], fed.params.party(LIAR), max_bytes=512)
    second = messages.seal(identity(LIAR), messages.Upload(**{**vars(header), "vector": bytes(32)}))
    sets = []
    for size in (3, 4):
        for members in itertools.combinations(sorted(fed.all), size):
            shown = {i: ups[i][1] for i in members}
            sets.append(shown)
            if LIAR in members:
                sets.append({**shown, LIAR: second})
    acked = {}
    for i, (k, shown) in itertools.product(HONEST, enumerate(sets)):
        live = snapshot(fed.lives[i])
        live._journal = type("Forgetful", (), {"record": lambda *_: None})()
        acked[i, k] = (live, *client_round.acknowledge(live, ups[i][0], shown))
    return fed, sets, acked


def lie(fed, acked) -> bytes:
    survivors = acked.survivors
    facts = {"transcript": fed.epoch.cohort.transcript, "round_no": 0, "survivors": survivors.digest}
    return messages.seal(identity(LIAR), messages.Ack(sender=LIAR, **facts))


def test_all_sets_are_told_apart(explored) -> None:
    _, sets, acked = explored
    assert len(sets) == 9
    for i in HONEST:
        assert len({acked[i, k][1].survivors.digest for k in range(len(sets))}) == len(sets)


def test_no_hospital_acknowledges_a_second_set(explored) -> None:
    _, sets, acked = explored
    for i, k in acked:
        for shown in sets:
            with pytest.raises(Reject, match="already-acknowledged"):
                client_round.acknowledge(acked[i, k][0], acked[i, k][1].survivors.start, shown)


def test_every_choice_of_the_coordinator_opens_at_most_one_set(explored) -> None:
    fed, sets, acked = explored
    reveals = {}
    for (i, k), (live, state, _) in acked.items():
        for size in range(3):
            for helpers in itertools.combinations([j for j in HONEST if j != i], size):
                acks = {j: acked[j, k][2] for j in (i, *helpers)} | {LIAR: lie(fed, state)}
                try:
                    client_round.reveal(snapshot(live), state, acks)
                    reveals[i, k, helpers] = True
                except Reject:
                    reveals[i, k, helpers] = False
    choices = itertools.product([None, *range(len(sets))], repeat=len(HONEST))
    opened_somewhere = 0
    for choice in choices:
        shown = dict(zip(HONEST, choice, strict=True))
        opened, shares = set(), defaultdict(set)
        for i, k in shown.items():
            helpers = tuple(j for j in HONEST if j != i and shown[j] == k)
            if k is not None and reveals[i, k, helpers]:
                opened.add(k)
                for party, use in reveal_kinds(fed, acked[i, k][1]).items():
                    shares[party, use].add(i)
        assert len(opened) <= 1
        opened_somewhere += len(opened)
        for party in fed.all:
            both = [len(shares[party, use] | {LIAR}) >= fed.params.threshold for use in "bc"]
            assert not all(both)
    assert opened_somewhere, "the check is not empty"


def two_quorums_fit(n: int, t: int, c: int) -> bool:
    """Whether some way to show two sets to n - c honest hospitals gives t acks to both; colluders sign both."""
    return any(first + c >= t and (n - c - first) + c >= t for first in range(n - c + 1))


def test_the_rule_for_all_small_cohorts_and_its_control() -> None:
    for n in range(3, 40):
        for t, c in itertools.product(range(1, n + 1), range(n)):
            sound = 2 * t > n + c
            assert two_quorums_fit(n, t, c) == (not sound)
            if n <= 8:
                try:
                    epoch_params(n, t, c, rounds=1)
                    accepted = True
                except Reject:
                    accepted = False
                assert accepted == sound
