"""From an experiment (what a researcher asks for) to a run plan (what hospitals are asked to accept). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from cameo_models.shapes import parameter_count
from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.facts import Catalogue, LabelDefinition, feature_names
from cameo_protocol.federation import default_threshold
from cameo_protocol.groups import Groups
from cameo_protocol.plan import (
    Cohort,
    DataTerms,
    Deadlines,
    Encoded,
    HistogramTask,
    PrivacyTerms,
    RiskTask,
    RunPlan,
    SegmentTask,
    Site,
    Training,
)
from cameo_protocol.privacy.calibration import Share, calibrate
from cameo_protocol.privacy.plan_check import check_plan
from cameo_protocol.privacy.statements import delta_for
from cameo_protocol.secagg.encoding import largest_scale

T = TypeVar("T", RiskTask, SegmentTask)
Kind = Literal["evaluation", "recalibration"]
MOST_GROUPINGS = 4  # a plan has at most 8 tasks: two models, a recalibration and the evaluation are the others


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """Base of every part of an experiment."""


class DataChoice(_Frozen):
    """Which data. recipe: measured hyper-parameters that the model groups refer to.

    groups: fact -> cuts of a number, or none for an enum: by what the risk model is judged apart.
    """

    catalogue: str
    label: str
    holdout: float = Field(gt=0, lt=0.9)
    population: int = Field(ge=1, le=10**9)
    recipe: dict[str, float]
    groups: dict[str, tuple[float, ...]]


class PrivacyChoice(_Frozen):
    """The total budget of the run; delta None means min(1e-5, population^-1.1)."""

    mode: Literal["distributed", "local"]
    epsilon: float = Field(gt=0, le=20)
    delta: float | None = Field(gt=0, lt=0.1)


class BlockChoice(_Frozen):
    """What every trained task chooses for its block of the vector."""

    rate: float = Field(gt=0)
    average_from: float = Field(ge=0, lt=1)
    share: float = Field(gt=0)
    clip: float = Field(gt=0)
    bound: float = Field(gt=0)


class RiskChoice(BlockChoice, frozen=True, extra="forbid"):
    """The risk model."""

    model: Literal["logistic", "mlp"]
    hidden: int = Field(ge=1, le=1024)


class SegmentChoice(BlockChoice, frozen=True, extra="forbid"):
    """The segment model."""

    clusters: int = Field(ge=2, le=64)
    temperature: float = Field(gt=0)


class EvaluationChoice(_Frozen):
    """The score histograms of held-out patients: all together, and by each fact of `data.groups` apart."""

    bins: int = Field(ge=4, le=200)
    share: float = Field(gt=0)
    group_bins: int = Field(ge=4, le=200)
    group_share: float = Field(gt=0)


class RecalibrationChoice(_Frozen):
    """The score histogram of training patients that corrects the risk model; share 0: no such round."""

    bins: int = Field(ge=4, le=200)
    share: float = Field(ge=0)


class CohortChoice(_Frozen):
    """Threshold and colluders; None takes the defaults of `default_threshold`."""

    threshold: int | None = Field(ge=2)
    colluders: int | None = Field(ge=0)


class Experiment(_Frozen):
    """A whole experiment as composed from conf/; every key is checked here, once."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    seed: int = Field(ge=0, le=2**31 - 1)
    data: DataChoice
    privacy: PrivacyChoice
    risk: RiskChoice
    segment: SegmentChoice
    evaluation: EvaluationChoice
    recalibration: RecalibrationChoice
    training: Training
    cohort: CohortChoice
    deadlines: Deadlines


