"""The engagement score: points at the cuts, unknown where a fact is, and never about money."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest

from cameo_client.tags.engine import prepare
from cameo_client.tags.lint import bind_pack
from cameo_client.tags.rfa import MOST, PARTS, RFA
from cameo_protocol.errors import OperatorError

ROWS = [
    ((0.0, 0, 0), 0), ((0.099, 1, 0), 0), ((0.1, 1, 0), 1), ((0.5, 2, 1), 4), ((0.49, 2, 3), 3), ((1.0, 3, 4), MOST),
    ((1.0, 300, 999), MOST), ((None, 3, 4), None), ((float("nan"), 3, 4), None), ((0.5, None, 4), None),
]  # fmt: skip


def scores(kit: Any, rows: list[tuple[Any, ...]]) -> list[int | None]:
    frame = kit.frame(*(dict(zip((part.fact for part in PARTS), row, strict=True)) for row in rows))
    prepared = prepare(frame, kit.schema, [RFA])
    assert prepared.schema[RFA] == pl.Int64
    return prepared[RFA].to_list()


def test_points(kit: Any) -> None:
    assert scores(kit, [row for row, _ in ROWS]) == [score for _, score in ROWS]


def test_more_engagement_never_scores_less(kit: Any) -> None:
    grid = [(share, visits, logins) for share in (0.0, 0.1, 0.5) for visits in (0, 2, 3) for logins in (0, 1, 4)]
    found = dict(zip(grid, scores(kit, grid), strict=True))
    for one, mine in found.items():
        for other, theirs in found.items():
            if all(a <= b for a, b in zip(one, other, strict=True)):
                assert mine is not None
                assert theirs is not None
                assert mine <= theirs
    assert set(found.values()) == set(range(MOST + 1))


def test_each_known_score_gets_one_engagement_tag(kit: Any, packs: Any) -> None:
    text = (packs / "cardiometabolic.yaml").read_text()
    _, rules = bind_pack(text, "p.yaml", kit.schema, today=date(2026, 6, 1))
    three = [rule for rule in rules if rule.rule.exclusive_group == "engagement"]
    frame = kit.frame(*({RFA: float(score)} for score in range(MOST + 1)), {})
    from cameo_client.tags.engine import derive

    found = derive(prepare(frame, kit.schema, [RFA]), three, {})
    assert found.sum_horizontal().to_list()[:-1] == [1] * (MOST + 1)
    assert found.row(MOST + 1) == (None, None, None)


def test_it_may_be_used_for_what_its_facts_may(kit: Any, heart: Any) -> None:
    column = kit.schema.column(RFA)
    assert (column.sensitivity, column.unit, column.low, column.high) == ("normal", "points", 0, MOST)
    assert set(column.purposes) == {"care_management", "health_education", "service_reminder", "marketing", "research"}
    assert RFA not in heart.schema.columns, "its facts are not in that catalogue"
    assert not {"income", "spend", "price", "insurance"} & {part.fact for part in PARTS}


def test_a_missing_fact_is_a_clear_error(kit: Any) -> None:
    with pytest.raises(OperatorError, match="visits_12m"):
        prepare(kit.frame({}).drop("visits_12m"), kit.schema, [RFA])
