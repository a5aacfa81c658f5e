"""Two runs of one federation: the second numbers its segments as the first, and every hospital takes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_federation import SmallFederation, events, made_up_vectors, small_plan

from cameo_models.bundle import parse_bundle
from cameo_models.numbering import centres_of, check_numbering, read_numberings
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import PUBLISH


class Halt(BaseException):
    """The coordinator is gone."""


@pytest.fixture(scope="module")
def plan() -> RunPlan:
    return small_plan(4, "training.rounds=2", "training.spare=2")


@pytest.fixture
def federation(plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFederation]:
    made = SmallFederation(plan, tmp_path)
    made_up_vectors(monkeypatch, made)
    yield made
    made.close()


def told(federation: SmallFederation, run: str) -> tuple[Any, Any]:
    """(how the run's segments were numbered, its centres)."""
    folder = federation.store(run).folder
    card = json.loads((folder / "card.json").read_bytes())
    entry = read_numberings(card, federation.plan)["segment"]
    return entry, centres_of(parse_bundle((folder / "segment.safetensors").read_bytes()))


def everybody_has(federation: SmallFederation, run: str) -> bool:
    return all((federation.root / f"h{i}" / "models" / run / "publication.cbor").exists() for i in federation.hospitals)


def test_the_second_run_goes_on_from_the_first(federation: SmallFederation) -> None:
    federation.drive("r1")
    first, old = told(federation, "r1")
    assert first.former is None
    assert list(old[:, 0]) == sorted(old[:, 0])
    federation.drive("r2")
    second, new = told(federation, "r2")
    assert second.former is not None
    assert second.former.run == "r1"
    check_numbering(second, new, old)
    assert everybody_has(federation, "r1")
    assert everybody_has(federation, "r2")
    assert len(events(federation.store("r2"), "published")[0]["stored"]) == 4


def dying(nth: int) -> Callable[[int, Packet], None]:
    """The coordinator dies before its nth publication reaches a hospital, once."""
    seen: list[int] = []

    def before(site: int, packet: Packet) -> None:
        if packet.kind == PUBLISH:
            seen.append(site)
            if len(seen) == nth:
                raise Halt

    return before


@pytest.mark.parametrize("nth", [1, 3])
def test_a_coordinator_that_dies_while_it_publishes_tells_everybody_the_same(
    federation: SmallFederation, nth: int
) -> None:
    """Also where another run was published before it came back."""
    federation.drive("r1")
    federation.before = dying(nth)
    with pytest.raises(Halt):
        federation.drive("r2")
    federation.before = lambda _site, _packet: None
    federation.drive("r3")
    federation.drive("r2")
    entry, centres = told(federation, "r2")
    assert entry.former is not None
    assert entry.former.run == "r1", "as it had told before it died"
    assert len(events(federation.store("r2"), "numbered")) == 1
    assert everybody_has(federation, "r2")
    bodies = {
        (federation.root / f"h{i}" / "models" / "r2" / "publication.cbor").read_bytes() for i in federation.hospitals
    }
    assert len(bodies) == 1
    check_numbering(entry, centres, told(federation, "r1")[1])
    assert np.isfinite(centres).all()
