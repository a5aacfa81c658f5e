"""The canary audit: made-up patients are put in or left out, and the coordinator's view is asked which.

The attacker is the strongest that the claim covers: a coordinator with c colluding hospitals, who knows every other
patient (so the others may as well be absent) and sends the model it likes best in every round, here always the first
one. What it sees is the sum over the t - c honest hospitals, one with the canaries and the rest empty.

A run carries many canaries, each in or out by a coin of its own, whose gradients lie (nearly) at right angles; the
part of a sum along each of them, least squares over all, is its score, 1 on average when in and 0 when out. The noise
on the scores of one run is independent from canary to canary, so scores pool over canaries and over runs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.bounds import CONFIDENCE, Guesses
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.people import nobody
from cameo_lab.audit.structure import honest_hospitals, planned_sd, signed
from cameo_lab.audit.subject import Floats, Subject, added, patients_of
from cameo_protocol.errors import Bug
from cameo_protocol.privacy.accountant import epsilon, gaussian_epsilon

RUNS: dict[Effort, int] = {"quick": 32, "full": 240}
CONTROL_RUNS = 4
MOST_CANARIES = 32
MOST_VECTORS = 80
LOUD = 8.0
EFFICIENT = 0.8
MIDDLE = 0.5
NAME = "canary-lower-bound"


@dataclass(frozen=True, eq=False)
class Canaries:
    """The canaries of a run. rows (k, F), outcome (k,); reader (k, d): lanes -> score of each canary."""

    rows: npt.NDArray[np.float32]
    outcome: Floats
    reader: Floats


def canary_audit(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Lower bound on epsilon against the claim, at CONFIDENCE; control: the same without noise must break the claim.

    Full batch only, as all plans are: what a sampled release leaves an attacker is no single mu.
    """
    began = time.perf_counter()
    if subject.sampling.q < 1:
        raise Bug("audit-sampling", what="the canary audit knows full-batch plans only")
    claim, delta = claimed(subject), subject.plan.privacy.delta
    guesses = guess(subject, random, RUNS[effort])
    found = lower_bound(subject, guesses)
    silent = lower_bound(subject, guess(subject.silent(), random, CONTROL_RUNS))
    return Finding(
        name=NAME,
        passed=found <= claim and silent > claim,
        figures={
            "lower bound": found,
            "claim": claim,
            "delta": delta,
            "canaries in": float(guesses.ins),
            "canaries out": float(guesses.outs),
            "wrong share in": guesses.false_out / max(guesses.ins, 1),
            "wrong share out": guesses.false_in / max(guesses.outs, 1),
        },
        limit=f"lower bound on epsilon (confidence {CONFIDENCE:.1%}) <= {claim:.3g}",
        control={"lower bound without noise": silent},
        control_failed=silent > claim,
        seconds=time.perf_counter() - began,
    )


def claimed(subject: Subject) -> float:
    """Epsilon of everything the plan may release, at the sampling rate that is claimed."""
    return epsilon((release for _, release in subject.releases()), subject.plan.privacy.delta)


def guess(subject: Subject, random: np.random.Generator, runs: int) -> Guesses:
    """Play that many runs and count wrong guesses."""
    canaries = _canaries(subject, random)
    outs = false_in = ins = false_out = 0
    for _ in range(runs):
        inside = random.random(len(canaries.rows)) < 0.5
        said = _scores(subject, canaries, inside) > MIDDLE
        ins += int(inside.sum())
        outs += int((~inside).sum())
        false_out += int((inside & ~said).sum())
        false_in += int((~inside & said).sum())
    return Guesses(outs=outs, false_in=false_in, ins=ins, false_out=false_out)


def lower_bound(subject: Subject, guesses: Guesses) -> float:
    """Lower bound on the whole run's epsilon, through mu of Gaussian DP.

    mu grows with the square root of the rounds, so of a plan with very many rounds or hospitals fewer are played.
    """
    mu = guesses.mu() * math.sqrt(_all_rounds(subject) / _rounds(subject))
    return gaussian_epsilon(mu, subject.plan.privacy.delta)


def _all_rounds(subject: Subject) -> int:
    return subject.plan.training.rounds + subject.plan.training.spare


def _rounds(subject: Subject) -> int:
    """Rounds that are played: all of the plan's, or as many as MOST_VECTORS vectors of the honest hospitals allow."""
    return min(_all_rounds(subject), max(MOST_VECTORS // honest_hospitals(subject), 1))


def _scores(subject: Subject, canaries: Canaries, inside: npt.NDArray[np.bool_]) -> Floats:
    """The mean score of each canary over the rounds of one run, (k,)."""
    plan, parameters, rounds = subject.plan, subject.initial(), _rounds(subject)
    present = subject.sampled(patients_of(canaries.rows[inside], canaries.outcome[inside], plan))
    hospitals = [present, *[nobody(plan, subject.features)] * (honest_hospitals(subject) - 1)]
    opened = [subject.open(plan, patients, subject.noise) for patients in hospitals]
    seen = np.zeros(canaries.reader.shape[1])
    for _ in range(rounds):
        seen += signed(added([hospital("train", parameters) for hospital in opened]))
    return canaries.reader @ seen / rounds


def _canaries(subject: Subject, random: np.random.Generator) -> Canaries:
    """As many canaries as can be told apart well, with the reader that tells them apart."""
    weight = _precision(subject)
    size = 1 << min(subject.features, MOST_CANARIES).bit_length() - 1
    while True:
        rows = _rows(size, subject.features, random)
        outcome = random.integers(0, 2, size).astype(np.float64)
        gradients = np.stack([_gradient(subject, rows[i : i + 1], outcome[i : i + 1]) for i in range(size)]) * weight
        gram = gradients @ gradients.T
        inverse = np.linalg.pinv(gram)
        alone = 1.0 / (np.diag(gram) * np.diag(inverse))
        if size == 1 or alone.min() >= EFFICIENT:
            return Canaries(rows, outcome, inverse @ gradients * weight)
        size //= 2


def _rows(size: int, features: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Rows at right angles (Hadamard), in random columns and signs, loud enough that every gradient needs its clip."""
    from scipy.linalg import hadamard

    rows = np.zeros((size, features), dtype=np.float32)
    columns = random.permutation(features)[:size]
    rows[:, columns] = hadamard(size) * random.choice([-LOUD, LOUD], size)
    return rows


def _gradient(subject: Subject, row: npt.NDArray[np.float32], outcome: Floats) -> Floats:
    """What one canary adds to a sum, integer units, (d,): the product's own clipped contribution without noise."""
    silent = subject.silent()
    patient: Patients = patients_of(row, outcome, subject.plan)
    return signed(silent.contribute("train", silent.initial(), patient))


def _precision(subject: Subject) -> Floats:
    """1 / sd of the planned noise on every lane, (d,)."""
    blocks = subject.plan.layout("train").blocks
    return np.concatenate([np.full(block.dim, 1.0 / planned_sd(subject, block)) for block in blocks])
