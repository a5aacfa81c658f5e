"""Gradient inversion of what a hospital uploads: the hardest case for the hospital is one patient alone in the sum."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.attacks.gradients import View, hits, invert
from cameo_lab.audit.attacks.wire import Lanes, Wire, open_wire
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import Floats, Subject, added, patients_of
from cameo_protocol.errors import Bug
from cameo_protocol.secagg.encoding import decode

TARGETS = {"quick": 5, "full": 100}
STEPS = {"quick": 60, "full": 300}
# Rounds of the plan that are spent on one patient and one model, at most.
ROUNDS = {"quick": 3, "full": 200}
PLAIN_SHARE = 0.95
LEAST_P = 1e-6


def attack(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Reconstruct a patient from the product's own bytes; none may succeed, and nearly all must from clear gradients.

    The attacker is the coordinator: it knows the plan and the model, chooses the model from step 1 on, and every
    other hospital of the sum is empty or colludes, so that one patient's gradient is all that noise must hide.
    Four views: the masked upload as it came; the opened sum of one round; one hospital's vector with every mask
    fallen, averaged over all rounds of the plan at one model; and, as the control, the encoded gradient in clear.
    Sources: see `gradients.invert`.
    """
    started = time.monotonic()
    count = TARGETS[effort]
    rows = random.uniform(-1.0, 1.0, (count, subject.features)).astype(np.float32)
    targets = _Targets(subject, rows, random.integers(0, 2, count).astype(np.float64))
    masked, opened, worst = _from_wire(subject, targets)
    views = {
        "masked": masked,
        "opened": opened,
        "averaged": _averaged(subject, targets, min(subject.plan.training.rounds, ROUNDS[effort])),
        "plain": _averaged(subject.silent(), targets, 1),
    }
    found = {
        name: hits(invert(subject.plan, subject.features, view, STEPS[effort]), rows) for name, view in views.items()
    }
    plain = found.pop("plain")
    return Finding(
        name="gradient-inversion",
        passed=not any(found.values()) and worst >= LEAST_P and plain >= PLAIN_SHARE * count,
        figures={"targets": count, **found, "masked_uniform_p": worst},
        limit=f"0 of {count} reconstructed; masked lanes uniform at p >= {LEAST_P:g}; plain arm >= {PLAIN_SHARE:.0%}",
        control={"targets": count, "plain": plain},
        control_failed=plain >= PLAIN_SHARE * count,
        seconds=time.monotonic() - started,
    )


@dataclass
class _Targets:
    """Patients of one hospital of whom one at a time consents; the others have withdrawn."""

    subject: Subject
    rows: npt.NDArray[np.float32]
    outcome: Floats
    focus: int = 0

    def __post_init__(self) -> None:
        self.alone = alone(self.subject, self.rows, self.outcome, lambda: self.focus)

    def others(self) -> list[Patients]:
        """The other hospitals of the cohort, each without a patient."""
        return [nobody(self.subject.plan, self.subject.features) for _ in self.subject.plan.cohort.sites[1:]]


def alone(subject: Subject, rows: npt.NDArray[np.float32], outcome: Floats, focus: Callable[[], int]) -> Patients:
    """A hospital whose only patient is `focus()`, as all others have withdrawn; -1 = none."""
    places = np.arange(len(rows))
    return replace(patients_of(rows, outcome, subject.plan), allowed=lambda: places == focus())


def _from_wire(subject: Subject, targets: _Targets) -> tuple[View, View, float]:
    """(the masked uploads read as if they were gradients, the opened sums, p of the masked lanes being uniform)."""
    model = subject.initial()
    layout = subject.plan.layout("train")
    masked: list[dict[str, Floats]] = []
    opened: list[dict[str, Floats]] = []
    lanes: list[Lanes] = []
    with open_wire(subject, [targets.alone, *targets.others()]) as wire:
        own = wire.plan.cohort.sites[0].index
        for focus in range(len(targets.rows)):
            targets.focus = focus
            captured = wire.round(model)
            _check_sum(wire, captured.total)
            masked.append(decode(layout, captured.uploads[own]))
            opened.append(decode(layout, captured.total))
            lanes += captured.uploads.values()
    return View(model, _stacked(masked)), View(model, _stacked(opened)), uniform_p(np.concatenate(lanes))


def _averaged(subject: Subject, targets: _Targets, rounds: int) -> View:
    """One hospital's vectors with no mask on them, mean of `rounds` at the same model."""
    model, layout = subject.initial(), subject.plan.layout("train")
    means = []
    for focus in range(len(targets.rows)):
        targets.focus = focus
        hospital = subject.open(subject.plan, targets.alone, subject.noise)
        sums = [decode(layout, hospital("train", model)) for _ in range(rounds)]
        means.append({name: np.mean([one[name] for one in sums], axis=0) for name in sums[0]})
    return View(model, _stacked(means))


def _stacked(rows: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def uniform_p(lanes: Lanes) -> float:
    """p of the four bytes of masked lanes being uniform (least of four chi-square tests, Bonferroni)."""
    from scipy.stats import chisquare

    raw = np.frombuffer(np.ascontiguousarray(lanes, dtype="<u4").tobytes(), dtype=np.uint8).reshape(-1, 4)
    return min(1.0, 4 * min(float(chisquare(np.bincount(raw[:, i], minlength=256)).pvalue) for i in range(4)))


def _check_sum(wire: Wire, total: Lanes | None) -> None:
    """The attack looks at the product's bytes only if they are the sum of what its hospitals made."""
    if total is None or not np.array_equal(total, added(list(wire.made.values()))):
        raise Bug("attack-sum", what="the opened sum is not the sum of the hospitals' vectors")
