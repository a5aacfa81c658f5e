"""Data that are not good enough: the node declines the plan, and says nobody why; no tag is written either."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cameo_client.home import NodeHome, load_config
from cameo_client.tagging import pack_paths, tag_patients
from cameo_client.tags.desk import approve_pack
from cameo_client.tags.store import TagStore
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.stages import ADMIT


def contradicting(frame: pl.DataFrame) -> pl.DataFrame:
    """Diastolic above systolic, both implausible, in every second row."""
    bad = pl.int_range(pl.len()) % 2 == 0
    values = {"sbp": "50", "dbp": "170"}
    return frame.with_columns(pl.when(bad).then(pl.lit(v)).otherwise(name).alias(name) for name, v in values.items())


BAD: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "below 90": (contradicting, "quality-too-low"),
    "no blood pressure at all": (lambda frame: frame.with_columns(sbp=pl.lit("")), "quality-too-low"),
    "ten patients": (lambda frame: frame.head(10), "quality-too-low"),
    "one patient": (lambda frame: frame.head(1), "data-too-few-patients"),
    "no patient": (lambda frame: frame.head(0), "data-empty"),
}


def spoil(world: Any, change: Callable[[pl.DataFrame], pl.DataFrame], tmp_path: Path) -> None:
    """Hospital 1's file is another one from now on."""
    home = NodeHome(world.homes / "h1")
    path = load_config(home).data.path
    change(pl.read_csv(path, infer_schema=False)).write_csv(tmp_path / "other.csv")
    text = home.config.read_text()
    assert path in text
    home.config.write_text(text.replace(path, str(tmp_path / "other.csv")))


@pytest.mark.parametrize("name", BAD)
def test_the_node_declines_and_keeps_the_reason(
    name: str, world: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, code = BAD[name]
    packet = world.run_until(ADMIT)
    spoil(world, change, tmp_path)
    with caplog.at_level(logging.WARNING):
        answer = world.first.hospital.handle(packet)
    assert answer.kind == ADMIT
    assert b"declined-local" in answer.body
    assert b"quality" not in answer.body
    assert b"data-" not in answer.body
    assert code in caplog.text
    assert (world.first.ledger.spent(), world.first.ledger.reserved()) == (0, 0)


def test_no_tag_is_written_below_90(world: Any, tmp_path: Path) -> None:
    spoil(world, contradicting, tmp_path)
    home, local, now = NodeHome(world.homes / "h1"), world.first.local(), datetime.now(UTC)
    with TagStore(home.tags) as tags:
        for pack in pack_paths(home, local.catalogue.id):
            approve_pack(tags, pack, local.catalogue, "officer", now)
    with pytest.raises(OperatorError, match="quality-too-low") as refused:
        tag_patients(home, local, world.first.consents, None, now)
    assert refused.value.exit_code is ExitCode.QUALITY
    with TagStore(home.tags) as tags:
        assert tags.tags(now) == []
