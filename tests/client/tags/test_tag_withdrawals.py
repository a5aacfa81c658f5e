"""1,000 withdrawals, each effective in the next evaluation, with a real consent store and a real tag store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from cameo_client.consent.records import ConsentRecord
from cameo_client.consent.store import ConsentStore
from cameo_client.tags import desk
from cameo_client.tags.desk import Ward
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Quality

PATIENTS, WITHDRAW = 1_200, 1_000
EDUCATION, CARE = "cholesterol-high", "bp-reading-high"


def record(row: int, scope: str, status: str, at: Any) -> ConsentRecord:
    return ConsentRecord(pseudonym=f"p{row}", scope=scope, status=status, notice_version="1", notice_sha256="0" * 64,
                         method="paper", at=at)  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def consents(tmp_path: Path, heart: Any) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.sqlite") as opened:
        early = heart.noon - timedelta(days=9)
        opened.add((record(row, "health_education", "granted", early) for row in range(PATIENTS)), now=heart.noon)
        yield opened


def holders(store: TagStore, tag: str, now: Any) -> set[str]:
    return {one.pseudonym for one in store.tags(now) if one.tag == tag}


def test_1000_of_1000_withdrawals_take_effect_in_the_next_evaluation(
    tmp_path: Path, consents: ConsentStore, heart: Any, packs: Path
) -> None:
    """Every second one withdraws from health education, the others object to care, which rests on the law."""
    pack = packs / "heart.yaml"
    ward = Ward(
        facts=heart.frame(*[{"trestbps": 150.0, "chol": 260.0}] * PATIENTS), catalogue=heart.catalogue,
        snapshot=date(2026, 5, 20), quality=Quality(97.0), models=(), consents=consents, policy=heart.policy,
        now=heart.noon,
    )  # fmt: skip
    everybody = {f"p{row}" for row in range(PATIENTS)}
    with TagStore(tmp_path / "tags.sqlite") as store:
        desk.approve_pack(store, pack, heart.catalogue, "privacy officer", heart.noon)
        desk.apply_packs([pack], ward, store)
        assert holders(store, EDUCATION, heart.noon) == holders(store, CARE, heart.noon) == everybody

        later = heart.noon + timedelta(minutes=1)
        scopes = ("health_education", "care")
        consents.add((record(row, scopes[row % 2], "withdrawn", later) for row in range(WITHDRAW)), now=later)
        desk.apply_packs([pack], Ward(**{**vars(ward), "now": later}), store)

        objected = {scope: {f"p{row}" for row in range(i, WITHDRAW, 2)} for i, scope in enumerate(scopes)}
        assert holders(store, EDUCATION, later) == everybody - objected["health_education"]
        assert holders(store, CARE, later) == everybody - objected["care"]
        for row in (0, 1, WITHDRAW):
            used = {use.scope for use in consents.report(f"p{row}").uses if use.at == later}
            assert used == set(scopes) - ({scopes[row % 2]} if row < WITHDRAW else set())