def resolve_cohort(choice: CohortChoice, sites: Sequence[Site]) -> Cohort:
    """Threshold and colluders for these sites; an unsound choice is an `OperatorError`."""
    n = len(sites)
    if n < 3:
        raise OperatorError(
            "cohort-too-small",
            what=f"{n} hospitals have joined; a secure sum needs at least 3",
            do="cameo site invite NAME; when it has knocked: cameo site approve NAME",
        )
    t = choice.threshold if choice.threshold is not None else default_threshold(n)
    c = choice.colluders if choice.colluders is not None else max(0, min(1, 2 * t - n - 1))
    if not (c < t <= n and 2 * t > n + c):
        raise OperatorError(
            "cohort-unsound",
            what=f"n={n}, t={t}, c={c} do not hold 2t > n + c and c < t <= n",
            do="choose cohort.threshold and cohort.colluders so that they do, or leave both null",
        )
    return Cohort(sites=tuple(sites), threshold=t, colluders=c)


def resolve(experiment: Experiment, catalogue: Catalogue, label: LabelDefinition, sites: Sequence[Site]) -> RunPlan:
    """Calibrate the noise, choose the scales and freeze the plan. Pure and deterministic.

    Raises OperatorError when the experiment cannot be carried out (cohort, label, range of the sum), or when
    hospitals would refuse the plan (`check_plan`).
    """
    if label.catalogue != catalogue.id:
        raise OperatorError(
            "label-unfit",
            what=f"label {label.id} is defined on catalogue {label.catalogue}, not on {catalogue.id}",
            do="choose data.label to fit data.catalogue",
        )
    cohort = resolve_cohort(experiment.cohort, sites)
    if experiment.privacy.mode == "distributed" and cohort.threshold - cohort.colluders < 2:
        raise OperatorError(
            "cohort-noise",
            what="distributed noise needs t - c >= 2 honest hospitals in every sum",
            do="use privacy=local, or let more hospitals join",
        )
    privacy = PrivacyTerms(
        mode=experiment.privacy.mode,
        epsilon=experiment.privacy.epsilon,
        delta=experiment.privacy.delta or delta_for(experiment.data.population),
        population=experiment.data.population,
    )
    plan = RunPlan(
        name=experiment.name,
        seed=experiment.seed,
        data=DataTerms(catalogue=catalogue.id, catalogue_sha256=catalogue.sha256(), holdout=experiment.data.holdout),
        cohort=cohort,
        privacy=privacy,
        training=experiment.training,
        tasks=_tasks(experiment, catalogue, label, cohort, privacy),
        deadlines=experiment.deadlines,
    )
    _check_as_hospitals_do(plan)
    return plan


def _check_as_hospitals_do(plan: RunPlan) -> None:
    """Say now, before anybody is asked, what every hospital would refuse."""
    try:
        check_plan(plan)
    except Reject as error:
        do = "lower privacy.epsilon or privacy.delta, then run again"
        raise OperatorError(error.code, what=error.what, do=do) from None


def _tasks(
    experiment: Experiment,
    catalogue: Catalogue,
    label: LabelDefinition,
    cohort: Cohort,
    privacy: PrivacyTerms,
) -> tuple[RiskTask | SegmentTask | HistogramTask, ...]:
    """All tasks of the plan, with the noise that makes them spend the budget together, each its share."""
    risk, segment = experiment.risk, experiment.segment
    rounds = experiment.training.rounds + experiment.training.spare
    histograms = _histograms(experiment, catalogue)
    sigmas = calibrate(
        privacy.epsilon,
        privacy.delta,
        [
            Share(name="risk", rounds=rounds, weight=risk.share),
            Share(name="segment", rounds=rounds, weight=segment.share),
            *(Share(name=task.name, rounds=1, weight=task.share) for task in histograms),
        ],
    )
    return (
        _sized(_risk_task(risk, label, sigmas["risk"]), catalogue, cohort, privacy),
        _sized(_segment_task(segment, sigmas["segment"]), catalogue, cohort, privacy),
        *(_with_noise(task, sigmas[task.name]) for task in histograms),
    )


