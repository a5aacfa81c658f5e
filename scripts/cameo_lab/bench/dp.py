"""`cameo bench dp`: a private step beside a plain PyTorch step, for every shipped model, same machine, same run.

plain: forward, backward and optimiser step of a batch, no per-record work. ours: the clipped sum of a round, ready for
encoding, as a hospital computes it. opacus_hooks: per-record gradients, clipping, adding up. opacus_ghost: Opacus' two
passes, where it knows every layer. All in the product's float64 on the same patients, in turns; CPU time, medians.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cameo_client.training import bookkeeping
from cameo_client.training.gradients import PatientGradients
from cameo_models.networks import build, load_parameters, patient_losses
from cameo_models.shapes import ModelTask, initial_parameters
from cameo_protocol.plan import Encoded, RiskTask, SegmentTask

FEATURES = 40  # about as many as the shipped catalogues give
PATIENTS = 4000  # of one hospital; a round is one full-batch step
DEEP_BATCH = 1024
_SECONDS = 0.02  # of one sample; steps are repeated to fill it
Step = Callable[[], object]
Losses = bookkeeping.Losses


@dataclass(frozen=True, eq=False)
class Case:
    """A model with its batch. ours: the step of the product on it; shipped: hospitals train it."""

    name: str
    network: Callable[[], nn.Module]
    rows: torch.Tensor
    losses: Losses
    ours: Step
    shipped: bool
    ghost: bool


def bench_dp(samples: int, patients: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all cases with one thread and with torch's own number; what `--json` prints.

    ratios: plain over ours of the one-thread medians, so 1 is as fast as a plain step, and plain over Opacus' hooks
    and ghost clipping for the deep network (with torch's own threads: ours alone). throughput_vs_plain: the worst of
    the shipped models.
    """
    default = torch.get_num_threads()
    microseconds: dict[str, dict[str, dict[str, float]]] = {}
    try:
        for label, threads in (("one_thread", 1), ("default_threads", default)):
            torch.set_num_threads(threads)
            microseconds[label] = {}
            for case in cases(patients):
                say(f"{case.name}, {threads} thread{'s' if threads > 1 else ''}")
                ways = steps(case)
                if label != "one_thread":  # Opacus' hooks take minutes there when the machine is busy
                    ways = {name: ways[name] for name in ("plain", "ours")}
                microseconds[label][case.name] = _medians(ways, samples)
    finally:
        torch.set_num_threads(default)
    return {
        "ratios": _ratios(microseconds["one_thread"]),
        "ratios_default_threads": _ratios(microseconds["default_threads"]),
        "cpu_us_a_step": microseconds,
        "threads": default,
        "patients": patients,
        "features": FEATURES,
        "samples": samples,
    }


def cases(patients: int) -> list[Case]:
    """The three shipped models on a hospital's full batch, and the 64-64-64-1 network that others measure."""
    block = Encoded(dim=1, clip=1.0, bound=1.0, scale=1, sigma=1.0)
    logistic = RiskTask(label="bench", label_sha256="0" * 64, rate=0.1, share=1.0, encoded=block)
    mlp = logistic.model_copy(update={"model": "mlp", "hidden": 8})
    prototypes = SegmentTask(clusters=4, temperature=1.0, rate=0.1, share=1.0, encoded=block)
    shipped: Mapping[str, ModelTask] = {"logistic": logistic, "mlp": mlp, "prototypes": prototypes}
    return [*(_shipped(name, task, patients) for name, task in shipped.items()), _deep()]


def steps(case: Case) -> dict[str, Step]:
    """The ways to make one step of a case."""
    ways = {"plain": _plain(case), "opacus_hooks": _hooks(case), "ours": case.ours}
    return ways | {"opacus_ghost": _ghost(case)} if case.ghost else ways


def table(found: Mapping[str, Any]) -> str:
    """Medians and ratios for people."""
    lines = [f"{'CPU us a step, one thread':26} {'plain':>9} {'hooks':>9} {'ghost':>9} {'ours':>9}  plain/ours"]
    for name, us in found["cpu_us_a_step"]["one_thread"].items():
        cells = [f"{us[way]:9.0f}" if way in us else f"{'-':>9}" for way in ("plain", "opacus_hooks", "opacus_ghost")]
        lines.append(f"{name:26} {' '.join(cells)} {us['ours']:9.0f}  {us['plain'] / us['ours']:10.2f}")
    lines.append(f"throughput of the slowest shipped model: {found['ratios']['throughput_vs_plain']:.2f} of plain")
    return "\n".join(lines)


