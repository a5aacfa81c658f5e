"""Floating-point attacks on the noise: an output that only one of two neighbouring data sets can produce.

The attacker knows both neighbouring sums and the code, and sees one output of each coordinate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.subject import Floats, Subject, patients_of
from cameo_protocol.plan import RiskTask
from cameo_protocol.secagg.encoding import decode

OUTPUTS = {"quick": 400, "full": 2000}
PATIENTS = 3
CONTROL_SHARE = 0.05
LEAST_P = 1e-6
UNIT = 2.0**-53  # step of the uniform numbers that numpy's and C's generators give
NEAR = 64
Flags = npt.NDArray[np.bool_]
Reachable = Callable[[Floats, Floats], Flags]


def attack(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Say of each output from which of two neighbouring data sets it came; possible for none of the product's.

    Product: coordinates of uploads without a mask, with and without one patient; the attacker knows both clear sums,
    up to which way each was rounded. Controls: the same clear sums in double precision, with Laplace noise by
    inversion and with numpy's Gaussian noise, each as wide as one patient's share of the coordinate. Besides, the
    low bits of what was added to the product's sums must be uniform (chi-square), as those of wide noise are.
    Sources: Mironov, CCS 2012, "On Significance of the Least Significant Bits", section 4 (which doubles Laplace
    noise by inversion can reach); Haney, Desfontaines, Hartman, Shrestha, Hay 2022, "Precision-based attacks and
    interval refining", section 3 (which doubles a floating-point addition can give, whatever the noise).
    """
    started = time.monotonic()
    count = OUTPUTS[effort]
    outputs = _product(subject, random, count)
    known = int(identified(outputs, partial(_on_grid, outputs.steps)).sum())
    share = np.abs(outputs.first - outputs.other)
    laplace = _naive(outputs, share * _laplace_noise(np.maximum(random.random(count), UNIT)))
    gaussian = _naive(outputs, share * random.standard_normal(count))
    control = {
        "outputs": count,
        "laplace": int(identified(laplace, partial(_laplace_reaches, share)).sum()),
        "gaussian": int(identified(gaussian, added_reaches).sum()),
    }
    broken = min(control["laplace"], control["gaussian"]) >= CONTROL_SHARE * count
    p = _low_bits(outputs)
    return Finding(
        name="floating-point",
        passed=known == 0 and p >= LEAST_P and broken,
        figures={"outputs": count, "identified": known, "low_bits_p": p},
        limit=f"0 of {count} outputs identified; low bits of the noise uniform at p >= {LEAST_P:g}",
        control=control,
        control_failed=broken,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, eq=False)
class Outputs:
    """Noisy outputs, and what each is without noise under either hypothesis; all (n,), model units.

    second: whether an output came from the other data set. steps: integer steps of a unit in the output's block.
    """

    seen: Floats
    first: Floats
    other: Floats
    second: Flags
    steps: Floats


def identified(outputs: Outputs, reaches: Reachable) -> Flags:
    """(n,) True where exactly one hypothesis can have produced the output, and it is the true one."""
    first = reaches(outputs.seen, outputs.first)
    other = reaches(outputs.seen, outputs.other)
    truth: Flags = np.where(outputs.second, other & ~first, first & ~other)
    return truth


def added_reaches(seen: Floats, clear: Floats) -> Flags:
    """Whether some double g gives fl(clear + g) == seen; the attack of Haney et al."""
    guess = seen - clear
    reached = np.zeros(seen.shape, dtype=bool)
    for noise in (guess, np.nextafter(guess, -np.inf), np.nextafter(guess, np.inf)):
        reached |= clear + noise == seen
    return reached


def _laplace_noise(uniform: Floats) -> Floats:
    """Laplace noise of scale 1 by inversion, as libraries made it before 2012; uniform in (0, 1)."""
    centred = uniform - 0.5
    noise: Floats = -np.sign(centred) * np.log(1 - 2 * np.abs(centred))
    return noise


