"""A run as a `ReportRecord`: what the coordinator knows and, where a demo's lab adds it, what only that lab can see."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from cameo_lab.report.record import (
    Account,
    Audit,
    AuditCheck,
    CalibrationPoint,
    Estimate,
    GroupRow,
    GroupTable,
    Hospital,
    Interval,
    Quality,
    ReasonCount,
    Recalibration,
    ReportRecord,
    RoundRow,
    Segment,
    Segments,
    Spent,
    StageTime,
    Statement,
    TagCount,
    TaskRow,
    Timing,
    Trait,
    Uploads,
)
from cameo_protocol.evaluation import size_band
from cameo_protocol.facts import Catalogue, Fact
from cameo_protocol.plan import HistogramTask, RiskTask, RunPlan, SegmentTask
from cameo_protocol.privacy.statements import statements
from cameo_server.run.findings import costs

if TYPE_CHECKING:
    import numpy.typing as npt

    from cameo_lab.demo.figures import ClearFigures

Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of a run beside its plan, its events and its card.

    data: one sentence. seconds: setup, round_median, total. prototypes: the published segment model, flat.
    Only a lab that reads every hospital's folder has the rest: clear figures, accounts and tag tallies by hospital.
    """

    title: str
    data: str
    synthetic: bool
    fictional_consents: bool
    seconds: Mapping[str, float]
    traffic: Mapping[str, int]
    prototypes: npt.NDArray[np.float64] | None
    clear: ClearFigures | None = None
    accounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tags: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def report_record(plan: RunPlan, run: str, events: Events, card: Mapping[str, Any], told: Told) -> ReportRecord:
    """Everything a report of a published run shows."""
    return ReportRecord(
        name=told.title,
        plan_id=plan.plan_id(),
        run_id=run,
        created=datetime.fromtimestamp(events[0]["time"], UTC),
        data=told.data,
        synthetic=told.synthetic,
        fictional_consents=told.fictional_consents,
        hospitals=tuple(_hospital(site.name, events, told.accounts.get(site.name)) for site in plan.cohort.sites),
        threshold=plan.cohort.threshold,
        colluders=plan.cohort.colluders,
        mode=plan.privacy.mode,
        tasks=_tasks(plan),
        statements=_statements(plan),
        rounds=_rounds(events, told.clear),
        uploads=_uploads(told.traffic),
        timing=_timing(events, told.seconds),
        quality=_quality(plan, events, told.clear),
        segments=_segments(plan, card, told),
        audit=_audit(card["audit"]),
        tags=tuple(_tag(name, tally) for name, rows in told.tags.items() for tally in rows),
        versions=_versions(card),
    )


