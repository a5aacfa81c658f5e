"""Laws of the whole protocol: exact sums for every cohort and dropout, and never two releases, whatever is asked."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from secagg_parties import epoch_params, plain_sum, reveal_kinds, run_round, set_up, snapshot, vectors

from cameo_protocol.errors import Reject
from cameo_protocol.secagg import client_round
from cameo_protocol.secagg.server_round import Summed, Void

FULL = bool(os.environ.get("CAMEO_FULL"))


@st.composite
def scenarios(draw):
    """A cohort with any indices, who is absent from set-up, who is invited, and who is silent at each stage."""
    n = draw(st.integers(3, 7))
    t = draw(st.integers(n // 2 + 1, n))
    c = draw(st.integers(0, 2 * t - n - 1))
    indices = sorted(draw(st.sets(st.integers(1, 255), min_size=n, max_size=n)))
    least = max(t, 3)

    def some(of, low):
        return frozenset(draw(st.permutations(sorted(of)))[: draw(st.integers(low, len(of)))])

    here = some(indices, least)
    invited = some(here, least)
    enough = draw(st.integers(0, 3)) > 0
    stages = {"uploads": some(invited, least if enough else 0), "acks": some(here, t if enough else 0)}
    stages["reveals"] = some(stages["acks"], t if enough else 0)
    dim = draw(st.integers(1, 40))
    return epoch_params(n, t, c, rounds=2, dim=dim, indices=indices), here, invited, stages


@settings(max_examples=300 if FULL else 60, deadline=None)
@given(scenarios(), st.integers(0, 2**32))
def test_the_sum_is_exact_or_there_is_none(scenario, seed) -> None:
    """Bit for bit over exactly the survivors when every stage had enough answers; otherwise void, and no number."""
    params, here, invited, stages = scenario
    fed = set_up(params, seed=seed, absent=params.indices - here)
    dim = params.layout("train").dim
    inputs = vectors(params.indices, dim, seed)
    result = run_round(fed, fed.start(1, invited), inputs, **stages).result
    enough = (
        len(stages["uploads"]) >= params.least
        and len(stages["acks"]) >= params.threshold
        and len(stages["reveals"]) >= params.threshold
    )
    if enough:
        assert isinstance(result, Summed)
        assert result.survivors == stages["uploads"]
        np.testing.assert_array_equal(result.total, plain_sum(inputs, stages["uploads"]))
    else:
        assert isinstance(result, Void)
        assert result.blamed == frozenset()


class AnyCoordinator(RuleBasedStateMachine):
    """A coordinator (with one colluder) that asks honest hospitals anything, in any order, duplicated and replayed.

    It also restores hospitals from snapshots, as a crash and a bad backup would.
    """

    ROUNDS = 3

    def __init__(self) -> None:
        super().__init__()
        self.fed = set_up(epoch_params(rounds=self.ROUNDS))
        self.inputs = vectors(self.fed.all, 7)
        self.headers = {(r, v): {} for r in range(self.ROUNDS) for v in (0, 1)}
        self.acked = []
        self.acks: list[tuple[int, bytes, bytes]] = []
        self.released: list[tuple[str, int, int]] = []
        self.shares: dict[tuple[int, int, str], set[int]] = {}
        self.kept = {i: snapshot(live) for i, live in self.fed.lives.items()}

    def start(self, round_no: int, variant: int):
        return self.fed.start(round_no, invited=(1, 2, 3, 4) if variant == 0 else (2, 3, 4))

    @rule(i=st.integers(1, 4), r=st.integers(0, ROUNDS - 1), variant=st.integers(0, 1))
    def upload(self, i: int, r: int, variant: int) -> None:
        try:
            _, header, _ = client_round.upload(self.fed.lives[i], self.start(r, variant), self.inputs[i])
        except Reject:
            return
        self.released.append(("upload", i, r))
        self.headers[r, variant][i] = header

    @rule(i=st.integers(1, 4), r=st.integers(0, ROUNDS - 1), variant=st.integers(0, 1), without=st.integers(0, 4))
    def acknowledge(self, i: int, r: int, variant: int, without: int) -> None:
        shown = {j: h for j, h in self.headers[r, variant].items() if j != without}
        try:
            acked, ack = client_round.acknowledge(self.fed.lives[i], self.start(r, variant), shown)
        except Reject:
            return
        self.released.append(("ack", i, r))
        self.acked.append((i, acked))
        self.acks.append((i, acked.survivors.digest, ack))

    @rule(i=st.integers(1, 4), which=st.integers(0, 11), all_acks=st.booleans())
    def reveal(self, i: int, which: int, all_acks: bool) -> None:
        if not self.acked:
            return
        _, acked = self.acked[which % len(self.acked)]
        shown = {j: ack for j, digest, ack in self.acks if all_acks or digest == acked.survivors.digest}
        try:
            client_round.reveal(self.fed.lives[i], acked, shown)
        except Reject:
            return
        r = acked.survivors.start.round_no
        self.released.append(("reveal", i, r))
        for party, use in reveal_kinds(self.fed, acked).items():
            self.shares.setdefault((r, party, use), set()).add(i)

    @rule(i=st.integers(1, 4), restore=st.booleans())
    def crash(self, i: int, restore: bool) -> None:
        if restore:
            self.fed.lives[i] = snapshot(self.kept[i])
        else:
            self.kept[i] = snapshot(self.fed.lives[i])

    @invariant()
    def nothing_is_released_twice(self) -> None:
        assert len(self.released) == len(set(self.released))

    @invariant()
    def nobody_is_opened_on_both_sides(self) -> None:
        """Hospital 4 colludes: it adds its own share to every count."""
        for r in range(self.ROUNDS):
            for party in self.fed.all:
                counts = [len(self.shares.get((r, party, use), set()) | {4}) for use in "bc"]
                assert min(counts) < self.fed.params.threshold


def test_no_sequence_of_requests_releases_twice_or_opens_both() -> None:
    run_state_machine_as_test(
        AnyCoordinator,
        settings=settings(
            max_examples=2000 if FULL else 60,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
