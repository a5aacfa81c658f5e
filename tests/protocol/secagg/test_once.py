"""One upload, one acknowledged set, one reveal a round, also across crashes; then the keys are gone.

Invariants 3, 4 and 12 of the design. The mutants that these tests must catch are listed in mutants.py.
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from secagg_parties import MemoryJournal, epoch_params, identity, run_round, set_up, snapshot, stream, vectors

from cameo_protocol.errors import Bug, Reject
from cameo_protocol.secagg import client_round, client_setup


@pytest.fixture
def fed():
    return set_up(epoch_params(rounds=3))


class Crash(BaseException):
    """The process dies."""


class CrashingJournal(MemoryJournal):
    """Dies at the n-th record: before it is written, or after it but before the caller goes on."""

    def __init__(self, at: int, written: bool) -> None:
        super().__init__()
        self.at, self.written, self.count = at, written, 0

    def record(self, transcript, round_no, stage, digest) -> None:
        self.count += 1
        if self.count != self.at:
            return super().record(transcript, round_no, stage, digest)
        if self.written:
            super().record(transcript, round_no, stage, digest)
        raise Crash


def attempt(released, name, call, *args):
    """Run a stage; note what it released, or that it was refused."""
    try:
        result = call(*args)
    except Reject:
        return None
    released.append(name)
    return result


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_between_any_two_writes_never_releases_a_stage_twice(fed, at: int, written: bool) -> None:
    """Worst case: the dead process comes back from a snapshot of every earlier moment, keys and all."""
    live, start, inputs = fed.lives[1], fed.start(), vectors(fed.all, 7)
    live._journal = CrashingJournal(at, written)
    others = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in (2, 3, 4)}
    headers = {i: up[1] for i, up in others.items()}
    acks = {i: client_round.acknowledge(fed.lives[i], others[i][0], headers)[1] for i in others}
    moments, released = [snapshot(live)], []
    try:
        client_round.upload(live, start, inputs[1])
        released.append("upload")
        moments.append(snapshot(live))
        acked, _ = client_round.acknowledge(live, start, headers)
        released.append("ack")
        moments.append(snapshot(live))
        client_round.reveal(live, acked, acks)
        released.append("reveal")
    except Crash:
        moments.append(snapshot(live))
    for moment in moments:
        ghost = snapshot(moment)
        attempt(released, "upload", client_round.upload, ghost, start, inputs[1])
        ghost = snapshot(moment)
        again = attempt(released, "ack", client_round.acknowledge, ghost, start, headers)
        if again is not None:
            attempt(released, "reveal", client_round.reveal, ghost, again[0], acks)
        if isinstance(moment._state, client_round.Acked):
            attempt(released, "reveal", client_round.reveal, snapshot(moment), moment._state, acks)
    assert len(released) == len(set(released)), f"released more than once: {released}"


def test_a_journal_that_cannot_write_stops_the_release_and_may_be_tried_again(fed) -> None:
    live, start, inputs = fed.lives[1], fed.start(), vectors(fed.all, 7)
    ups = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in (2, 3, 4)}
    headers = {i: up[1] for i, up in ups.items()}
    acks = {i: client_round.acknowledge(fed.lives[i], ups[i][0], headers)[1] for i in ups}
    journal = fed.journals[1]
    for broken in (True, False):
        journal.broken = broken
        if broken:
            with pytest.raises(OSError, match="no space"):
                client_round.upload(live, start, inputs[1])
            continue
        up, _, _ = client_round.upload(live, start, inputs[1])
    for broken in (True, False):
        journal.broken = broken
        if broken:
            with pytest.raises(OSError, match="no space"):
                client_round.acknowledge(live, up, headers)
            continue
        acked, _ = client_round.acknowledge(live, up, headers)
    for broken in (True, False):
        journal.broken = broken
        if broken:
            with pytest.raises(OSError, match="no space"):
                client_round.reveal(live, acked, acks)
            continue
        assert client_round.reveal(live, acked, acks)


def test_the_second_time_is_refused_by_the_state_alone(fed) -> None:
    """Without the journal: at-most-once lives in the core too."""
    live, start, inputs = fed.lives[1], fed.start(), vectors(fed.all, 7)
    for i in fed.lives:
        fed.lives[i]._journal = type("Forgetful", (), {"record": lambda *_: None})()
    ups = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in fed.lives}
    headers = {i: up[1] for i, up in ups.items()}
    with pytest.raises(Reject, match="round-spent"):
        client_round.upload(live, start, inputs[1])
    acked = {i: client_round.acknowledge(fed.lives[i], ups[i][0], headers) for i in fed.lives}
    for again in (headers, {i: headers[i] for i in (1, 2, 3)}):
        with pytest.raises(Reject, match="already-acknowledged"):
            client_round.acknowledge(live, start, again)
    acks = {i: ack for i, (_, ack) in acked.items()}
    client_round.reveal(live, acked[1][0], acks)
    with pytest.raises(Reject, match="round-over"):
        client_round.reveal(live, acked[1][0], acks)
    with pytest.raises(Reject, match="round-spent"):
        client_round.acknowledge(live, ups[1][0], headers)


def test_a_refusal_leaves_the_state_as_it_was(fed) -> None:
    inputs, start = vectors(fed.all, 7), fed.start()
    ups = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in fed.lives}
    headers = {i: up[1] for i, up in ups.items()}
    before = dict(fed.journals[1].entries)
    with pytest.raises(Reject):
        client_round.acknowledge(fed.lives[1], ups[1][0], {**headers, 2: headers[3]})
    with pytest.raises(Reject):
        client_round.upload(fed.lives[1], fed.start(99), inputs[1])
    assert fed.journals[1].entries == before
    assert client_round.acknowledge(fed.lives[1], ups[1][0], headers)


def test_keys_of_a_round_are_gone_after_reveal_and_of_all_rounds_below_a_new_one(fed) -> None:
    live = fed.lives[1]
    run_round(fed, fed.start(0), vectors(fed.all, 7))
    assert live.holds_nothing_of(0)
    assert not live.holds_nothing_of(1)
    client_round.upload(live, fed.start(2), vectors([1], 7)[1])
    assert live.holds_nothing_of(1), "a skipped round is over"
    assert not live._keys.masks[2].any()
    assert not live._keys.edges[2].any()
    assert live._keys.mask_shares[2].any(), "its shares are still needed"
    live.close()
    assert live.holds_nothing_of(2)
    with pytest.raises(Reject, match="round-spent"):
        client_round.upload(live, fed.start(2), vectors([1], 7)[1])


def test_an_acknowledgement_without_an_upload_burns_the_upload(fed) -> None:
    """A hospital that failed to train may help to open the round, and can then not upload for it."""
    start, inputs = fed.start(), vectors(fed.all, 7)
    ups = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in (2, 3, 4)}
    client_round.acknowledge(fed.lives[1], start, {i: up[1] for i, up in ups.items()})
    assert not fed.lives[1]._keys.masks[0].any()
    with pytest.raises(Reject, match="round-spent"):
        client_round.upload(fed.lives[1], start, inputs[1])


def test_a_hospital_that_lost_its_upload_state_does_not_stand_by_its_own_header(fed) -> None:
    """Restored from a snapshot before its upload, it is shown the header that it signed then."""
    inputs, before = vectors(fed.all, 7), snapshot(fed.lives[1])
    headers = {i: client_round.upload(fed.lives[i], fed.start(), inputs[i])[1] for i in fed.lives}
    with pytest.raises(Reject, match="own-header-differs"):
        client_round.acknowledge(before, fed.start(), headers)


def test_what_set_up_needed_is_gone_when_a_hospital_is_live() -> None:
    params = epoch_params(rounds=2)
    first = {i: client_setup.advertise(params, i, identity(i), stream(i)) for i in params.indices}
    adverts = {i: advert for i, (_, advert) in first.items()}
    second = {i: client_setup.share(first[i][0], adverts, stream(i)) for i in params.indices}
    sent = {i: m.envelope for i, (_, m) in second.items()}
    for i, (state, _) in second.items():
        boxes = {j: second[j][1].boxes[i] for j in params.indices if j != i}
        client_setup.ready(state, sent, boxes, MemoryJournal())
        for name in state.dealt.__slots__:
            assert not getattr(state.dealt, name).any(), name
        assert state.private is None
        assert first[i][0].private is None
        with pytest.raises(Reject, match="already-ready"):
            client_setup.ready(state, sent, boxes, MemoryJournal())
        with pytest.raises(Reject, match="already-shared"):
            client_setup.share(first[i][0], adverts, stream(i))


def test_edge_keys_agree_and_never_repeat() -> None:
    """Over two epochs and all rounds and pairs; b likewise."""
    seen: set[bytes] = set()
    for epoch in (0, 1):
        fed = set_up(epoch_params(5, 4, 2, rounds=20, epoch=epoch), seed=epoch)
        for round_no in range(20):
            for i, live in fed.lives.items():
                own = live._keys.masks[round_no].tobytes()
                assert own not in seen
                seen.add(own)
                for j in fed.all - {i}:
                    key = live._keys.edges[round_no, j - 1].tobytes()
                    assert key == fed.lives[j]._keys.edges[round_no, i - 1].tobytes()
                    assert (key in seen) == (j < i)
                    seen.add(key)
    assert len(seen) == 2 * 20 * (5 + 10)


@pytest.mark.parametrize("forbidden", [copy.copy, copy.deepcopy, pickle.dumps])
def test_states_with_keys_refuse_to_be_copied_or_shown(fed, forbidden) -> None:
    state, _ = client_setup.advertise(fed.params, 1, identity(1), stream(0))
    for secret in (fed.lives[1], fed.lives[1]._keys, state):
        with pytest.raises(Bug, match="secret-copied"):
            forbidden(secret)
        assert repr(secret) == f"<{type(secret).__name__}: keys withheld>"
        assert not hasattr(secret, "__dict__"), "vars() would show the keys"


def test_a_vector_of_the_wrong_shape_is_our_own_fault(fed) -> None:
    for wrong in (np.zeros(8, dtype=np.uint32), np.zeros(7, dtype=np.int32), np.zeros((7, 1), dtype=np.uint32)):
        with pytest.raises(Bug, match="vector-shape"):
            client_round.upload(fed.lives[1], fed.start(), wrong)
    given = vectors([1], 7)[1]
    kept = given.copy()
    client_round.upload(fed.lives[1], fed.start(), given)
    np.testing.assert_array_equal(given, kept)
