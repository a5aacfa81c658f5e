"""Seven planted defects are caught and the product raises no alarm: the checks that must see each by default, the
whole audit and 20 seeds with CAMEO_FULL=1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from planted import PLANTED, sampled_subject, subject

from cameo_lab.audit import canary, structure
from cameo_lab.audit.canary import canary_audit
from cameo_lab.audit.conduct import CHECKS, audit_subject, one_thread
from cameo_lab.audit.dry_run import ledger_entries
from cameo_lab.audit.finding import Finding
from cameo_lab.audit.structure import batch_size, empty_batch_noise, noise_distribution
from cameo_lab.audit.subject import Subject

FULL = bool(os.environ.get("CAMEO_FULL"))
SEEDS = 20
CAUGHT_BY = {
    "half-noise": ("noise-distribution", "empty-batch-noise"),
    "no-noise": ("noise-distribution", "empty-batch-noise", "canary-lower-bound"),
    "no-clip": ("canary-lower-bound",),
    "all-records-each-step": ("batch-size",),
    "noise-split-over-hospitals": ("empty-batch-noise",),
    "one-entry-for-three-runs": ("ledger-entries",),
    "shuffling-called-poisson": ("batch-size",),
}
ONE: dict[str, Callable[[Subject], Finding]] = {
    "noise-distribution": lambda s: noise_distribution(s, "quick"),
    "empty-batch-noise": empty_batch_noise,
    "batch-size": batch_size,
    "ledger-entries": ledger_entries,
    "canary-lower-bound": lambda s: canary_audit(s, np.random.default_rng(3), "quick"),
}


@pytest.fixture(autouse=True)
def one_computing_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer draws: enough for a planted defect, too few to trust the product on."""
    monkeypatch.setattr(structure, "DRAWS", 5_000)
    monkeypatch.setattr(structure, "LANES", 2_000)
    monkeypatch.setattr(structure, "SAMPLED_STEPS", 200)
    monkeypatch.setitem(canary.RUNS, "quick", 4)
    monkeypatch.setattr(canary, "CONTROL_RUNS", 1)


def test_every_defect_has_a_check_that_must_see_it() -> None:
    assert CAUGHT_BY.keys() == PLANTED.keys()
    assert ONE.keys() == CHECKS.keys()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("defect", "check"), [(d, c) for d, names in CAUGHT_BY.items() for c in names])
def test_a_planted_defect_is_caught(defect: str, check: str) -> None:
    found = ONE[check](PLANTED[defect]())
    assert found.name == check
    assert not found.passed, found


@pytest.mark.parametrize("check", [name for name in ONE if name not in ("canary-lower-bound", "noise-distribution")])
def test_the_product_raises_no_alarm(check: str) -> None:
    found = ONE[check](subject())
    assert found.passed, found


def test_right_poisson_sampling_raises_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    if not FULL:
        monkeypatch.setattr(structure, "SAMPLED_STEPS", 1_000)
    found = batch_size(sampled_subject())
    assert found.passed, found


@pytest.mark.skipif(not FULL, reason="CAMEO_FULL=1")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("defect", PLANTED)
def test_the_whole_audit_catches_it(defect: str) -> None:
    made = audit_subject(PLANTED[defect](), np.random.default_rng(), "quick", print)
    assert not made.passed
    assert set(CAUGHT_BY[defect]) <= set(made.failed)


@pytest.mark.skipif(not FULL, reason="CAMEO_FULL=1")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_false_alarm(seed: int) -> None:
    """Seeds choose patients, canaries and what the attacker does; the product's noise is never seeded."""
    made = audit_subject(subject(), np.random.default_rng(seed), "quick", print)
    assert made.passed, made.failed
    assert made.lower_bound <= made.claim
