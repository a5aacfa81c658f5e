"""Heads of ledgers on the coordinator's disk: shared by runs, never going back, and nothing made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import OperatorError
from cameo_protocol.heads import LedgerHead
from cameo_protocol.plan import RunPlan, Site
from cameo_server.run.heads import Heads

KEYS = {i: Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32) for i in (1, 2, 3)}


class Roster:
    """As much of a plan as heads need."""

    class cohort:
        sites = tuple(
            Site(name=f"h{i}", index=i, identity=key.public_key().public_bytes_raw().hex()) for i, key in KEYS.items()
        )


PLAN: RunPlan = Roster()  # type: ignore[assignment]


def head(site: int, entries: int) -> bytes:
    return LedgerHead(dataset=bytes(32), entries=entries, last=bytes(32), told=1, audit=bytes(32)).seal(KEYS[site])


def test_the_newest_is_kept_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    first = Heads(PLAN, path)
    first.take({1: head(1, 5), 2: head(2, 7)})
    first.take({1: head(1, 4), 2: head(3, 9), 9: head(1, 50)})
    assert first.all() == Heads(PLAN, path).all() == {1: head(1, 5), 2: head(2, 7)}


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    one, two = Heads(PLAN, path), Heads(PLAN, path)
    one.take({1: head(1, 5)})
    two.take({2: head(2, 7), 1: head(1, 3)})
    assert Heads(PLAN, path).all() == two.all() == {1: head(1, 5), 2: head(2, 7)}
    one.take({1: head(1, 6)})
    two.take({3: head(3, 1)})
    assert Heads(PLAN, path).all() == {1: head(1, 6), 2: head(2, 7), 3: head(3, 1)}


def test_without_a_file_they_are_in_memory() -> None:
    heads = Heads(PLAN)
    heads.take({3: head(3, 1)})
    assert heads.all() == {3: head(3, 1)}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"zz": "00"}', b'{"00": 1}'])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "heads.json"
    path.write_bytes(content)
    with pytest.raises(OperatorError) as refused:
        Heads(PLAN, path)
    assert refused.value.code == "heads-unreadable"