def _versions(card: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of the software that made the models: as the card says, so that the same run gives the same report."""
    return tuple((name, str(found)) for name, found in sorted(card["versions"].items()))


def _uploads(counted: Mapping[str, int]) -> Uploads:
    return Uploads(masked=counted["masked"], clear=counted["clear"], total_bytes=counted["bytes"])


def _hospital(name: str, events: Events, account: Mapping[str, Any] | None) -> Hospital:
    declined = any(e["event"] == "admission" and e["site"] == name and e["answer"] != "accept" for e in events)
    money = _account(account) if account is not None else None
    if declined:
        return Hospital(name=name, status="declined", account=money)
    rounds = [e for e in events if e["event"] == "round"]
    if rounds and name in rounds[-1]["survivors"]:
        return Hospital(name=name, status="took part", account=money)
    first = next((e["round"] for e in rounds if name not in e["survivors"]), 0)
    return Hospital(name=name, status="lost", lost_at_round=first, account=money)


def _account(known: Mapping[str, Any]) -> Account:
    curve = (Spent(epsilon=point["epsilon"], purpose=point.get("purpose", "")) for point in known["report"]["curve"])
    return Account(spent=known["spent"], planned=known["held"], cap=known["cap"], curve=tuple(curve))


def _tasks(plan: RunPlan) -> tuple[TaskRow, ...]:
    return tuple(
        TaskRow(
            name=task.name,
            kind=task.kind,
            clip=None if isinstance(task, HistogramTask) else task.encoded.clip,
            rate=1.0,
            rounds=cost["count"],
            sigma=cost["sigma"],
            share=cost["share"],
        )
        for task, cost in zip(plan.tasks, costs(plan), strict=True)
    )


def _statements(plan: RunPlan) -> tuple[Statement, ...]:
    said = statements(plan)
    return (
        Statement(toward="coordinator", epsilon=said.coord.epsilon, delta=said.coord.delta),
        Statement(toward="model", epsilon=said.model.epsilon, delta=said.model.delta),
        Statement(toward="bare", epsilon=said.bare.epsilon, delta=said.bare.delta),
    )


def _rounds(events: Events, clear: ClearFigures | None) -> tuple[RoundRow, ...]:
    rows = []
    for event in events:
        if event["event"] not in ("round", "void"):
            continue
        void = event["event"] == "void"
        train = event["kind"] == "train" and not void
        rows.append(
            RoundRow(
                number=event["round"],
                kind=event["kind"],
                survivors=0 if void else len(event["survivors"]),
                void=void,
                norm=float(np.hypot(*event["norms"].values())) if train and len(event["norms"]) == 2 else None,
                auc_clear=clear.auc_by_step.get(event["step"] + 1) if clear and train else None,
            )
        )
    return tuple(rows)


def _timing(events: Events, seconds: Mapping[str, float]) -> Timing:
    opened = [event for event in events if event["event"] == "round"]
    stages = {stage: [e["seconds"][stage] for e in opened] for stage in ("upload", "ack", "reveal")}
    return Timing(
        setup=seconds["setup"],
        round_median=seconds["round_median"],
        total=seconds["total"],
        stages=tuple(StageTime(stage=name, median=statistics.median(found)) for name, found in stages.items() if found),
    )


def _quality(plan: RunPlan, events: Events, clear: ClearFigures | None) -> Quality | None:
    from cameo_server.definitions import label_in_words

    risk = next((task for task in plan.tasks if isinstance(task, RiskTask)), None)
    evaluated: Mapping[str, Any] = next((e["figures"] for e in reversed(events) if e["event"] == "evaluated"), {})
    if risk is None or risk.name not in evaluated:
        return None
    figures: Mapping[str, Any] = evaluated[risk.name]
    points = (
        CalibrationPoint(
            predicted=(p["low"] + p["high"]) / 2,
            observed=p["observed"]["value"],
            low=p["observed"]["low"],
            high=p["observed"]["high"],
        )
        for p in figures["curve"]
    )
    return Quality(
        label=label_in_words(risk.label),
        auc_dp=_estimate(figures["auc"]),
        auc_clear=clear.auc if clear else None,
        auc_pooled=clear.auc_pooled if clear else None,
        calibration=tuple(points),
        brier=_estimate(figures["brier"]),
        prevalence=_estimate(figures["prevalence"]),
        gap=_interval(figures["gap"]),
        groups=tuple(_groups(table) for table in figures["groups"]),
        recalibration=_recalibration(risk.name, events, clear),
    )


def _estimate(found: Mapping[str, float] | None) -> Estimate | None:
    return Estimate(**found) if found else None


def _interval(found: Mapping[str, float] | None) -> Interval | None:
    return Interval(**found) if found else None


def _groups(table: Mapping[str, Any]) -> GroupTable:
    rows = tuple(
        GroupRow(
            group=row["group"],
            size=row["size"],
            hidden=row["hidden"],
            prevalence=_estimate(row["prevalence"]),
            gap=_interval(row["gap"]),
            brier=_estimate(row["brier"]),
            auc=_estimate(row["auc"]),
        )
        for row in table["rows"]
    )
    return GroupTable(fact=table["fact"], release=table["release"], rows=rows)


def _recalibration(risk: str, events: Events, clear: ClearFigures | None) -> Recalibration | None:
    found = next((e["corrections"].get(risk) for e in reversed(events) if e["event"] == "recalibrated"), None)
    if found is None:
        return None
    return Recalibration(
        applied=found["applied"],
        slope=Interval(**found["slope"]),
        intercept=Interval(**found["intercept"]),
        release=found["release"],
        note=found["note"],
        error_before=clear.error_raw if clear else None,
        error_after=clear.error if clear else None,
    )


def _audit(found: Mapping[str, Any] | None) -> Audit | None:
    if found is None:
        return None
    checks = tuple(
        AuditCheck(
            name=one["name"],
            limit=one["limit"],
            passed=one["passed"],
            control=bool(one["control"]) and one["control_failed"],
        )
        for one in found["findings"]
    )
    return Audit(effort=found["effort"], lower_bound=found["lower_bound"], claim=found["claim"], checks=checks)


def _segments(plan: RunPlan, card: Mapping[str, Any], told: Told) -> Segments | None:
    from cameo_models.numbering import read_numberings, said
    from cameo_models.prototypes import describe_prototypes
    from cameo_server.definitions import read_catalogue

    task = next((task for task in plan.tasks if isinstance(task, SegmentTask)), None)
    if task is None or told.prototypes is None:
        return None
    catalogue, clear = read_catalogue(plan.data.catalogue), told.clear
    bands = [size_band(size) for size in clear.sizes] if clear else [None] * task.clusters
    entry = read_numberings(card, plan).get(task.name)
    segments = tuple(
        Segment(
            name=f"Segment {number}",
            note=said(entry, number) if entry else None,
            size_band=band,
            traits=_traits(catalogue, values),
        )
        for number, (band, values) in enumerate(
            zip(bands, describe_prototypes(catalogue, task, told.prototypes), strict=True), start=1
        )
    )
    return Segments(segments=segments, ari_reference=clear.ari if clear else None)


def _traits(catalogue: Catalogue, values: Mapping[str, float | str | None]) -> tuple[Trait, ...]:
    """The numbers of a prototype; enums and mostly missing facts are left to the model card."""
    traits = []
    for name, value in values.items():
        fact = catalogue.fact(name)
        if isinstance(value, float | int):
            low, high = fact.scale or (0.0, 1.0)
            traits.append(Trait(name=fact.title, value=float(value), unit=_unit(fact), low=low, high=high))
    return tuple(traits[:40])


def _unit(fact: Fact) -> str:
    return "share" if fact.type == "bool" else fact.unit


def _tag(hospital: str, tally: Mapping[str, Any]) -> TagCount:
    return TagCount(
        hospital=hospital,
        tag=tally["tag"],
        purpose=tally["purpose"],
        stored=tally["stored"],
        blocked=tuple(ReasonCount(reason=code, count=count) for code, count in tally["blocked"].items()),
        waiting=tuple(ReasonCount(reason=code, count=count) for code, count in tally["waiting"].items()),
    )
