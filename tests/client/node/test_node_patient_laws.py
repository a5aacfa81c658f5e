"""The patient is the unit: however many records a patient has, no sum moves by more than one patient may move it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.node.contribution import Contributor, Patients, counted_once
from cameo_protocol.confdir import conf_dir
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import RunPlan, Site
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve

FEATURES = len(feature_names(read_catalogue("cardiometabolic")))
OTHERS = 12


@cache
def plan(model: str) -> RunPlan:
    """A plan with every kind of task."""
    experiment = compose_experiment(conf_dir(), [f"risk={model}"])
    sites = [Site(name=f"h{i}", index=i, identity=f"{i:064x}") for i in range(1, 5)]
    return resolve(experiment, read_catalogue(experiment.data.catalogue), read_label(experiment.data.label), sites)


def patients(copies: int, held_out: bool, rng: np.random.Generator) -> Patients:
    """Twelve patients of one record and one, the first owner, of `copies` different records among theirs."""
    size = OTHERS + copies
    owner = np.array([0] * copies + list(range(1, OTHERS + 1)), dtype=np.int64)
    order = rng.permutation(size)
    out = np.array([held_out] * copies + [True, False] * (OTHERS // 2))
    return Patients(
        features=rng.uniform(-1, 1, (size, FEATURES)).astype(np.float32),
        outcomes={"t2d_12m": rng.integers(0, 2, size).astype(np.float64)},
        held_out=out[order],
        allowed=lambda: np.ones(size, dtype=bool),
        owner=owner[order],
        groups={task.name: rng.integers(-1, len(task.by), size) for task in plan("mlp").counted("evaluate") if task.by},
    )


def without_first_owner(rows: Patients) -> Patients:
    assert rows.owner is not None
    others = rows.owner != 0
    return Patients(
        features=rows.features, outcomes=rows.outcomes, held_out=rows.held_out, allowed=lambda: others,
        owner=rows.owner, groups=rows.groups,
    )  # fmt: skip


def vector(of: RunPlan, rows: Patients, kind: Any, model: Any) -> Any:
    """What the hospital would add, without noise and rounded to the nearest."""
    contributor = Contributor(of, rows, lambda _sd, size: np.zeros(size, dtype=np.int64), lambda size: b"\x80" * size)
    return contributor.noisy_vector(kind, model).view(np.int32).astype(np.int64)


@pytest.mark.parametrize("model", ["logistic", "mlp"])
@given(copies=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_a_patient_with_many_records_moves_the_training_sums_by_one_clip(model: str, copies: int, seed: int) -> None:
    of, rng = plan(model), np.random.default_rng(seed)
    rows = patients(copies, False, rng)
    at = rng.normal(0, 1, sum(task.encoded.dim for task in of.trained()))
    moved = vector(of, rows, "train", at) - vector(of, without_first_owner(rows), "train", at)
    for block, span in zip(of.layout("train").blocks, of.layout("train").spans().values(), strict=True):
        assert 0 < np.linalg.norm(moved[span]) <= block.sensitivity


@pytest.mark.parametrize(("kind", "held_out"), [("evaluate", True), ("recalibrate", False)])
@given(copies=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_a_patient_with_many_records_is_counted_once(kind: Any, held_out: bool, copies: int, seed: int) -> None:
    of, rng = plan("logistic"), np.random.default_rng(seed)
    rows = patients(copies, held_out, rng)
    at = rng.normal(0, 1, sum(task.encoded.dim for task in of.trained()))
    moved = vector(of, rows, kind, at) - vector(of, without_first_owner(rows), kind, at)
    for name, span in of.layout(kind).spans().items():
        assert moved[span].sum() == np.abs(moved[span]).sum() <= 1
        assert name.count("-") or moved[span].sum() == 1


def test_without_owners_forty_records_would_move_the_sum_by_many_clips() -> None:
    of, rng = plan("logistic"), np.random.default_rng(0)
    rows = patients(40, False, rng)
    alone = Patients(features=rows.features, outcomes=rows.outcomes, held_out=rows.held_out, allowed=rows.allowed)
    gone = without_first_owner(rows)
    gone = Patients(features=gone.features, outcomes=gone.outcomes, held_out=gone.held_out, allowed=gone.allowed)
    at = rng.normal(0, 1, sum(task.encoded.dim for task in of.trained()))
    moved = vector(of, alone, "train", at) - vector(of, gone, "train", at)
    block, span = of.layout("train").blocks[0], next(iter(of.layout("train").spans().values()))
    assert np.linalg.norm(moved[span]) > 4 * block.sensitivity


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=30))
def test_the_last_chosen_record_of_each_owner_counts(pairs: list[tuple[bool, int]]) -> None:
    rows, owner = np.array([p[0] for p in pairs], dtype=bool), np.array([p[1] for p in pairs], dtype=np.int64)
    last = {one: at for at, (kept, one) in enumerate(pairs) if kept}
    assert np.flatnonzero(counted_once(rows, owner)).tolist() == sorted(last.values())
    assert counted_once(rows, None) is rows
