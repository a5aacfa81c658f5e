"""Segments keep their numbers from run to run: settled once at the coordinator, and told in the card."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cameo_models.bundle import parse_bundle
from cameo_models.numbering import centres_of, check_numbering, read_numberings
from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import RunPlan, SegmentTask, Site
from cameo_server.cli.progress import line
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve
from cameo_server.run.numbering import in_order, settle_numbers
from cameo_server.run.publication import publication
from cameo_server.run.store import RunStore

FEATURES = len(feature_names(read_catalogue("cardiometabolic")))
NOW = datetime(2026, 11, 1, tzinfo=UTC)
K = 4


def make_plan(*overrides: str) -> RunPlan:
    experiment = compose_experiment(conf_dir(), overrides)
    sites = [Site(name=f"h{i}", index=i, identity=f"{i:064x}") for i in range(1, 5)]
    return resolve(experiment, read_catalogue(experiment.data.catalogue), read_label(experiment.data.label), sites)


PLAN = make_plan()
TRUE = np.random.default_rng(5).uniform(-1, 1, (K, FEATURES))


def segment(plan: RunPlan) -> SegmentTask:
    return next(task for task in plan.trained() if isinstance(task, SegmentTask))


def trained(plan: RunPlan, centres: Any) -> bytes:
    """The joint parameters of a plan whose segments ended in these centres."""
    joint = np.zeros(sum(task.encoded.dim for task in plan.trained()), dtype="<f4")
    joint[plan.parameter_spans()[segment(plan).name]] = np.asarray(centres).ravel()
    return joint.tobytes()


class Coordinator:
    """A folder of runs. now: of the next run."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.times = root, NOW, iter(range(1, 1000))

    def store(self, run: str, plan: RunPlan = PLAN) -> RunStore:
        store = RunStore(self.root / run, clock=lambda: float(next(self.times)))
        if not store.folder.exists():
            store.create(plan.canonical())
        return store

    def publish(self, run: str, centres: Any, plan: RunPlan = PLAN, *, numbers: bool = True) -> dict[str, Any]:
        """As the driver does it; returns the card. numbers: False as an earlier version did it."""
        store = self.store(run, plan)
        raw, segments = trained(plan, centres), None
        if numbers:
            found = settle_numbers(store, plan, FEATURES, raw, self.now)
            raw, segments = in_order(plan, FEATURES, raw, found.orders), found.card
        message = publication(plan, run, FEATURES, raw, {}, {}, segments=segments)
        for name, bundle in message.models.items():
            store.save_bytes(f"{name}.safetensors", bundle)
        store.save_bytes("card.json", message.card)
        store.event("published", stored=[])
        card: dict[str, Any] = json.loads(message.card)
        return card

    def centres(self, run: str) -> Any:
        return centres_of(parse_bundle((self.root / run / "segment.safetensors").read_bytes()))


@pytest.fixture
def at(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path / "runs")


def told(card: dict[str, Any], field: str) -> list[Any]:
    return [one[field] for one in card["segments"]["segment"]["numbers"]]


def noisy(order: list[int], seed: int, size: float = 0.02) -> Any:
    return TRUE[order] + np.random.default_rng(seed).normal(0, size, TRUE.shape)


def test_numbers_carry_over_whatever_order_training_ended_in(at: Coordinator) -> None:
    first = at.publish("r1", TRUE[[2, 0, 3, 1]])
    ages = at.centres("r1")[:, 0]
    assert list(ages) == sorted(ages), "a first model: by the first fact of the catalogue"
    assert first["segments"]["segment"]["former"] is None
    second = at.publish("r2", noisy([3, 1, 0, 2], 1))
    assert second["segments"]["segment"]["former"] == {"run": "r1", "model": first["models"]["segment"]}
    assert np.abs(at.centres("r2") - at.centres("r1")).max() < 0.1
    assert told(second, "carried") == [True] * K
    assert told(second, "since") == ["r1"] * K
    assert max(told(second, "moved")) < 0.2
    third = at.publish("r3", noisy([1, 2, 3, 0], 2))
    assert third["segments"]["segment"]["former"]["run"] == "r2"
    assert told(third, "since") == ["r1"] * K
    numberings = read_numberings(third, PLAN)
    check_numbering(numberings["segment"], at.centres("r3"), at.centres("r2"))