def _laplace_reaches(scale: Floats, seen: Floats, clear: Floats) -> Flags:
    """Whether some multiple of 2^-53 near the inverse gives seen through `_laplace_noise`; the attack of Mironov."""
    wanted = (seen - clear) / scale
    centred = np.sign(wanted) * (1 - np.exp(-np.abs(wanted))) / 2
    nearest = np.round((centred + 0.5) / UNIT)
    reached = np.zeros(seen.shape, dtype=bool)
    for shift in range(-NEAR, NEAR + 1):
        uniform = np.clip((nearest + shift) * UNIT, UNIT, 1 - UNIT)
        reached |= clear + scale * _laplace_noise(uniform) == seen
    return reached


def _naive(outputs: Outputs, noise: Floats) -> Outputs:
    """The same clear sums with noise added in double precision."""
    return replace(outputs, seen=np.where(outputs.second, outputs.other, outputs.first) + noise)


def _product(subject: Subject, random: np.random.Generator, count: int) -> Outputs:
    """Coordinates of a hospital's uploads with its masks off, and both clear sums of each."""
    plan, model = subject.plan, subject.initial()
    rows = random.uniform(-1.0, 1.0, (PATIENTS, subject.features)).astype(np.float32)
    outcome = random.integers(0, 2, PATIENTS).astype(np.float64)
    neighbours = [patients_of(rows[:size], outcome[:size], plan) for size in (PATIENTS - 1, PATIENTS)]
    layout = plan.layout("train")
    clear = [_clear_sums(subject, patients, model) for patients in neighbours]
    grid = np.concatenate([np.full(block.dim, float(block.scale)) for block in layout.blocks])
    seen, truths = [], []
    hospitals = [subject.open(plan, patients, subject.noise) for patients in neighbours]
    for turn in range(-(-count // layout.dim) + 1):
        seen.append(np.concatenate(list(decode(layout, hospitals[turn % 2]("train", model)).values())))
        truths.append(np.full(layout.dim, turn % 2 == 1))
    # Coordinates of both kinds of upload in equal shares, whatever the dimension.
    order = random.permutation(len(seen) * layout.dim)[:count]
    return Outputs(
        np.concatenate(seen)[order],
        np.tile(clear[0], len(seen))[order],
        np.tile(clear[1], len(seen))[order],
        np.concatenate(truths)[order],
        np.tile(grid, len(seen))[order],
    )


def _clear_sums(subject: Subject, patients: Patients, model: Floats) -> Floats:
    """The clipped sum before rounding and noise, joint (d,); the attacker knows every record."""
    from cameo_client.training.gradients import PatientGradients

    spans = subject.plan.parameter_spans()
    parts = []
    for task in subject.plan.trained():
        labels = patients.outcomes[task.label] if isinstance(task, RiskTask) else None
        made = PatientGradients(task, patients.features, labels)
        parts.append(made.clipped_sum(model[spans[task.name]], task.encoded.clip))
    return np.concatenate(parts)


def _on_grid(steps: Floats, seen: Floats, clear: Floats) -> Flags:
    """Whether noise reaches an output from a clear sum that was rounded down or up to the grid of its block.

    The very test that breaks floating-point noise, at both points of the grid that the clear sum may have become.
    """
    scaled = clear * steps
    return added_reaches(seen, np.floor(scaled) / steps) | added_reaches(seen, np.ceil(scaled) / steps)


def _low_bits(outputs: Outputs) -> float:
    """p of the four low bits of what was added to the clear sums, in steps, being uniform."""
    from scipy.stats import chisquare

    clear = np.where(outputs.second, outputs.other, outputs.first)
    added = np.round(outputs.seen * outputs.steps) - np.floor(clear * outputs.steps)
    return float(chisquare(np.bincount(added.astype(np.int64) % 16, minlength=16)).pvalue)
