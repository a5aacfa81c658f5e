"""Membership inference on the released model, with shadow models, where a model without privacy remembers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.subject import Flags, Floats, Subject, patients_of
from cameo_models.shapes import parameter_count
from cameo_protocol.plan import Encoded, RiskTask, RunPlan, Training
from cameo_protocol.privacy.calibration import Share, calibrate
from cameo_protocol.secagg.encoding import largest_scale

MODELS = {"quick": 12, "full": 64}
ROUNDS = {"quick": 6, "full": 30}
CANDIDATES = {"quick": 160, "full": 200}
FEATURES = 200  # more than the patients of one model, so that every label can be learnt by heart
EPSILON = 2.0
MOST_AUC, MOST_TPR, FPR = 0.55, 0.02, 0.01
CONTROL_AUC = 0.70
# The quick audit has fewer scores: its limits are those of the full one plus so many standard errors.
SLACK = {"quick": 2.5, "full": 0.0}


def attack(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Tell members from others by the released model; hardly better than by chance at epsilon <= 2.

    The attacker holds the released parameters, knows all candidates' records, and has shadow models trained by the
    very same code on halves of the candidates; each model is attacked with all others as its shadows. The plan is at
    its own epsilon or 2, whichever is less, with its own shares of it, and only t hospitals answer, the fewest whose
    sum can be opened. Labels are coins and features outnumber patients, so that memory is all there is to learn.
    What the coordinator sees on the way, and colluders, are the canary audit's. Control: no clip, no noise.
    Source: Carlini et al., IEEE S&P 2022, "Membership Inference Attacks From First Principles", section V (LiRA,
    online, with one variance for all candidates as it advises for few shadow models).
    """
    started = time.monotonic()
    victim = memorising(subject, min(EPSILON, subject.plan.privacy.epsilon), ROUNDS[effort])
    trial = Trial.draw(random, MODELS[effort], CANDIDATES[effort])
    guarded, bare = _leak(victim, trial), _leak(victim.bare(), trial)
    slack = SLACK[effort]
    most_auc = MOST_AUC + slack * trial.auc_error
    most_tpr = MOST_TPR + slack * trial.tpr_error
    return Finding(
        name="membership-inference",
        passed=guarded.auc <= most_auc and guarded.tpr <= most_tpr and bare.auc >= CONTROL_AUC,
        figures={"models": MODELS[effort], "scores": trial.members.size, "auc": guarded.auc, "tpr": guarded.tpr},
        limit=f"AUC <= {most_auc:.3f}, TPR at 1 % FPR <= {most_tpr:.3f}; control AUC >= {CONTROL_AUC}",
        control={"auc": bare.auc, "tpr": bare.tpr},
        control_failed=bare.auc >= CONTROL_AUC,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class Leak:
    """How well members are told from others. tpr: at a false positive rate of 1 %."""

    auc: float
    tpr: float


@dataclass(frozen=True, eq=False)
class Trial:
    """Candidates and which of them each model learns. rows (N, F), outcome (N,), members (models, N)."""

    rows: npt.NDArray[np.float32]
    outcome: Floats
    members: Flags

    @classmethod
    def draw(cls, random: np.random.Generator, models: int, candidates: int) -> Trial:
        """Random records and labels; each candidate is in one model of every two, so in half of all."""
        rows = random.uniform(-1.0, 1.0, (candidates, FEATURES)).astype(np.float32)
        halves = random.random((models // 2, candidates)) < 0.5
        members = np.stack([halves, ~halves], axis=1).reshape(-1, candidates)
        return cls(rows, random.integers(0, 2, candidates).astype(np.float64), members)

    @property
    def auc_error(self) -> float:
        """Standard error of an AUC of one half over all scores."""
        return float(np.sqrt(1 / 12 * (1 / self.members.sum() + 1 / (~self.members).sum())))

    @property
    def tpr_error(self) -> float:
        """Standard error of a TPR of 1 % at an FPR of 1 %: of both rates."""
        return float(np.sqrt(FPR * (1 / self.members.sum() + 1 / (~self.members).sum())))


def memorising(subject: Subject, epsilon: float, rounds: int) -> Subject:
    """The subject with one logistic model on `FEATURES` features, at its share of epsilon; cohort as it is."""
    plan = subject.plan
    old = next((task for task in plan.trained() if isinstance(task, RiskTask)), plan.trained()[0])
    shares = [
        Share(name=other.name, rounds=rounds if other in plan.trained() else 1, weight=other.share)
        for other in plan.tasks
    ]
    sigma = calibrate(epsilon, plan.privacy.delta, shares)[old.name]
    task = RiskTask(label="outcome", label_sha256="0" * 64, rate=old.rate, share=1.0, encoded=old.encoded)
    encoded = _sized(plan, old.encoded, parameter_count(task, FEATURES), sigma)
    changed = plan.model_copy(
        update={
            "tasks": (task.model_copy(update={"encoded": encoded}),),
            "training": Training(rounds=rounds, spare=0),
            "privacy": plan.privacy.model_copy(update={"epsilon": epsilon}),
        }
    )
    return replace(subject, plan=changed, features=FEATURES)


def _sized(plan: RunPlan, old: Encoded, dim: int, sigma: float) -> Encoded:
    cohort = plan.cohort
    scale = largest_scale(
        dim=dim,
        clip=old.clip,
        bound=old.bound,
        sigma=sigma,
        n=len(cohort.sites),
        t=cohort.threshold,
        c=cohort.colluders,
        local=plan.privacy.mode == "local",
    )
    return old.model_copy(update={"dim": dim, "scale": scale, "sigma": sigma})


def _leak(victim: Subject, trial: Trial) -> Leak:
    """Train all models, and attack each with the others as shadows."""
    models = [victim.train(_spread(victim, trial, chosen)) for chosen in trial.members]
    scaled = np.concatenate([trial.rows, np.ones((len(trial.rows), 1))], axis=1)
    sign = np.where(trial.outcome == 1, 1.0, -1.0)
    # The logit of the true label's probability: LiRA's scaled confidence.
    confidence = np.stack([sign * (scaled @ parameters) for parameters in models])
    scores = np.stack([_scores(confidence, trial.members, target) for target in range(len(models))])
    return leak_of(scores, trial.members)


def _spread(victim: Subject, trial: Trial, chosen: Flags) -> list[Patients]:
    count = victim.plan.cohort.threshold
    rows, outcome = trial.rows[chosen], trial.outcome[chosen]
    return [patients_of(rows[i::count], outcome[i::count], victim.plan) for i in range(count)]


def _scores(confidence: Floats, members: Flags, target: int) -> Floats:
    """Log likelihood ratio of membership for each candidate in one model, (N,), from all other models."""
    others = np.arange(len(confidence)) != target
    seen, inside = confidence[others], members[others]
    score = np.zeros(confidence.shape[1])
    for side, weight in ((inside, 1.0), (~inside, -1.0)):
        mean = np.where(side, seen, 0.0).sum(axis=0) / np.maximum(side.sum(axis=0), 1)
        spread = ((seen - mean) ** 2)[side].sum() / max(int(side.sum()) - len(mean), 1)
        variance = max(float(spread), np.finfo(np.float64).tiny)
        score -= weight * ((confidence[target] - mean) ** 2 / variance + np.log(variance)) / 2
    return score


def leak_of(scores: Floats, members: Flags) -> Leak:
    """AUC, and TPR at the threshold that 1 % of the others pass; both arrays of one shape."""
    from scipy.stats import rankdata

    inside, outside = scores[members], scores[~members]
    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)].sum()
    auc = (ranks - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside))
    threshold = np.quantile(outside, 1 - FPR, method="higher")
    return Leak(float(auc), float((inside > threshold).mean()))
