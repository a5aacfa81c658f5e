"""Structural checks: what a correct implementation does for certain, measured on the product's own code.

They find a wrong scale or a wrong sampler with far fewer draws than any attack; only they see a shuffle that is
called Poisson sampling.
"""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import Floats, Lanes, Subject, patients_of
from cameo_protocol.layout import ROUND_KINDS, Block
from cameo_protocol.privacy.noise import honest, hospital_sd

DRAWS = 100_000
LEAST_P = 0.001
LANES = 30_000
SD_TOLERANCE = 0.02
CLONES = 64
STEPS = 20
SAMPLED_STEPS = 2_000
BATCH_VARIANCE = (0.8, 1.25)
EXACT_CDF_SD = 2_000.0


def noise_distribution(subject: Subject, effort: Effort) -> Finding:
    """The sampler's draws against the discrete Gaussian: Kolmogorov-Smirnov, quick: at the plan's least and largest
    noise; full: at every block's.

    The least of B p-values is held against LEAST_P / B. The test is conservative on integers.
    """
    began = time.perf_counter()
    figures = {}
    blocks = sorted(_blocks(subject), key=lambda block: planned_sd(subject, block))
    for block in blocks if effort == "full" else {b.name: b for b in (blocks[0], blocks[-1])}.values():
        sd = planned_sd(subject, block)
        figures[f"p {block.name}"] = _ks_p(subject.noise(sd, DRAWS), sd)
    limit = LEAST_P / len(figures)
    return Finding(
        name="noise-distribution",
        passed=min(figures.values()) > limit,
        figures=figures,
        limit=f"p > {limit:.2g} for {DRAWS:,} draws of each block's noise against the discrete Gaussian",
        control={},
        control_failed=True,
        seconds=time.perf_counter() - began,
    )


