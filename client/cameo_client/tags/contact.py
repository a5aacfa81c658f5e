"""Guards 10 and 11: stored tags that may lead to a message now. They stop contact only, never the tag.

Safety messages pass both. Care outranks reminders, education, research and marketing, over all packs together.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.guards import Alive, Failure, Guard
from cameo_client.tags.world import Mask, World
from cameo_protocol.facts import Purpose

_RANK: tuple[Purpose, ...] = ("care_management", "service_reminder", "health_education", "research", "marketing")


def wants_contact(world: World, stored: Alive) -> dict[str, Mask]:
    """Rule key -> rows whose stored tag leads to a message; rules without contact are left out."""
    return {item.key: stored[item.key].copy() for item in world.rules if item.rule.contact != "none"}


def contact_cap(world: World, alive: Alive) -> Iterator[Failure]:
    """10: not within the pause after the same message, and at most the day's number over all packs."""
    memory, used = world.given.memory, np.zeros(len(world.pseudonyms), dtype=np.int64)
    for row, name in enumerate(world.pseudonyms):
        used[row] = memory.contacts_today.get(name, 0)
    for item in sorted(world.rules, key=_order):
        if item.key not in alive:
            continue
        recent = _recent(world, item)
        yield item.key, "contact-cooldown", recent
        if item.rule.contact == "safety":
            continue
        wanted = alive[item.key] & ~recent
        full = used >= world.given.policy.contacts_per_day
        yield item.key, "contact-cap", full
        used += wanted & ~full


def quiet_hours(world: World, alive: Alive) -> Iterator[Failure]:
    """11: no message at night in the policy's zone, safety messages excepted."""
    quiet = world.given.policy.quiet
    if not quiet.covers(world.given.now.astimezone(ZoneInfo(quiet.zone)).time()):
        return
    for item in world.rules:
        if item.key in alive and item.rule.contact != "safety":
            yield item.key, "quiet-hours", np.ones(len(world.pseudonyms), dtype=bool)


CONTACT_GUARDS: tuple[tuple[int, Guard], ...] = ((10, contact_cap), (11, quiet_hours))


def _order(item: BoundRule) -> tuple[int, int, str]:
    return _RANK.index(item.rule.purpose), -item.rule.priority, item.key


def _recent(world: World, item: BoundRule) -> Mask:
    """Rows that had this very message within the rule's pause, also if the tag went away in between."""
    since = world.given.now - timedelta(days=item.rule.cooldown_days)
    times = world.given.memory.contacted
    names = {name for (name, key), at in times.items() if key == item.key and at > since}
    return world.members(names)
