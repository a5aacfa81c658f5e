"""Messages: the cap over all packs, the pause, the last place, quiet hours. The tag itself is never touched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cameo_client.tags.policy import QuietHours
from cameo_client.tags.world import Memory

HIGH: dict[str, Any] = {"sbp": 150.0, "visits_12m": 5, "dx_depression": False, "gck_variant": "benign",
                        "pcsk9_variant": "benign"}  # fmt: skip


def message(kit: Any, rule_id: str, **changes: Any) -> dict[str, Any]:
    """A rule that leads to a message."""
    return dict(kit.rule(**{"id": rule_id, "contact": "patient", "cooldown_days": 30, **changes}))


def contacts(kit: Any, rules: list[dict[str, Any]], **changes: Any) -> dict[str, str]:
    """Tag -> what becomes of its message, for one patient whose tags are all stored."""
    changes.setdefault("consent", kit.book(marketing={"p0"}, health_education={"p0"}, service_reminder={"p0"}))
    outcome = kit.run(rules, [HIGH], **changes)
    decisions = list(outcome.decisions())
    assert {one.state for one in decisions} == {"stored"}
    return {one.rule.rule.tag.name: one.contact for one in decisions}


def test_a_rule_without_contact_sends_nothing(kit: Any) -> None:
    assert contacts(kit, [kit.rule()]) == {"bp-high": "none"}


def test_at_most_two_a_day_care_before_marketing(kit: Any) -> None:
    selling = {"when": "visits_12m >= 3", "purpose": "marketing", "priority": 900, "sensitivity": "normal"}
    rules = [
        message(kit, "offer", **selling),
        message(kit, "low", priority=1),
        message(kit, "course", purpose="health_education", priority=800),
        message(kit, "high", priority=9),
    ]
    assert contacts(kit, rules) == {"high": "due", "low": "due", "course": "contact-cap", "offer": "contact-cap"}
    rest = contacts(kit, rules, memory=Memory(contacts_today={"p0": 1}))
    assert rest == {"high": "due", "low": "contact-cap", "course": "contact-cap", "offer": "contact-cap"}
    assert set(contacts(kit, rules, memory=Memory(contacts_today={"p0": 2})).values()) == {"contact-cap"}
    assert set(contacts(kit, rules, memory=Memory(contacts_today={"p0": 7})).values()) == {"contact-cap"}
    assert contacts(kit, [rules[0]]) == {"offer": "due"}


def test_no_messages_at_all_when_the_policy_says_none(kit: Any) -> None:
    policy = kit.policy.model_copy(update={"contacts_per_day": 0})
    assert contacts(kit, [message(kit, "a")], policy=policy) == {"a": "contact-cap"}


def test_the_last_place_goes_to_another_kind_of_tag(kit: Any) -> None:
    service = {"name": "visit", "dimension": "need", "category": "service", "ttl_days": 9}
    rules = [
        message(kit, "one", priority=9),
        message(kit, "two", priority=8),
        message(kit, "visit", priority=1, tag=service),
    ]
    assert contacts(kit, rules) == {"one": "due", "two": "contact-cap", "visit": "due"}
    selling = message(kit, "visit", tag=service, when="visits_12m >= 3", purpose="marketing", sensitivity="normal")
    assert contacts(kit, [*rules[:2], selling]) == {"one": "due", "two": "due", "visit": "contact-cap"}


@pytest.mark.parametrize(("days", "expected"), [(29.99, "contact-cooldown"), (30, "due"), (400, "due")])
def test_the_same_message_waits_its_pause_also_after_re_entry(kit: Any, days: float, expected: str) -> None:
    """The patient does not have the tag now (nothing is held), but had the message."""
    sent = {("p0", "pack/a"): kit.noon - timedelta(days=days)}
    assert contacts(kit, [message(kit, "a")], memory=Memory(contacted=sent)) == {"a": expected}


def test_a_message_in_its_pause_takes_no_place(kit: Any) -> None:
    sent = {("p0", "pack/a"): kit.noon - timedelta(days=1)}
    rules = [message(kit, name, priority=rank) for name, rank in (("a", 3), ("b", 2), ("c", 1))]
    assert contacts(kit, rules, memory=Memory(contacted=sent)) == {"a": "contact-cooldown", "b": "due", "c": "due"}


@pytest.mark.parametrize(
    ("hour", "minute", "expected"),
    [(18, 0, "quiet-hours"), (17, 59, "due"), (5, 59, "quiet-hours"), (6, 0, "due"), (23, 0, "quiet-hours")],
)
def test_quiet_hours_in_the_policys_zone(kit: Any, hour: int, minute: int, expected: str) -> None:
    """20:00 to 08:00 in Berlin, in June two hours ahead of UTC."""
    now = datetime(2026, 6, 1, hour, minute, tzinfo=UTC)
    assert contacts(kit, [message(kit, "a")], now=now) == {"a": expected}


def test_quiet_hours_within_one_day() -> None:
    noon = QuietHours(start="12:00", end="14:00", zone="UTC")
    assert [noon.covers(datetime(2026, 1, 1, hour).time()) for hour in (11, 12, 13, 14)] == [False, True, True, False]


def test_safety_messages_pass_the_cap_and_the_night_but_not_their_pause(kit: Any) -> None:
    night = datetime(2026, 6, 1, 1, 0, tzinfo=UTC)
    alarm = message(kit, "alarm", contact="safety", cooldown_days=1)
    full = Memory(contacts_today={"p0": 2})
    assert contacts(kit, [alarm], now=night, memory=full) == {"alarm": "due"}
    assert contacts(kit, [alarm, message(kit, "a"), message(kit, "b")]) == {"alarm": "due", "a": "due", "b": "due"}
    just = Memory(contacted={("p0", "pack/alarm"): night - timedelta(hours=3)})
    assert contacts(kit, [alarm], now=night, memory=just) == {"alarm": "contact-cooldown"}


def test_what_waits_or_is_blocked_sends_nothing(kit: Any) -> None:
    outcome = kit.run([message(kit, "a", review="always"), message(kit, "b", purpose="health_education")], [HIGH])
    assert {one.contact for one in outcome.decisions()} == {"none"}
