"""Laws of what is kept: a blocked tag never is, a stricter policy never keeps more, the night is the patient's."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cameo_client.tags.policy import QuietHours, Situation
from cameo_client.tags.record import write
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Quality

LAW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "sbp": st.none() | st.sampled_from([110.0, 140.0, 165.0]),
            "age": st.sampled_from([30.0, 70.0]),
            "objected": st.booleans(),
            "abuse": st.booleans(),
            "surgery_30d": st.booleans(),
        }
    ),
    min_size=1,
    max_size=6,
)
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "when": st.sampled_from(["sbp >= 140", "sbp < 150", "sbp IS NULL"]),
            "purpose": st.sampled_from(["care_management", "health_education", "research"]),
            "on_unknown": st.sampled_from(["skip", "review"]),
            "review": st.sampled_from(["none", "sample", "always", "two_person"]),
        }
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda rule: rule["when"],
)
SAID_YES = st.lists(st.sets(st.sampled_from(["care", "health_education", "research"])), min_size=6, max_size=6)
STRICTER: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "quality_floor": st.sampled_from([90.0, 96.0, 98.0]),
        "max_snapshot_age_days": st.sampled_from([None, 5, 30]),
        "legal_basis": st.sampled_from([None, {}]),
        "age": st.sampled_from([None, 50]),
        "review_sample": st.sampled_from([0.05, 0.5, 1.0]),
    }
)


def outcome_of(kit: Any, rows: Any, rules: Any, yes: Any, policy: Any = None) -> Any:
    book = kit.book(**{scope: {f"p{i}" for i in range(6) if scope in yes[i]} for scope in ("care", "health_education",
                                                                                           "research")})  # fmt: skip
    made = [kit.rule(id=f"rule-{i}", priority=i, **changes) for i, changes in enumerate(rules)]
    return kit.run(made, rows, consent=book, quality=Quality(97.0), policy=policy or kit.policy)


def kept(outcome: Any) -> set[tuple[str, str]]:
    return {(one.pseudonym, one.rule.key) for one in outcome.decisions(("stored",))}


@LAW
@given(ROWS, RULES, SAID_YES)
def test_a_blocked_tag_is_never_stored_and_all_others_are(kit: Any, rows: Any, rules: Any, yes: Any) -> None:
    outcome = outcome_of(kit, rows, rules, yes)
    with TemporaryDirectory() as folder, TagStore(Path(folder) / "tags.sqlite") as store:
        write(store, outcome)
        found = {(tag.pseudonym, tag.tag, tag.state) for tag in store.tags(kit.noon)}
        blocked = {(one.pseudonym, one.rule.rule.tag.name) for one in outcome.decisions(("blocked",))}
        history = {(name, row["tag"]) for name in outcome.world.pseudonyms for row in store.history(name)}
    wanted = outcome.decisions(("stored", "waiting"))
    assert found == {(one.pseudonym, one.rule.rule.tag.name, one.state) for one in wanted}
    assert blocked.isdisjoint({(name, tag) for name, tag, _ in found} | history)


@LAW
@given(ROWS, RULES, SAID_YES, STRICTER)
def test_a_stricter_policy_never_keeps_more(kit: Any, rows: Any, rules: Any, yes: Any, stricter: Any) -> None:
    """Rules of one exclusive group are left out: there, what is stopped makes room for the next."""
    changes = {key: value for key, value in stricter.items() if key != "age" and value is not None}
    if stricter["age"] is not None:
        planted = Situation(name="planted", when="age >= 50", stops=("care_management", "research"))
        changes["situations"] = (*kit.policy.situations, planted)
    strict = kit.policy.model_copy(update=changes)
    assert kept(outcome_of(kit, rows, rules, yes, strict)) <= kept(outcome_of(kit, rows, rules, yes))


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
    st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "America/New_York", "UTC"]),
)
def test_quiet_hours_follow_the_clock_on_the_wall(at: datetime, zone: str) -> None:
    wall = at.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).time()
    quiet = QuietHours(start="20:00", end="08:00", zone=zone)
    assert quiet.covers(wall) is (wall >= time(20) or wall < time(8))


@pytest.mark.parametrize(
    ("at", "berlin", "lisbon"),
    [
        ("2026-03-28T06:30", True, True),  # 07:30 and 06:30 in winter
        ("2026-03-28T07:30", False, True),  # 08:30 and 07:30
        ("2026-03-29T06:30", False, True),  # the clocks went forward in the night: 08:30 and 07:30
        ("2026-10-24T06:30", False, True),
        ("2026-10-25T06:30", True, True),  # and back
        ("2026-06-01T18:30", True, False),  # 20:30 and 19:30
    ],
)
def test_it_is_night_where_the_patient_is(kit: Any, at: str, berlin: bool, lisbon: bool) -> None:
    """One evaluation, two patients in two zones, summer time included; who has no known zone has the hospital's."""
    quiet = QuietHours(start="20:00", end="08:00", zone="Europe/Berlin", column="region",
                       zones={"rural": "Europe/Lisbon"})  # fmt: skip
    rule = kit.rule(contact="patient", cooldown_days=1)
    rows = [{"sbp": 150.0, "region": "urban"}, {"sbp": 150.0, "region": "rural"}, {"sbp": 150.0, "region": None}]
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    policy = kit.policy.model_copy(update={"quiet": quiet})
    found = [one.contact for one in kit.run([rule], rows, policy=policy, now=now).decisions()]
    assert [contact == "quiet-hours" for contact in found] == [berlin, lisbon, berlin]
