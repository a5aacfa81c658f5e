"""What a hospital must refuse whoever asks: another first model, another architecture, a plan without noise."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from cameo_client.node.contribution import Patients
from cameo_lab.audit.attacks.wire import Refused, Wire, open_wire
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import Floats, Subject
from cameo_protocol.errors import CameoError
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RiskTask, RunPlan
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import plan_releases
from cameo_protocol.stages import UPLOAD

TRIES = {"quick": 25, "full": 100}
CONTROLS = {"quick": 2, "full": 10}


def crafted_first_model(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Open a run with a model, or a plan, whose network is not the one that the plan determines; never answered.

    The attacker is a malicious coordinator that wants its crafted layer (see `imprint`) in the very first round, when
    gradients are largest. A refusal must also leave the ledger as it was. Control: the same crafted models from step 1
    on, where no hospital can know the model and noise alone protects; they are taken.
    """
    started = time.monotonic()
    tries, controls = TRIES[effort], CONTROLS[effort]
    with open_wire(subject, _nobody(subject)) as wire:
        index = wire.everybody[0]
        plans = islice(_other_architectures(wire.plan, random), tries)
        declined = sum(not _accepted(wire, index, plan) for plan in plans)
        wire.begin()
        spent = wire.ledgers[index].spent()
        first = wire.call(step=0).encode()
        models = islice(_other_models(subject.initial(), random), tries)
        refused = sum(not _answered(wire, index, Packet(UPLOAD, first, model)) for model in models)
        charged = wire.ledgers[index].spent() - spent
        taken = 0
        for _ in range(controls):
            moved = random.standard_normal(subject.initial().size).astype("<f4").tobytes()
            taken += _answered(wire, index, Packet(UPLOAD, wire.call(step=1).encode(), moved))
    return Finding(
        name="crafted-first-model",
        passed=refused == tries and declined == tries and charged == 0 and taken == controls,
        figures={"tries": tries, "models_refused": refused, "plans_refused": declined, "charged": charged},
        limit=f"{tries} of {tries} models and {tries} of {tries} plans refused, and nothing charged",
        control={"tries": controls, "taken": taken},
        control_failed=taken == controls,
        seconds=time.monotonic() - started,
    )


