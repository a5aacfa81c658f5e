"""A demo's run as a `ReportRecord`: what the coordinator knows, and, marked so, what only this lab can see."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cameo_lab.demo.figures import ClearFigures
from cameo_lab.demo.setting import Setting
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

Events = Sequence[Mapping[str, Any]]
SHOWN_VERSIONS = ("cameo-fl", "flwr", "torch", "opacus", "cryptography", "opendp", "dp-accounting")


def report_record(
    plan: RunPlan,
    run: str,
    events: Events,
    setting: Setting,
    clear: ClearFigures,
    accounts: Mapping[str, Mapping[str, Any]],
    tags: Mapping[str, Sequence[Mapping[str, Any]]],
    summary: Mapping[str, Any],
    card: Mapping[str, Any],
) -> ReportRecord:
    """Everything a report shows, from the plan, the events, the model card and the lab's figures."""
    from importlib.metadata import version

    return ReportRecord(
        name=setting.title,
        plan_id=plan.plan_id(),
        run_id=run,
        created=datetime.fromtimestamp(events[0]["time"], UTC),
        data=setting.note,
        synthetic=setting.synthetic,
        fictional_consents=True,
        hospitals=tuple(_hospital(site.name, events, accounts[site.name]) for site in plan.cohort.sites),
        threshold=plan.cohort.threshold,
        colluders=plan.cohort.colluders,
        mode=plan.privacy.mode,
        tasks=_tasks(plan),
        statements=_statements(plan),
        rounds=_rounds(events, clear),
        uploads=_uploads(summary["uploads"]),
        timing=_timing(events, summary),
        quality=_quality(plan, events, clear),
        segments=_segments(plan, clear),
        audit=_audit(card["audit"]),
        tags=tuple(_tag(name, tally) for name, rows in tags.items() for tally in rows),
        versions=tuple((name, version(name)) for name in SHOWN_VERSIONS),
    )


def _uploads(counted: Mapping[str, int]) -> Uploads:
    return Uploads(masked=counted["masked"], clear=counted["clear"], total_bytes=counted["bytes"])


def _hospital(name: str, events: Events, account: Mapping[str, Any]) -> Hospital:
    declined = any(e["event"] == "admission" and e["site"] == name and e["answer"] != "accept" for e in events)
    curve = tuple(
        Spent(epsilon=point["epsilon"], purpose=point.get("purpose", "")) for point in account["report"]["curve"]
    )
    money = Account(spent=account["spent"], planned=account["held"], cap=account["cap"], curve=curve)
    if declined:
        return Hospital(name=name, status="declined", account=money)
    rounds = [e for e in events if e["event"] == "round"]
    if rounds and name in rounds[-1]["survivors"]:
        return Hospital(name=name, status="took part", account=money)
    first = next((e["round"] for e in rounds if name not in e["survivors"]), 0)
    return Hospital(name=name, status="lost", lost_at_round=first, account=money)


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


def _rounds(events: Events, clear: ClearFigures) -> tuple[RoundRow, ...]:
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
                auc_clear=clear.auc_by_step.get(event["step"] + 1) if train else None,
            )
        )
    return tuple(rows)


def _timing(events: Events, summary: Mapping[str, Any]) -> Timing:
    opened = [event for event in events if event["event"] == "round"]
    stages = {stage: [e["seconds"][stage] for e in opened] for stage in ("upload", "ack", "reveal")}
    return Timing(
        setup=summary["seconds"]["setup"],
        round_median=summary["seconds"]["round_median"],
        total=summary["seconds"]["total"],
        stages=tuple(StageTime(stage=name, median=statistics.median(values)) for name, values in stages.items()),
    )


def _quality(plan: RunPlan, events: Events, clear: ClearFigures) -> Quality:
    risk = next(task for task in plan.tasks if isinstance(task, RiskTask))
    figures: Mapping[str, Any] = next(e["figures"]["risk"] for e in reversed(events) if e["event"] == "evaluated")
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
        label=risk.label,
        auc_dp=_estimate(figures["auc"]),
        auc_clear=clear.auc,
        auc_pooled=clear.auc_pooled,
        calibration=tuple(points),
        brier=_estimate(figures["brier"]),
        prevalence=_estimate(figures["prevalence"]),
        gap=_interval(figures["gap"]),
        groups=tuple(_groups(table) for table in figures["groups"]),
        recalibration=_recalibration(events, clear),
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


def _recalibration(events: Events, clear: ClearFigures) -> Recalibration | None:
    found = next((e["corrections"].get("risk") for e in reversed(events) if e["event"] == "recalibrated"), None)
    if found is None:
        return None
    return Recalibration(
        applied=found["applied"],
        slope=Interval(**found["slope"]),
        intercept=Interval(**found["intercept"]),
        release=found["release"],
        note=found["note"],
        error_before=clear.error_raw,
        error_after=clear.error,
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


def _segments(plan: RunPlan, clear: ClearFigures) -> Segments:
    from cameo_models.prototypes import describe_prototypes
    from cameo_server.definitions import read_catalogue

    catalogue = read_catalogue(plan.data.catalogue)
    task = next(task for task in plan.tasks if isinstance(task, SegmentTask))
    described = describe_prototypes(catalogue, task, clear.segment_parameters)
    segments = tuple(
        Segment(name=f"Segment {number}", size_band=size_band(size), traits=_traits(catalogue, values))
        for number, (size, values) in enumerate(zip(clear.sizes, described, strict=True), start=1)
    )
    return Segments(segments=segments, ari_reference=clear.ari)


def _traits(catalogue: Catalogue, values: Mapping[str, float | str | None]) -> tuple[Trait, ...]:
    """The numbers of a prototype; enums and mostly missing facts are left to the model card."""
    traits = []
    for name, value in values.items():
        fact = catalogue.fact(name)
        if isinstance(value, float | int):
            low, high = fact.scale or (0.0, 1.0)
            traits.append(Trait(name=_title(fact), value=float(value), unit=_unit(fact), low=low, high=high))
    return tuple(traits[:40])


def _title(fact: Fact) -> str:
    return fact.name.replace("_", " ")


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
