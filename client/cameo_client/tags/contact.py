"""Guards 10, 11 and 12: stored tags that may lead to a message now. They stop contact only, never the tag.

Safety messages pass both. Care outranks reminders, education, research and marketing, over all packs together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.guards import Alive, Failure, Guard
from cameo_client.tags.world import Mask, World
from cameo_protocol.facts import Purpose

_RANK: tuple[Purpose, ...] = ("care_management", "service_reminder", "health_education", "research", "marketing")


def wants_contact(world: World, stored: Alive) -> dict[str, Mask]:
    """Rule key -> rows whose stored tag leads to a message; rules without contact are left out."""
    return {item.key: stored[item.key].copy() for item in world.rules if item.rule.contact != "none"}


def contact_cap(world: World, alive: Alive) -> Iterator[Failure]:
    """10 and 12: not within the pause after the same message; at most the day's number over all packs.

    The day's last message goes to a kind of tag that the others are not, if there is one: something important that
    the patient's profile alone would never bring up. Marketing cannot take that place.
    """
    cooling = {item.key: _recent(world, item) for item in world.rules if item.key in alive}
    for key, rows in cooling.items():
        yield key, "contact-cooldown", rows
    asking = [item for item in world.rules if item.key in alive and alive[item.key].any()]
    counted = [item for item in sorted(asking, key=_order) if item.rule.contact != "safety"]
    wanted = {item.key: alive[item.key] & ~cooling[item.key] for item in counted}
    sent = _choose(world, counted, wanted)
    for item in counted:
        yield item.key, "contact-cap", wanted[item.key] & ~sent[item.key]


def quiet_hours(world: World, alive: Alive) -> Iterator[Failure]:
    """11: no message at night in the patient's zone, safety messages excepted."""
    asleep = _asleep(world)
    for item in world.rules:
        if item.key in alive and item.rule.contact != "safety":
            yield item.key, "quiet-hours", asleep


CONTACT_GUARDS: tuple[tuple[int, Guard], ...] = ((10, contact_cap), (11, quiet_hours))


def _choose(world: World, ranked: Sequence[BoundRule], wanted: Alive) -> dict[str, Mask]:
    """Which messages go out: all places but the last by rank, the last to another category, the rest by rank."""
    limit = world.given.policy.contacts_per_day
    names = world.pseudonyms
    used = np.fromiter((world.given.memory.contacts_today.get(name, 0) for name in names), np.int64, len(names))
    sent = {item.key: np.zeros(len(names), dtype=bool) for item in ranked}
    seen: dict[str, Mask] = {}

    def place(item: BoundRule, rows: Mask) -> None:
        sent[item.key] |= rows
        seen[item.rule.tag.category] = seen.get(item.rule.tag.category, np.zeros(len(names), dtype=bool)) | rows
        used[rows] += 1

    for item in ranked:
        place(item, wanted[item.key] & (used < limit - 1))
    for item in ranked:
        if item.rule.purpose != "marketing":
            new = ~seen.get(item.rule.tag.category, np.zeros(len(names), dtype=bool))
            place(item, wanted[item.key] & ~sent[item.key] & (used == limit - 1) & new)
    for item in ranked:
        place(item, wanted[item.key] & ~sent[item.key] & (used < limit))
    return sent


def _asleep(world: World) -> Mask:
    """Rows of patients for whom it is night: in the zone that their fact means, else in the hospital's."""
    quiet, now = world.given.policy.quiet, world.given.now

    def night(zone: str) -> bool:
        return quiet.covers(now.astimezone(ZoneInfo(zone)).time())

    rows = np.full(len(world.pseudonyms), night(quiet.zone))
    if quiet.column is not None and quiet.column in world.frame.columns:
        values = world.frame[quiet.column].cast(pl.String)
        for value, zone in quiet.zones.items():
            rows[np.asarray((values == value).fill_null(False).to_numpy(), dtype=bool)] = night(zone)
    return rows


def _order(item: BoundRule) -> tuple[int, int, str]:
    return _RANK.index(item.rule.purpose), -item.rule.priority, item.key


def _recent(world: World, item: BoundRule) -> Mask:
    """Rows that had this very message within the rule's pause, also if the tag went away in between."""
    since = world.given.now - timedelta(days=item.rule.cooldown_days)
    times = world.given.memory.contacted
    names = {name for (name, key), at in times.items() if key == item.key and at > since}
    return world.members(names)
