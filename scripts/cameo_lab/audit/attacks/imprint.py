"""Imprint: a crafted first layer that writes single records into the sum over all hospitals."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.attacks.gradients import RECONSTRUCTED_RMS
from cameo_lab.audit.attacks.wire import open_wire
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.subject import Floats, Subject, added, patients_of
from cameo_models.shapes import flatten, parameter_count, unflatten
from cameo_protocol.plan import Encoded, RiskTask, RunPlan
from cameo_protocol.secagg.encoding import decode, largest_scale

PATIENTS = {"quick": 20, "full": 1600}
UNITS = {"quick": 256, "full": 1024}  # 1,024 is the most that a plan can name
ROUNDS = {"quick": 3, "full": 20}
PLAIN_SHARE = 0.95
SLOPE = 4.0  # of a unit, in inverse distances to its neighbour: a record moves its nearest unit and hardly another
OUTPUT = 2.0  # weight of each unit in the logit, with alternating signs, so that no score saturates


def attack(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Read records out of opened sums over the whole cohort; none may be read, and nearly all must be without noise.

    The attacker is a malicious coordinator: it plans the widest network, and from step 1 on broadcasts a first layer
    whose units each answer to a thin slice of one random projection, so that a record alone in its slice is the
    ratio of two gradients. Every round projects anew. Product: the opened sums of real hospitals, clip and noise at
    the plan's own sigma. Control: the same sums, clipped, without noise and masks.
    Sources: Fowl et al., ICLR 2022, "Robbing the Fed", section 4 (imprint module); Boenisch et al., EuroS&P 2023,
    "When the Curious Abandon Honesty", section 4 (trap weights). Both use ReLU; slices of tanh do the same.
    """
    started = time.monotonic()
    victim = replace(subject, plan=widest(subject.plan, subject.features, UNITS[effort]))
    rows = random.uniform(-1.0, 1.0, (PATIENTS[effort], subject.features)).astype(np.float32)
    hospitals = _spread(victim.plan, rows, random.integers(0, 2, len(rows)).astype(np.float64))
    models = [crafted(victim, random) for _ in range(ROUNDS[effort])]
    with open_wire(victim, hospitals) as wire:
        found = _read(victim, rows, ((model, wire.round(model).total) for model in models))
    plain = _read(victim, rows, ((model, _without_noise(victim, hospitals, model)) for model in models))
    return Finding(
        name="imprint",
        passed=found == 0 and plain >= PLAIN_SHARE * len(rows),
        figures={"patients": len(rows), "reconstructed": found},
        limit=f"0 of {len(rows)} reconstructed; plain arm >= {PLAIN_SHARE:.0%}",
        control={"patients": len(rows), "reconstructed": plain},
        control_failed=plain >= PLAIN_SHARE * len(rows),
        seconds=time.monotonic() - started,
    )


def widest(plan: RunPlan, features: int, units: int) -> RunPlan:
    """The plan with one risk model of one wide layer in place of its models; rounds, cohort and noise as they are.

    Its noise multiplier is that of the plan's risk task, or of its first task where there is none. It releases no
    more than the plan does, so hospitals accept it where their policy allows networks.
    """
    old = next((task for task in plan.trained() if isinstance(task, RiskTask)), plan.trained()[0])
    label = old.label if isinstance(old, RiskTask) else "outcome"
    sha256 = old.label_sha256 if isinstance(old, RiskTask) else "0" * 64
    task = RiskTask(
        name=old.name,
        label=label,
        label_sha256=sha256,
        model="mlp",
        hidden=units,
        rate=old.rate,
        share=old.share,
        encoded=old.encoded,
    )
    dim, cohort = parameter_count(task, features), plan.cohort
    scale = largest_scale(
        dim=dim,
        clip=old.encoded.clip,
        bound=old.encoded.bound,
        sigma=old.encoded.sigma,
        n=len(cohort.sites),
        t=cohort.threshold,
        c=cohort.colluders,
        local=plan.privacy.mode == "local",
    )
    encoded = Encoded(**{**old.encoded.model_dump(), "dim": dim, "scale": scale})
    return plan.model_copy(update={"tasks": (task.model_copy(update={"encoded": encoded}),)})


def crafted(subject: Subject, random: np.random.Generator) -> Floats:
    """A model whose units cut one random projection of the features into slices, joint (d,).

    The attacker guesses the distribution of the projection: normal, with the variance of uniform features.
    """
    from scipy.stats import norm

    task = _task(subject.plan)
    direction = random.standard_normal(subject.features)
    direction /= np.linalg.norm(direction)
    cuts = norm.ppf(np.arange(1, task.hidden + 1) / (task.hidden + 1)) / np.sqrt(3.0)
    slopes = SLOPE / np.gradient(cuts)
    signs = np.where(np.arange(task.hidden) % 2, 1.0, -1.0)
    tensors = {
        "hidden.weight": slopes[:, None] * direction[None, :],
        "hidden.bias": -slopes * cuts,
        "output.weight": OUTPUT * signs[None, :],
        "output.bias": np.zeros(1),
    }
    return flatten(task, subject.features, tensors)


def _task(plan: RunPlan) -> RiskTask:
    (task,) = plan.trained()
    assert isinstance(task, RiskTask)
    return task


def _spread(plan: RunPlan, rows: npt.NDArray[np.float32], outcome: Floats) -> list[Patients]:
    """The patients over all hospitals of the cohort, one after the other."""
    count = len(plan.cohort.sites)
    return [patients_of(rows[i::count], outcome[i::count], plan) for i in range(count)]


def _without_noise(subject: Subject, hospitals: list[Patients], model: Floats) -> npt.NDArray[np.uint32]:
    silent = subject.silent()
    # The broadcast is float32, so hospitals differentiate at the rounded model.
    rounded = model.astype("<f4").astype(np.float64)
    return added([silent.contribute("train", rounded, patients) for patients in hospitals])


def _read(
    subject: Subject, rows: npt.NDArray[np.float32], opened: Iterable[tuple[Floats, npt.NDArray[np.uint32]]]
) -> int:
    """How many patients some unit of some round gives back."""
    task, layout = _task(subject.plan), subject.plan.layout("train")
    got = np.zeros(len(rows), dtype=bool)
    for _, total in opened:
        tensors = unflatten(task, subject.features, decode(layout, total)[task.name])
        bias = tensors["hidden.bias"][:, None]
        guesses = np.clip(tensors["hidden.weight"] / np.where(bias == 0, np.inf, bias), -1.0, 1.0)
        square = (guesses**2).sum(axis=1)[:, None] - 2 * guesses @ rows.T + (rows**2).sum(axis=1)[None, :]
        got |= (square <= subject.features * RECONSTRUCTED_RMS**2).any(axis=0)
    return int(got.sum())