def _histograms(experiment: Experiment, catalogue: Catalogue) -> tuple[HistogramTask, ...]:
    """The counting tasks of the experiment, their noise still to be chosen."""
    evaluation, recalibration = experiment.evaluation, experiment.recalibration
    population = float(experiment.data.population)

    def task(kind: Kind, bins: int, share: float, by: Groups | None = None) -> HistogramTask:
        lanes = 2 * bins * (len(by) if by else 1)
        name = f"{kind}-{by.fact}" if by else kind
        block = Encoded(dim=lanes, clip=1.0, bound=population, scale=1, sigma=1.0)
        return HistogramTask(kind=kind, name=name, bins=bins, share=share, by=by, encoded=block)

    if len(experiment.data.groups) > MOST_GROUPINGS:
        raise _unfit("", f"{len(experiment.data.groups)} facts; a plan has room for {MOST_GROUPINGS}")
    groups = [_groups(fact, cuts, catalogue) for fact, cuts in experiment.data.groups.items()]
    return (
        *([task("recalibration", recalibration.bins, recalibration.share)] if recalibration.share else []),
        task("evaluation", evaluation.bins, evaluation.share),
        *(task("evaluation", evaluation.group_bins, evaluation.group_share, by) for by in groups),
    )


def _groups(name: str, cuts: tuple[float, ...], catalogue: Catalogue) -> Groups:
    """The groups by one fact of the catalogue; groups that it does not allow are an `OperatorError`."""
    fact = next((fact for fact in catalogue.facts if fact.name == name), None)
    if fact is None:
        raise _unfit(f".{name}", f"the catalogue {catalogue.id} has no such fact")
    try:
        groups = Groups(fact=name, values=() if cuts else fact.values, cuts=cuts)
    except ValidationError:
        raise _unfit(f".{name}", "a number needs rising cuts, at most 15; an enum none") from None
    if misfit := groups.fits(catalogue):
        raise _unfit(f".{name}", misfit)
    return groups


def _unfit(where: str, what: str) -> OperatorError:
    return OperatorError(
        "groups-unfit",
        what=f"data.groups{where}: {what}",
        do="name facts such as sex and age: [50, 65] under data.groups, or take the line out",
    )


def _with_noise(task: HistogramTask, sigma: float) -> HistogramTask:
    return task.model_copy(update={"encoded": task.encoded.model_copy(update={"sigma": sigma})})


def _risk_task(choice: RiskChoice, label: LabelDefinition, sigma: float) -> RiskTask:
    return RiskTask(
        label=label.id,
        label_sha256=label.sha256(),
        model=choice.model,
        hidden=choice.hidden,
        rate=choice.rate,
        average_from=choice.average_from,
        share=choice.share,
        encoded=_unsized(choice, sigma),
    )


def _segment_task(choice: SegmentChoice, sigma: float) -> SegmentTask:
    return SegmentTask(
        clusters=choice.clusters,
        temperature=choice.temperature,
        rate=choice.rate,
        average_from=choice.average_from,
        share=choice.share,
        encoded=_unsized(choice, sigma),
    )


def _unsized(choice: BlockChoice, sigma: float) -> Encoded:
    """A block of one lane: a model's size follows from its task, so the task is made first and sized after."""
    return Encoded(dim=1, clip=choice.clip, bound=choice.bound, scale=1, sigma=sigma)


def _sized(task: T, catalogue: Catalogue, cohort: Cohort, privacy: PrivacyTerms) -> T:
    """The task with as many lanes as its model has parameters, and the largest scale whose sum cannot overflow."""
    block = task.encoded
    dim = parameter_count(task, len(feature_names(catalogue)))
    scale = largest_scale(
        dim=dim,
        clip=block.clip,
        bound=block.bound,
        sigma=block.sigma,
        n=len(cohort.sites),
        t=cohort.threshold,
        c=cohort.colluders,
        local=privacy.mode == "local",
    )
    return task.model_copy(update={"encoded": block.model_copy(update={"dim": dim, "scale": scale})})