def _shipped(name: str, task: ModelTask, patients: int) -> Case:
    rng = np.random.default_rng(5)
    rows = rng.uniform(-1, 1, (patients, FEATURES)).astype(np.float32)
    labels = rng.integers(0, 2, patients).astype(np.float64) if isinstance(task, RiskTask) else None
    params = initial_parameters(task, FEATURES, 1) + 0.05
    targets = None if labels is None else torch.from_numpy(labels)
    ours = PatientGradients(task, rows, labels)

    def network() -> nn.Module:
        module = build(task, FEATURES)
        load_parameters(module, task, FEATURES, params)
        return module

    return Case(
        name=name,
        network=network,
        rows=torch.from_numpy(rows).double(),
        losses=lambda module, inputs: patient_losses(task, module, inputs, targets),
        ours=lambda: ours.clipped_sum(params, 1.0),
        shipped=True,
        ghost=isinstance(task, RiskTask),
    )


def _deep() -> Case:
    generator = torch.Generator().manual_seed(5)
    rows = torch.rand(DEEP_BATCH, 64, dtype=torch.float64, generator=generator) * 2 - 1
    labels = torch.randint(0, 2, (DEEP_BATCH,), generator=generator).double()

    def network() -> nn.Module:
        hidden = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(64, 1)).double()

    def losses(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(module(inputs).squeeze(-1), labels, reduction="none")

    module, batch = network(), bookkeeping.Batch.of(rows)
    return Case(
        name="mlp_64_64_64_1",
        network=network,
        rows=rows,
        losses=losses,
        ours=lambda: bookkeeping.clipped_sum(module, batch, losses, 1.0),
        shipped=False,
        ghost=True,
    )


def _plain(case: Case) -> Step:
    module = case.network()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(case.losses(module, case.rows).mean())
        optimizer.step()

    return step


def _hooks(case: Case) -> Step:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    module = GradSampleModule(case.network(), loss_reduction="sum")
    inner = torch.optim.SGD(module.parameters(), lr=1e-4)
    optimizer = DPOptimizer(
        inner, noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=None, loss_reduction="sum"
    )

    def step() -> None:
        optimizer.zero_grad()
        with _quiet():
            torch.autograd.backward(case.losses(module, case.rows).sum())
        optimizer.clip_and_accumulate()

    return step


def _ghost(case: Case) -> Step:
    """Opacus' ghost clipping: a pass for the norms, and one with weighted losses for the sum."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    module = GradSampleModuleFastGradientClipping(case.network(), loss_reduction="sum", max_grad_norm=1.0)
    parameters = list(module.parameters())

    def step() -> None:
        with _quiet():
            losses = case.losses(module, case.rows)
            torch.autograd.backward(losses.sum(), retain_graph=True)
            weights = module.get_clipping_coef()
            for parameter in parameters:
                parameter.grad = None
            module.disable_hooks()
            torch.autograd.backward((weights * losses).sum())
            module.enable_hooks()

    return step


def _quiet() -> warnings.catch_warnings[None]:
    """Opacus hooks on inputs that need no gradient make torch warn; that they need none is intended."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _medians(ways: Mapping[str, Step], samples: int) -> dict[str, float]:
    """Median CPU microseconds of a step of each way; they take turns, so that a busy moment hits all."""
    counts = {name: _fill(step) for name, step in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(samples):
        for name, step in ways.items():
            taken[name].append(_cpu_seconds(step, counts[name]))
    return {name: round(1e6 * statistics.median(each), 2) for name, each in taken.items()}


def _fill(step: Step) -> int:
    """How many steps fill a sample, after a warm-up."""
    _cpu_seconds(step, 3)
    return max(1, round(_SECONDS / max(_cpu_seconds(step, 3), 1e-6)))


def _cpu_seconds(step: Step, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - start) / count


def _ratios(microseconds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Throughput of ours, Opacus' hooks and ghost clipping over that of a plain step; the deep network apart."""
    plain = {name: us["plain"] for name, us in microseconds.items()}
    ours = {f"{name}_vs_plain": plain[name] / us["ours"] for name, us in microseconds.items()}
    deep = microseconds["mlp_64_64_64_1"]
    shipped: Sequence[float] = [ours[f"{name}_vs_plain"] for name in ("logistic", "mlp", "prototypes")]
    others = {
        f"{name}_{way}_vs_plain": plain[name] / us[way]
        for name, us in microseconds.items()
        for way in ("opacus_hooks", "opacus_ghost")
        if way in us
    }
    top = {"throughput_vs_plain": min(shipped)} | {
        f"{way}_vs_plain": deep["plain"] / deep[way] for way in ("opacus_hooks", "opacus_ghost") if way in deep
    }
    return {name: round(value, 4) for name, value in (top | ours | others).items()}
