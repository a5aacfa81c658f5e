"""Scripted malicious coordinators, 50 seeds each: every one is refused by name, and no share leaves (threats P0)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from malicious import DEVIATIONS, SHARES_DUE
from malicious_world import World
from secagg_parties import MemoryJournal, snapshot

SEEDS = 50
PAGE = Path(__file__).parents[3] / "docs" / "attacks.md"


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda f: f.__name__)
def test_deviation_is_refused_and_no_share_leaves(deviation) -> None:
    for seed in range(SEEDS):
        world = World((deviation.__name__, seed))
        deviation(world)
        assert world.refusals, "every script ends in a refusal"
        assert not world.leaks()
        assert (deviation in SHARES_DUE) == bool(world.opened), "beyond those of the one honest set, no share leaves"


def test_all_deviations_have_a_name_and_shares_leave_in_three_only() -> None:
    assert len({f.__name__ for f in DEVIATIONS}) == len(DEVIATIONS) >= 20
    assert all(f.__doc__ for f in DEVIATIONS)
    assert set(SHARES_DUE) < set(DEVIATIONS)


def test_every_deviation_is_on_the_page_of_attacks_with_the_codes_that_refuse_it() -> None:
    rows = {}
    for line in PAGE.read_text().splitlines():
        script = re.fullmatch(r"\|.*\| `(\w+)` \|", line)
        if script:
            rows[script[1]] = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", line))
    assert rows.keys() == {f.__name__ for f in DEVIATIONS}
    for deviation in DEVIATIONS:
        world = World((deviation.__name__, 0))
        deviation(world)
        assert rows[deviation.__name__] == {refusal.code for refusal in world.refusals}


def test_control_the_alarm_sees_a_leak() -> None:
    """Hospitals restored from a snapshot without their journal reveal for two survivor sets: that is a leak."""
    world = World("control")
    fed = world.federation()
    ups = world.uploads(fed, dict.fromkeys(world.members, fed.start()))
    kept = {i: snapshot(live) for i, live in fed.lives.items()}
    for gone in (None, world.victim):
        fed.lives = {i: snapshot(live) for i, live in kept.items()}
        for live in fed.lives.values():
            live._journal = MemoryJournal()
        acked = world.acks(fed, ups, set(world.members) - {gone}, world.members)
        assert not world.leaks()
        for i in world.honest:
            world.reveal(fed, i, acked[i][0], {j: ack for j, (_, ack) in acked.items()})
    assert world.leaks()
