"""What a run promises a patient, against whom: three statements that are always shown together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cameo_protocol.layout import ROUND_KINDS
from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.noise import Mode, bare_sigma, honest, slack
from cameo_protocol.privacy.releases import Release, plan_releases

Name = Literal["coord", "model", "bare"]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """(epsilon, delta) per patient of one hospital, add or remove one patient, over everything the plan may release.

    against: who learns what. sentence: the whole statement for people.
    """

    name: Name
    epsilon: float
    delta: float
    against: str

    @property
    def sentence(self) -> str:
        """One sentence that carries epsilon, delta, the unit and the adversary."""
        return f"{self.against}: epsilon {rounded_up(self.epsilon)} at delta {self.delta:.3g}."


@dataclass(frozen=True, kw_only=True)
class Statements:
    """coord: the coordinator with c colluding hospitals. model: an outsider with the model. bare: if all masks fell.

    slack: the part of delta that integer noise adds, already in every statement's delta.
    """

    mode: Mode
    population: int
    slack: float
    coord: Statement
    model: Statement
    bare: Statement

    @property
    def scope(self) -> str:
        """What all three are about, in a sentence."""
        return (
            "Unit: one patient at one hospital, all records together; a patient of two hospitals counts twice. "
            "The statements compare the run with the same run without that patient, and cover every round of the "
            "plan, spare ones included. What was tried before this run, and tuning, are not in these numbers."
        )

    def sentences(self) -> tuple[str, ...]:
        """The three statements and their scope, for people."""
        return self.coord.sentence, self.model.sentence, self.bare.sentence, self.scope

    def as_dict(self) -> dict[str, object]:
        """JSON-able: mode, population, slack, scope and, by name, epsilon, delta and sentence."""
        each: dict[str, object] = {
            s.name: {"epsilon": s.epsilon, "delta": s.delta, "sentence": s.sentence}
            for s in (self.coord, self.model, self.bare)
        }
        return {
            "mode": self.mode, "population": self.population, "unit": "patient", "slack": self.slack,
            "scope": self.scope, **each,
        }  # fmt: skip


def delta_for(population: int) -> float:
    """The delta a federation with that declared public number of patients must use at most: min(1e-5, N^-1.1)."""
    return min(1e-5, math.pow(population, -1.1))


def statements(plan: RunPlan) -> Statements:
    """The three statements of a plan.

    distributed: sigma; sigma sqrt(t / (t - c)); about sigma / sqrt(t - c) (`noise.bare_sigma`).
    local: sigma; sigma sqrt(t); sigma, as each hospital's noise does not rest on masks.
    """
    mode, t, c = plan.privacy.mode, plan.cohort.threshold, plan.cohort.colluders
    extra = slack(plan)
    against: dict[Name, str] = {
        "coord": _coordinator(mode, c),
        "model": _outsider(t),
        "bare": "If every mask fell and one hospital's own noisy vectors lay open",
    }
    delta, spent = plan.privacy.delta + extra, _spent(plan, plan.training.rounds + plan.training.spare)
    found = {
        name: Statement(name=name, epsilon=spent[name], delta=delta, against=text) for name, text in against.items()
    }
    return Statements(
        mode=mode,
        population=plan.privacy.population,
        slack=extra,
        coord=found["coord"],
        model=found["model"],
        bare=found["bare"],
    )


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Epsilon of a run that ends after so many training rounds, at its plan's noise; histograms included.

    rounds: spare ones count as well, as a void round is charged. coord, model, bare: as in `Statements`; inf = none.
    """

    rounds: int
    coord: float
    model: float
    bare: float

    def as_dict(self) -> dict[str, int | float | None]:
        """JSON-able; None where no bound is known."""
        names = ("coord", "model", "bare")
        each = {name: float(getattr(self, name)) for name in names}
        return {"rounds": self.rounds, **{name: e if math.isfinite(e) else None for name, e in each.items()}}


def outlook(plan: RunPlan) -> tuple[Outlook, ...]:
    """Epsilon against rounds: after a quarter, a half, three quarters and all of the rounds, and with all spare ones.

    The last row is what `statements` says. Fewer rounds cost less only if the run ends there: the noise stays.
    """
    rounds, spare = plan.training.rounds, plan.training.spare
    marks = sorted({-(-rounds * part // 4) for part in (1, 2, 3, 4)} | {rounds + spare})
    return tuple(outlook_at(plan, mark) for mark in marks)


def outlook_at(plan: RunPlan, rounds: int) -> Outlook:
    """Epsilon of a run that ends after so many training rounds."""
    return Outlook(rounds=rounds, **_spent(plan, rounds))


def _spent(plan: RunPlan, training: int) -> dict[Name, float]:
    """Epsilon against each adversary when that many training rounds and every histogram have been released."""
    mode, t, c = plan.privacy.mode, plan.cohort.threshold, plan.cohort.colluders
    releases = plan_releases(plan, training=training)
    gain = math.sqrt(t / honest(mode, t, c))
    bare = {block.name: bare_sigma(block, mode, t, c) for kind in ROUND_KINDS for block in plan.layout(kind).blocks}
    sigmas: dict[Name, dict[str, float]] = {
        "coord": {task: release.sigma for task, release in releases},
        "model": {task: release.sigma * gain for task, release in releases},
        "bare": bare,
    }
    return {
        name: epsilon((Release(sigma=each[task], q=r.q, count=r.count) for task, r in releases), plan.privacy.delta)
        for name, each in sigmas.items()
    }


def _coordinator(mode: Mode, colluders: int) -> str:
    if mode == "local":
        return "Against the coordinator and all other hospitals together"
    match colluders:
        case 0:
            return "Against the coordinator alone"
        case 1:
            return "Against the coordinator together with 1 colluding hospital"
    return f"Against the coordinator together with {colluders} colluding hospitals"


def _outsider(threshold: int) -> str:
    return f"Against an outsider who sees the opened sums of at least {threshold} hospitals or the models made of them"


def rounded_up(value: float) -> str:
    """Two decimals, rounded up: a claim is never made to look smaller than it is."""
    return f"{math.ceil(value * 100 - 1e-6) / 100:.2f}" if math.isfinite(value) else "unbounded"