def test_a_segment_that_is_another_is_said_to_be(at: Coordinator) -> None:
    at.publish("r1", TRUE)
    order = np.argsort(TRUE[:, 0])
    changed = TRUE.copy()
    changed[order[1]] = -TRUE[order[1]] * 2
    at.now += timedelta(days=30)
    card = at.publish("r2", changed)
    assert told(card, "carried") == [True, False, True, True]
    assert told(card, "since") == ["r1", "r2", "r1", "r1"]
    assert told(card, "changed") == [None, "2026-12-01T00:00:00Z", None, None]
    numbered = next(event for event in at.store("r2").events() if event["event"] == "numbered")
    assert line(numbered) == "segment: segments as in run r1: 1, 3, 4; new meaning: 2"
    at.now += timedelta(days=30)
    later = at.publish("r3", changed)
    assert told(later, "changed") == [None, "2026-12-01T00:00:00Z", None, None]
    assert told(later, "since") == ["r1", "r2", "r1", "r1"]


def test_the_model_published_last_counts_and_one_of_a_version_that_did_not_number_too(at: Coordinator) -> None:
    at.publish("r9", TRUE)
    at.publish("r1", TRUE[[1, 0, 3, 2]], numbers=False)
    card = at.publish("r2", noisy([3, 2, 1, 0], 3))
    assert card["segments"]["segment"]["former"]["run"] == "r1"
    assert np.abs(at.centres("r2") - at.centres("r1")).max() < 0.1
    assert told(card, "since") == ["r1"] * K


def test_runs_that_published_nothing_or_no_segments_do_not_count(at: Coordinator) -> None:
    at.publish("r1", TRUE)
    at.store("r2").event("start")
    (at.root / "r3").mkdir()
    (at.root / "notes.txt").write_text("")
    alone = PLAN.model_copy(update={"tasks": tuple(task for task in PLAN.tasks if task.kind != "segment")})
    store = at.store("r4", alone)
    store.save_bytes("card.json", b"{}")
    store.event("published")
    damaged = at.store("r5")
    damaged.save_bytes("card.json", b"{}")
    damaged.save_bytes("segment.safetensors", b"no model")
    damaged.event("published")
    card = at.publish("r6", noisy([3, 1, 0, 2], 4))
    assert card["segments"]["segment"]["former"]["run"] == "r1"


def test_another_number_of_segments_keeps_the_numbers_it_can(at: Coordinator) -> None:
    at.publish("r1", TRUE)
    five = make_plan("segment.clusters=5")
    assert segment(five).clusters == K + 1
    far = np.full((1, FEATURES), 3.0)
    at.now += timedelta(days=1)
    card = at.publish("r2", np.vstack([far, noisy([3, 1, 0, 2], 5)]), five)
    assert told(card, "carried") == [True] * K + [False]
    assert told(card, "moved")[K] is None
    assert told(card, "changed")[:K] == [None] * K


def test_other_facts_cannot_be_compared_so_every_meaning_is_new(at: Coordinator) -> None:
    other = PLAN.data.model_copy(update={"catalogue_sha256": "0" * 64})
    at.publish("r1", TRUE, PLAN.model_copy(update={"data": other}))
    at.now += timedelta(days=1)
    card = at.publish("r2", TRUE)
    assert card["segments"]["segment"]["former"] is None
    assert told(card, "changed") == ["2026-11-02T00:00:00Z"] * K
    check_numbering(read_numberings(card, PLAN)["segment"], at.centres("r2"), None)


def test_a_run_that_died_while_it_published_goes_on_with_the_numbers_it_had_told(at: Coordinator) -> None:
    at.publish("r1", TRUE)
    raw = trained(PLAN, noisy([3, 1, 0, 2], 6))
    store = at.store("r2")
    found = settle_numbers(store, PLAN, FEATURES, raw, NOW)
    at.publish("r3", noisy([0, 2, 1, 3], 7, size=0.3))
    again = settle_numbers(store, PLAN, FEATURES, raw, NOW + timedelta(days=1))
    assert again == found
    assert again.card["segment"].former is not None
    assert again.card["segment"].former.run == "r1"


def test_only_the_order_of_the_segments_is_touched(at: Coordinator) -> None:
    rng = np.random.default_rng(8)
    raw = rng.normal(size=sum(task.encoded.dim for task in PLAN.trained())).astype("<f4")
    found = settle_numbers(at.store("r1"), PLAN, FEATURES, raw.tobytes(), NOW)
    after = np.frombuffer(in_order(PLAN, FEATURES, raw.tobytes(), found.orders), dtype="<f4")
    span = PLAN.parameter_spans()["segment"]
    assert sorted(after[span]) == sorted(raw[span])
    assert np.array_equal(np.delete(after, np.r_[span]), np.delete(raw, np.r_[span]))
    before = raw[span].reshape(K, FEATURES)
    assert np.array_equal(after[span].reshape(K, FEATURES), before[np.argsort(before[:, 0])])
