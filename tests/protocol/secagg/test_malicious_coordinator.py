"""Scripted malicious coordinators, 50 seeds each: every one is refused by name, and no share leaves (threats P0)."""

from __future__ import annotations

import pytest
from malicious import DEVIATIONS
from malicious_world import World

SEEDS = 50


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda f: f.__name__)
def test_deviation_is_refused_and_no_share_leaves(deviation) -> None:
    for seed in range(SEEDS):
        world = World((deviation.__name__, seed))
        deviation(world)
        assert world.refusals, "every script ends in a refusal"
        assert not world.leaks()
