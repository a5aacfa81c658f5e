"""The fairness monitor: planted differences are seen, chance and small groups are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from cameo_client.tags.fairness import alerts


def rows(rates: dict[str, float], size: int, **more: Any) -> list[dict[str, Any]]:
    """`size` patients of each sex, of whom a share has a high reading."""
    return [
        {"sex": sex, "sbp": 150.0 if number < rate * size else 120.0, **more}
        for sex, rate in rates.items()
        for number in range(size)
    ]


def test_a_planted_difference_raises_two_alerts(kit: Any) -> None:
    found = alerts(kit.run([kit.rule()], rows({"female": 0.1, "male": 0.6}, 200)))
    assert {(one.column, one.group, one.direction) for one in found} == {
        ("sex", "female", "more rarely"), ("sex", "male", "more often"),
    }  # fmt: skip
    assert found[0].text() == "bp-high: sex female gets it more rarely (0.3 times the overall rate)"


def test_equal_rates_raise_none(kit: Any) -> None:
    assert alerts(kit.run([kit.rule()], rows({"female": 0.4, "male": 0.4}, 200))) == ()


def test_fewer_than_eleven_raise_none(kit: Any) -> None:
    few = rows({"female": 0.0}, 10) + rows({"male": 1.0}, 300)
    assert [one for one in alerts(kit.run([kit.rule()], few)) if one.group == "female"] == []
    enough = rows({"female": 0.0}, 11) + rows({"male": 1.0}, 300)
    assert [one.group for one in alerts(kit.run([kit.rule()], enough))] == ["female"]


def test_a_group_with_the_tag_of_fewer_than_eleven_is_not_named(kit: Any) -> None:
    for tagged in (1, 10):
        few = rows({"female": tagged / 40}, 40) + rows({"male": 0.0}, 300)
        assert alerts(kit.run([kit.rule()], few)) == (), "who has the tag would be known to be a woman"
    enough = rows({"female": 12 / 40}, 40) + rows({"male": 0.0}, 300)
    assert {one.group for one in alerts(kit.run([kit.rule()], enough))} == {"female", "male"}


def test_age_bands_and_blocked_tags(kit: Any) -> None:
    old = rows({"female": 0.9}, 120, age=70.0) + rows({"female": 0.1}, 120, age=30.0)
    found = alerts(kit.run([kit.rule()], old))
    assert {(one.column, one.group) for one in found} == {("age", "65-79"), ("age", "18-39")}
    assert alerts(kit.run([kit.rule(purpose="health_education")], old)) == ()


def test_chance_alone_is_quiet(kit: Any) -> None:
    random = np.random.default_rng(7)
    noise = [
        {"sex": ("female", "male")[int(random.integers(2))], "sbp": float(random.uniform(110, 170))} for _ in range(400)
    ]
    assert alerts(kit.run([kit.rule()], noise)) == ()
