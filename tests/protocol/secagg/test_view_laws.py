"""What the coordinator and c hospitals see is the same for any two honest inputs with equal sum (invariant 8).

The keystreams are taken as uniform here (AES as a PRF); the argument is then linear algebra over the integers modulo
2^32, and this test does it on the bytes of a real run: strip from the uploads every mask whose key the view holds, and
show for other inputs of equal sum that keystreams of the keys it does not hold explain the very same uploads. The
control takes inputs of another sum, or gives the view one key too many.
"""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_parties import epoch_params, identity, run_round, set_up, vectors

from cameo_protocol.secagg import messages
from cameo_protocol.secagg.kernel import Stream, apply_streams
from cameo_protocol.secagg.server_round import Summed

DIM = 7


def prg(key: bytes) -> np.ndarray:
    lanes = np.zeros(DIM, dtype=np.uint32)
    apply_streams(lanes, [Stream(key, True)])
    return lanes


class View:
    """One round at n=5, t=4, c=2, seen by the coordinator with hospitals 4 and 5; hospital `gone` drops out or none."""

    HONEST, COLLUDERS = (1, 2, 3), (4, 5)

    def __init__(self, inputs, gone: int | None, seed: int) -> None:
        self.fed = set_up(epoch_params(5, 4, 2, rounds=1, dim=DIM), seed=seed)
        self.keys = {
            (i, j): live._keys.edges[0, j - 1].tobytes()
            for i, live in self.fed.lives.items()
            for j in self.fed.all - {i}
        }
        self.own = {i: live._keys.masks[0].tobytes() for i, live in self.fed.lives.items()}
        self.gone = gone
        self.survivors = sorted(self.fed.all - {gone})
        self.trace = run_round(self.fed, self.fed.start(), inputs, uploads=self.survivors)
        assert isinstance(self.trace.result, Summed)

    def known_edges(self) -> set[tuple[int, int]]:
        """Pairs whose key the view holds: those with a colluder, and those of the dropout, whose c is opened."""
        pairs = combinations(sorted(self.fed.all), 2)
        return {p for p in pairs if set(p) & {*self.COLLUDERS, self.gone}}

    def stripped(self, extra=frozenset()) -> dict[int, np.ndarray]:
        """The honest survivors' uploads less every mask that the view can compute."""
        left = {}
        for i in set(self.HONEST) & set(self.survivors):
            lanes = np.frombuffer(self.trace.masked[i], dtype="<u4") - prg(self.own[i])
            for low, high in self.known_edges() | extra:
                if i in (low, high):
                    mask = prg(self.keys[low, high])
                    lanes = lanes - mask if i == low else lanes + mask
            left[i] = lanes
        return left


def explain(left: dict[int, np.ndarray], inputs) -> bool:
    """Whether keystreams for the unknown honest edges exist that turn these inputs into what is left.

    Along the path of the honest survivors: edge (i, i+1) takes what is still missing; the last one must come out even.
    """
    order = sorted(left)
    carried = np.zeros(DIM, dtype=np.uint32)
    for i in order[:-1]:
        carried = left[i] - inputs[i] + carried
    return bool((left[order[-1]] == inputs[order[-1]] - carried).all())


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([None, 1, 2, 3, 4, 5]), st.integers(0, 2**32))
def test_other_inputs_of_equal_sum_explain_the_same_view(gone, seed) -> None:
    inputs = vectors(range(1, 6), DIM, seed)
    view = View(inputs, gone, seed)
    left = view.stripped()
    honest = sorted(left)
    others = vectors(honest, DIM, seed + 1)
    fix = sum(inputs[i] for i in honest) - sum(others[i] for i in honest)
    others[honest[0]] = others[honest[0]] + fix
    assert explain(left, inputs)
    assert explain(left, others)
    others[honest[0]] = others[honest[0]] + np.uint32(1)
    assert not explain(left, others), "control: another sum does not fit"


def test_control_one_key_too_many_shows_an_input() -> None:
    """Were both honest edges of hospital 1 known, its input would lie open: the test can see a leak."""
    inputs = vectors(range(1, 6), DIM)
    view = View(inputs, None, 3)
    np.testing.assert_array_equal(view.stripped(extra=frozenset({(1, 2), (1, 3)}))[1], inputs[1])
    assert (view.stripped()[1] != inputs[1]).any()


def test_all_else_that_travels_does_not_depend_on_the_inputs() -> None:
    """Same randomness, other inputs of equal sum: only the vectors and what hashes them differ."""
    one = vectors(range(1, 6), DIM, 0)
    two = {i: v.copy() for i, v in one.items()}
    two[1], two[2] = one[1] + np.uint32(9), one[2] - np.uint32(9)
    a, b = View(one, 3, 5), View(two, 3, 5)
    np.testing.assert_array_equal(a.trace.result.total, b.trace.result.total)
    assert a.fed.adverts == b.fed.adverts
    assert a.fed.readies == b.fed.readies
    for i in a.survivors:
        party = a.fed.params.party(i)
        x, y = (messages.open_from(messages.Upload, t.headers[i], party, max_bytes=512) for t in (a.trace, b.trace))
        assert (x.invited, x.context, x.transcript) == (y.invited, y.context, y.transcript)
        assert (a.trace.masked[i] == b.trace.masked[i]) == (i not in (1, 2))
        p, q = (messages.open_from(messages.Reveal, t.reveals[i], party, max_bytes=512) for t in (a.trace, b.trace))
        assert p.shares == q.shares


def test_no_plain_lane_and_no_key_that_stays_closed_travels() -> None:
    """Everything that hospitals sent, searched for inputs, identity keys, own masks and honest edge keys."""
    inputs = vectors(range(1, 6), DIM)
    view = View(inputs, 3, 8)
    fed, trace = view.fed, view.trace
    sent = b"".join(
        data
        for group in (fed.adverts, fed.envelopes, fed.readies, trace.headers, trace.masked, trace.acks, trace.reveals)
        for data in group.values()
    )
    for i in fed.all:
        raw = inputs[i].tobytes()
        for start in range(0, len(raw) - 8, 4):
            assert raw[start : start + 8] not in sent
        assert identity(i).private_bytes_raw() not in sent
        assert view.own[i] not in sent
    for pair in view.keys:
        assert view.keys[pair] not in sent
    assert hashlib.sha256(trace.masked[1]).digest() in sent, "the search finds what is there"