def zero_noise(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Ask hospitals for sums without noise, or with less than the plan's claim needs; refused every time.

    The attacker is the coordinator, whose signature on the plan is good. It writes sigma = 0, a negative or tiny
    one, no number at all, or a sigma that its epsilon does not pay for; and the sampler itself is asked for sd 0.
    No floor of a policy stands in the way here. Control: the plan with its own sigma, which is accepted.
    """
    started = time.monotonic()
    tries, controls = TRIES[effort], CONTROLS[effort]
    with open_wire(subject, _nobody(subject)) as wire:
        index = wire.everybody[-1]
        plans = islice(_quiet_plans(wire.plan, random), tries)
        refused = sum(not _accepted(wire, index, plan) for plan in plans)
        accepted = sum(_accepted(wire, index, wire.plan.canonical()) for _ in range(controls))
    silent = 0
    for sd in (0.0, -1.0, float("nan"), float("inf")):
        try:
            subject.noise(sd, 4)
            silent += 1
        except CameoError:
            continue
    return Finding(
        name="zero-noise",
        passed=refused == tries and accepted == controls and silent == 0,
        figures={"tries": tries, "refused": refused, "sampler_answers": silent},
        limit=f"{tries} of {tries} plans refused; no sample at sd 0",
        control={"tries": controls, "accepted": accepted},
        control_failed=accepted == controls,
        seconds=time.monotonic() - started,
    )


def _nobody(subject: Subject) -> list[Patients]:
    return [nobody(subject.plan, subject.features) for _ in subject.plan.cohort.sites]


def _accepted(wire: Wire, index: int, plan: bytes) -> bool:
    try:
        return wire.invite(index, plan) == "accept"
    except Refused:
        return False


def _answered(wire: Wire, index: int, packet: Packet) -> bool:
    try:
        return bool(wire.ask(index, packet).vector)
    except Refused:
        return False


def _other_models(initial: Floats, random: np.random.Generator) -> Iterator[bytes]:
    """First models that differ from the plan's, by anything from one bit to everything; also malformed ones."""
    size = initial.size

    def one_bit() -> Floats:
        model = initial.astype("<f4")
        place = random.integers(size)
        model[place] = np.nextafter(model[place], np.float32(np.inf))
        return model.astype(np.float64)

    def one(value: float) -> Floats:
        model = initial.copy()
        model[random.integers(size)] = value
        return model

    makes: tuple[Callable[[], Floats], ...] = (
        one_bit,
        lambda: initial + random.standard_normal(size),
        lambda: initial + 1e30 * random.choice([-1.0, 1.0], size),
        lambda: one(float(random.choice([np.nan, np.inf, -np.inf]))),
        lambda: initial[: random.integers(size)],
        lambda: np.append(initial, random.standard_normal(random.integers(1, 9))),
    )
    while True:
        for make in makes:
            yield make().astype("<f4").tobytes()


def _other_architectures(plan: RunPlan, random: np.random.Generator) -> Iterator[bytes]:
    """Plans whose blocks do not fit the network that the task names here: more lanes, fewer, or another network."""
    while True:
        place = int(random.integers(len(plan.trained())))
        old = plan.trained()[place]
        changes: list[dict[str, Any]] = [
            {"encoded": old.encoded.model_copy(update={"dim": old.encoded.dim + int(random.integers(1, 64))})},
            {"encoded": old.encoded.model_copy(update={"dim": max(1, old.encoded.dim - int(random.integers(1, 9)))})},
        ]
        if isinstance(old, RiskTask):
            changes.append({"model": "mlp", "hidden": 900 + int(random.integers(100))})
        for change in changes:
            other = old.model_copy(update=change)
            tasks = tuple(other if task.name == old.name else task for task in plan.tasks)
            yield plan.model_copy(update={"tasks": tasks}).canonical()


def _quiet_plans(plan: RunPlan, random: np.random.Generator) -> Iterator[bytes]:
    """Plans whose noise is missing or does not cover their claim, as canonical bytes where they can be."""
    spent = _spent(plan)
    while True:
        place = int(random.integers(len(plan.tasks)))
        body: dict[str, Any] = plan.model_dump(mode="json")
        encoded = body["tasks"][place]["encoded"]
        honest = encoded["sigma"]
        for sigma in (0, 0.0, -honest, 1e-300, 1e-12, "0", None, _too_little(plan, place, random)):
            encoded["sigma"] = sigma
            yield _canonical(body)
        encoded["sigma"] = 1e-9
        yield _canonical({**body, "privacy": {**body["privacy"], "epsilon": 20.0}})
        encoded["sigma"] = honest
        claim = spent * float(random.uniform(0.1, 0.95))
        yield _canonical({**body, "privacy": {**body["privacy"], "epsilon": claim}})
        del encoded["sigma"]
        yield _canonical(body)


def _too_little(plan: RunPlan, place: int, random: np.random.Generator) -> float:
    """A sigma for one task with which the plan costs more than it claims."""
    task = plan.tasks[place]
    sigma = task.encoded.sigma
    while True:
        sigma *= float(random.uniform(0.2, 0.8))
        quieter = task.model_copy(update={"encoded": task.encoded.model_copy(update={"sigma": sigma})})
        tasks = (*plan.tasks[:place], quieter, *plan.tasks[place + 1 :])
        if _spent(plan.model_copy(update={"tasks": tasks})) > 1.01 * plan.privacy.epsilon:
            return sigma


def _spent(plan: RunPlan) -> float:
    return epsilon((release for _, release in plan_releases(plan)), plan.privacy.delta)


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
