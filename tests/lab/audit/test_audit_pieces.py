"""The pieces of the audit: made-up patients, canaries and their reader, distributions, and what a dry run sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import Forgetful, forgetful, sampled_subject, subject

from cameo_client.training.noise import discrete_gaussian
from cameo_lab.audit import canary, dry_run
from cameo_lab.audit.canary import claimed, guess, lower_bound
from cameo_lab.audit.conduct import one_thread
from cameo_lab.audit.dry_run import ledger_entries
from cameo_lab.audit.people import made_up, nobody
from cameo_lab.audit.structure import _cdf, _ks_p, honest_hospitals, signed
from cameo_lab.audit.subject import added
from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import Bug
from cameo_protocol.plan import RunPlan, Site
from cameo_server.compose import compose_experiment
from cameo_server.definitions import read_catalogue, read_label
from cameo_server.planning import resolve


@pytest.fixture(autouse=True)
def one_computing_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("data", ["heart", "cardiometabolic"])
def test_made_up_patients_fill_the_catalogue(data: str) -> None:
    plan: RunPlan = subject(f"data={data}").plan
    people = made_up(plan, read_catalogue(data), 200, np.random.default_rng(1))
    assert people.features.min() >= -1
    assert people.features.max() <= 1
    assert (people.features.std(axis=0) > 0).mean() > 0.9
    (outcome,) = people.outcomes.values()
    assert 0.1 < outcome.mean() < 0.9
    assert people.allowed().all()
    assert len(nobody(plan, 5).features) == 0


def test_a_whole_run_learns_and_its_watcher_sees_every_sum() -> None:
    whole = subject("data=heart", "training.rounds=3")
    seen: list[tuple[int, np.ndarray[Any, Any]]] = []
    released = whole.silent().train(whole.hospitals, lambda step, _, total: seen.append((step, total)))
    assert [step for step, _ in seen] == [0, 1, 2]
    plain = [signed(whole.silent().contribute("train", whole.initial(), p)) for p in whole.hospitals]
    # Without noise all that is left of chance is the rounding of each hospital's sum.
    assert np.abs(signed(seen[0][1]) - sum(plain)).max() <= 2 * len(plain)
    assert released.shape == whole.initial().shape
    assert not np.allclose(released, whole.initial())


def test_sums_are_modulo_2_to_32() -> None:
    lanes = [np.array([2**32 - 1, 5], dtype=np.uint32), np.array([2, 7], dtype=np.uint32)]
    assert added(lanes).tolist() == [1, 12]
    assert signed(np.array([2**32 - 3, 4], dtype=np.uint32)).tolist() == [-3, 4]


@pytest.mark.parametrize("overrides", [("data=heart",), ("data=cardiometabolic",), ("data=heart", "risk=mlp")])
def test_the_reader_tells_canaries_apart(overrides: tuple[str, ...]) -> None:
    """Without noise every score is 1 or 0, whoever else is in."""
    silent = subject(*overrides).silent()
    random = np.random.default_rng(2)
    canaries = canary._canaries(silent, random)
    assert len(canaries.rows) >= 4
    inside = random.random(len(canaries.rows)) < 0.5
    scores = canary._scores(silent, canaries, inside)
    assert np.allclose(scores, inside, atol=0.02)


def test_canaries_read_the_noise_that_the_plan_claims() -> None:
    """The spread of the scores of absent canaries is 1 / mu of the training releases: the attack loses nothing."""
    whole = subject("data=heart", "training.rounds=3", "training.spare=0")
    random = np.random.default_rng(4)
    canaries = canary._canaries(whole, random)
    nobody_in = np.zeros(len(canaries.rows), dtype=bool)
    scores = np.concatenate([canary._scores(whole, canaries, nobody_in) for _ in range(30)])
    trained = {task.name for task in whole.plan.trained()}
    mu = np.sqrt(sum(r.count / r.sigma**2 for name, r in whole.releases() if name in trained))
    assert scores.std() == pytest.approx(1 / mu, rel=0.1)
    assert abs(scores.mean()) < 5 * scores.std() / np.sqrt(len(scores))


def test_fewer_rounds_are_played_of_a_very_long_plan() -> None:
    long = subject("data=heart", "training.rounds=900", "privacy.epsilon=3")
    assert canary._rounds(long) == canary.MOST_VECTORS // honest_hospitals(long)
    assert canary._all_rounds(long) > 900


def test_without_noise_the_claim_is_refuted() -> None:
    random = np.random.default_rng(3)
    silent = subject("data=heart", "training.rounds=3").silent()
    assert lower_bound(silent, guess(silent, random, 2)) > claimed(silent)


def test_a_sampled_plan_is_refused_not_misjudged() -> None:
    with pytest.raises(Bug, match="audit-sampling"):
        canary.canary_audit(sampled_subject(), np.random.default_rng(), "quick")


@pytest.mark.parametrize("sd", [2.0, 30.0, 5_000.0])
def test_the_exact_sampler_fits_its_distribution_and_a_rounded_one_of_another_width_does_not(sd: float) -> None:
    draws = discrete_gaussian(sd, 20_000)
    assert _ks_p(draws, sd) > 1e-4
    assert _ks_p(draws, sd * 1.1) < 1e-4
    assert _ks_p(draws + max(1, int(sd / 10)), sd) < 1e-4


def test_the_distribution_function_is_one() -> None:
    values = np.arange(-60, 61)
    table = _cdf(values, 5.0)
    assert (np.diff(table) >= 0).all()
    assert table[60] - table[59] == pytest.approx(1 / (5 * np.sqrt(2 * np.pi)), rel=1e-6)
    assert table[-1] == pytest.approx(1)


class Tardy(Forgetful):
    """Holds every entry back until the next one."""

    waiting: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def commit(self, *args: Any, **options: Any) -> Any:
        before, self.waiting = self.waiting, (args, options)
        if before is not None:
            super(Forgetful, self).commit(*before[0], **before[1])


def tardy(path: Path) -> Tardy:
    ledger = forgetful(path)
    ledger.__class__ = Tardy
    assert isinstance(ledger, Tardy)
    return ledger


def test_an_entry_after_its_bytes_is_seen() -> None:
    found = ledger_entries(replace(subject(), open_ledger=tardy))
    assert found.figures["late"] > 0
    assert not found.passed


@pytest.mark.parametrize("sites", [3, 4, 7])
def test_ledgers_of_a_plan_of_any_size_are_looked_at(sites: int) -> None:
    """The encoding of a plan has room for its own hospitals only: three are played by three."""
    whole = subject("data=heart", "data.population=180", "training.rounds=20", "privacy.epsilon=1.9")
    names = tuple(Site(name=f"hospital-{i}", index=i, identity=f"{i:064x}") for i in range(1, sites + 1))
    experiment = compose_experiment(
        conf_dir(), ["data=heart", "data.population=180", "training.rounds=20", "privacy.epsilon=1.9"]
    )
    catalogue, label = read_catalogue(experiment.data.catalogue), read_label(experiment.data.label)
    found = ledger_entries(replace(whole, plan=resolve(experiment, catalogue, label, names)))
    assert found.passed
    assert found.figures["releases"] > 0


def test_a_ledger_that_understates_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The subject says that its noise is narrower than what was charged for: as if sigma were misstated."""
    whole = subject()
    claims = tuple((name, replace(r, sigma=r.sigma / 2)) for name, r in whole.releases())
    monkeypatch.setattr(type(whole), "releases", lambda _: claims)
    found = dry_run.ledger_entries(whole)
    assert found.figures["understated"] > 0
    assert found.figures["missing"] == 0
    assert not found.passed