def empty_batch_noise(subject: Subject) -> Finding:
    """A hospital without patients sends noise, and as much as the plan says.

    Measured per block: the sd of what t - c empty hospitals (one in local mode) send together, in multiples of what
    the claim needs, sigma times the sensitivity of one patient. That need is written out here from the plan's
    numbers; what the product adds on top to cover rounding is the only allowance above.
    """
    began = time.perf_counter()
    figures, good = {}, True
    count = honest_hospitals(subject)
    for kind in ROUND_KINDS:
        layout = subject.plan.layout(kind)
        if not layout.blocks:
            continue
        hospital = subject.open(subject.plan, nobody(subject.plan, subject.features), subject.noise)
        parameters = subject.initial()
        rounds = -(-LANES // min(block.dim for block in layout.blocks))
        seen = np.stack([signed(hospital(kind, parameters)) for _ in range(rounds)])
        for block, span in zip(layout.blocks, layout.spans().values(), strict=True):
            needed = block.sigma * _sensitivity(block)
            ratio = float(np.sqrt(np.mean(seen[:, span] ** 2)) * math.sqrt(count) / needed)
            allowance = planned_sd(subject, block) * math.sqrt(count) / needed
            figures[f"sd {block.name}"] = ratio
            good &= 1 - SD_TOLERANCE <= ratio <= max(1.0, allowance) * (1 + SD_TOLERANCE)
    return Finding(
        name="empty-batch-noise",
        passed=good,
        figures=figures,
        limit=f"within {SD_TOLERANCE:.0%} of sigma x sensitivity, over the {count} hospitals that the claim rests on",
        control={},
        control_failed=True,
        seconds=time.perf_counter() - began,
    )


def batch_size(subject: Subject) -> Finding:
    """How many records really enter a step: all of them in a full-batch plan, a Poisson sample otherwise.

    Counted from sums without noise over CLONES identical patients: each that takes part adds the same vector.
    """
    began = time.perf_counter()
    q = subject.sampling.q
    sizes = _sizes(subject, STEPS if q == 1 else SAMPLED_STEPS)
    if q == 1:
        figures = {"least share": float(sizes.min()) / CLONES, "largest share": float(sizes.max()) / CLONES}
        good, limit = bool((sizes == CLONES).all()), f"every one of {CLONES} records in every step"
    else:
        ratio = float(sizes.var(ddof=1)) / (CLONES * q * (1 - q))
        mean = float(sizes.mean()) / (CLONES * q)
        figures = {"variance ratio": ratio, "mean ratio": mean}
        room = 5 * math.sqrt((1 - q) / (CLONES * q * len(sizes)))
        good = BATCH_VARIANCE[0] <= ratio <= BATCH_VARIANCE[1] and abs(mean - 1) <= room
        limit = f"variance / Nq(1-q) in [{BATCH_VARIANCE[0]}, {BATCH_VARIANCE[1]}], mean / Nq within {room:.3f} of 1"
    seconds = time.perf_counter() - began
    return Finding(
        name="batch-size", passed=good, figures=figures, limit=limit, control={}, control_failed=True, seconds=seconds
    )


def signed(total: Lanes) -> Floats:
    """Lanes modulo 2^32 as the signed integers they stand for, float64."""
    return total.view(np.int32).astype(np.float64)


def honest_hospitals(subject: Subject) -> int:
    """How many hospitals' noise the claim rests on: t - c, or 1 in local mode."""
    cohort = subject.plan.cohort
    return honest(subject.plan.privacy.mode, cohort.threshold, cohort.colluders)


def planned_sd(subject: Subject, block: Block) -> float:
    """The sd of the noise that the plan asks of one hospital on every lane of a block, integer units."""
    cohort = subject.plan.cohort
    return hospital_sd(block, subject.plan.privacy.mode, cohort.threshold, cohort.colluders)


def _sizes(subject: Subject, steps: int) -> npt.NDArray[np.int64]:
    silent = subject.silent()
    parameters = silent.initial()
    one = signed(silent.contribute("train", parameters, _clones(subject, 1)))
    patients = silent.sampled(_clones(subject, CLONES))
    hospital = silent.open(silent.plan, patients, silent.noise)
    sums = []
    for _ in range(steps):
        if subject.sampling.q < 1:  # within a run nobody comes back who was left out once: each step is a run of one
            hospital = silent.open(silent.plan, patients, silent.noise)
        sums.append(signed(hospital("train", parameters)))
    return np.rint(np.stack(sums) @ one / (one @ one)).astype(np.int64)


def _clones(subject: Subject, size: int) -> Patients:
    row = np.where(np.arange(subject.features) % 2 == 0, 0.5, -0.5).astype(np.float32)
    return patients_of(np.tile(row, (size, 1)), np.ones(size), subject.plan)


def _blocks(subject: Subject) -> list[Block]:
    return [block for kind in ROUND_KINDS for block in subject.plan.layout(kind).blocks]


def _sensitivity(block: Block) -> float:
    return 1.0 if block.counts else block.scale * block.clip + math.sqrt(block.dim)


def _ks_p(draws: npt.NDArray[np.int64], sd: float) -> float:
    """p of the largest gap between the draws' distribution and that of N_Z(0, sd^2), at and just below each value."""
    from scipy.stats import kstwo

    values, counts = np.unique(draws, return_counts=True)
    after = np.cumsum(counts) / len(draws)
    before = after - counts / len(draws)
    gap = max(
        float(np.abs(after - _cdf(values, sd)).max()),
        float(np.abs(before - _cdf(values - 1, sd)).max()),
    )
    return float(kstwo.sf(gap, len(draws)))


def _cdf(values: npt.NDArray[np.int64], sd: float) -> Floats:
    """P(X <= value) of the discrete Gaussian; above EXACT_CDF_SD by its continuous twin (error below 1e-7)."""
    from scipy.special import ndtr

    if sd > EXACT_CDF_SD:
        return np.asarray(ndtr((values + 0.5) / sd), dtype=np.float64)
    edge = max(int(12 * sd) + 2, int(np.abs(values).max(initial=0)) + 1)
    grid = np.arange(-edge, edge + 1, dtype=np.float64)
    weights = np.exp(-(grid**2) / (2 * sd * sd))
    table: Floats = np.cumsum(weights) / weights.sum()
    return table[values + edge]
