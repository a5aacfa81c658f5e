"""Drift of a model's scores: seen when planted, quiet by chance, and it stops the rules that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from cameo_client.consent.store import ConsentStore
from cameo_client.tags import desk
from cameo_client.tags.desk import Ward
from cameo_client.tags.drift import LEAST, LIMIT, spread, stability
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Quality


def scores(seed: int, number: int, shift: float = 0.0) -> pl.Series:
    draw = np.random.default_rng(seed).beta(2, 5, number)
    return pl.Series(np.clip(draw + shift, 0, 1))


def test_the_same_population_is_quiet_and_a_shifted_one_is_seen() -> None:
    first = spread(scores(1, 1000), segment=False)
    quiet = [stability(first, spread(scores(seed, 1000), segment=False)) for seed in range(2, 42)]
    assert max(one or 0 for one in quiet) < LIMIT
    assert (stability(first, spread(scores(2, 1000, 0.2), segment=False)) or 0) > LIMIT
    assert stability(first, first) == 0


def test_few_patients_are_not_judged() -> None:
    few = spread(scores(1, LEAST - 1), segment=False)
    assert stability(few, spread(scores(2, 1000, 0.4), segment=False)) is None
    assert stability(spread(scores(2, 1000), segment=False), few) is None


def test_edges_and_nulls() -> None:
    assert spread(pl.Series([0.0, 0.05, 1.0, None]), segment=False) == (2, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert spread(pl.Series([1, 3, 3, None]), segment=True)[:4] == (1, 0, 2, 0)


@pytest.fixture
def pack(packs: Path, tmp_path: Path) -> Path:
    """The shipped pack whose first rule also requires that the model has not drifted."""
    values = yaml.safe_load((packs / "heart.yaml").read_text())
    values["rules"] = values["rules"][:1]
    values["rules"][0]["model"]["require"] = ["no_drift"]
    path = tmp_path / "heart.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TagStore]:
    with TagStore(tmp_path / "tags.sqlite") as opened:
        yield opened


def test_drift_stops_the_rule_and_a_new_model_starts_anew(
    heart: Any, store: TagStore, pack: Path, tmp_path: Path
) -> None:
    def ward(shift: float, model_id: str = "m") -> Ward:
        column = scores(1, 400, shift).alias("risk_heart_disease")
        return Ward(
            facts=heart.frame(*[{}] * 400).with_columns(column), catalogue=heart.catalogue, snapshot=date(2026, 5, 20),
            quality=Quality(97.0), models=heart.models("risk_heart_disease", model_id=model_id), consents=consents,
            policy=heart.policy, now=heart.noon,
        )  # fmt: skip

    def stored(given: Ward) -> int:
        return int(desk.apply_packs([pack], given, store)[1]["tags"][0]["stored"])

    with ConsentStore.open(tmp_path / "consent.sqlite") as consents:
        desk.approve_pack(store, pack, heart.catalogue, "privacy officer", heart.noon)
        assert stored(ward(0)) > 0
        assert stored(ward(0.3)) == 0
        top = ward(0.3).facts.sort("risk_heart_disease")["pseudonym"][-1]
        assert desk.explain([pack], ward(0.3), store, top, "heart-risk-high")["reason"] == "model-drifted"
        assert stored(ward(0)) > 0, "the first spread stays the measure"
        assert stored(ward(0.3, "another")) > 0
        assert set(store.spreads()) == {"another"}
