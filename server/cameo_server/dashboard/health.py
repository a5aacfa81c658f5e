"""Whether a run is well, in one sentence: what a coordinator must see in a glance. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from cameo_protocol.plan import RunPlan
from cameo_protocol.web.words import listed

Where = Literal["in", "lost", "declined", "invited"]
STAGES: Final = {
    "admit": "at the invitation",
    "adv": "at the key set-up",
    "shr": "at the key set-up",
    "rdy": "at the key set-up",
    "upload": "at the upload",
    "ack": "at the acknowledgement",
    "reveal": "at the reveal",
    "publish": "at the publication",
    "finish": "when it was told the end",
    "round": "before the round",
}
SLACK_S: Final = 60.0
CODES: Final = {"no-answer": "no answer in time"}
ANSWERS: Final = {
    "declined-policy": "its policy does not allow this plan",
    "declined-local": "for a reason that stays there",
}


@dataclass(frozen=True, kw_only=True)
class Attendance:
    """Where a hospital of the plan is. why: of "lost" and "declined", in words. at: unix seconds of the last change."""

    name: str
    where: Where
    why: str = ""
    at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a run does. do: what a person does next, "" where nothing is to be done."""

    level: Literal["good", "warn", "bad"]
    text: str
    do: str = ""


def attendance(names: Sequence[str], events: Sequence[Mapping[str, Any]]) -> list[Attendance]:
    """Every hospital of the plan, those that are missing first."""
    found = {name: Attendance(name=name, where="invited") for name in names}
    number = 0
    for event in events:
        match event:
            case {"event": "round" | "void", "round": int(last)}:
                number = last
            case {"event": "admission", "site": site, "answer": answer, "time": at}:
                where: Where = "in" if answer == "accept" else "declined"
                found[site] = Attendance(name=site, where=where, why=ANSWERS.get(str(answer), ""), at=at)
            case {"event": "lost", "site": site, "stage": stage, "code": code, "time": at}:
                why = f"{CODES.get(code, code)} {STAGES.get(stage, stage)}"
                why += f" of round {number + 1}" if stage in ("upload", "ack", "reveal") else ""
                found[site] = Attendance(name=site, where="lost", why=why, at=at)
            case {"event": "refused", "site": site, "code": code, "time": at}:
                found[site] = Attendance(name=site, where="declined", why=f"it takes no further part: {code}", at=at)
            case {"event": "returned", "sites": sites, "time": at}:
                found |= {site: Attendance(name=site, where="in", at=at) for site in sites}
    order = ("lost", "declined", "invited", "in")
    return sorted(found.values(), key=lambda one: order.index(one.where))


def verdict(
    plan: RunPlan, state: str, present: Sequence[Attendance], events: Sequence[Mapping[str, Any]], now: float
) -> Verdict:
    """The run in one sentence. state: of `RunSummary`; now: unix seconds."""
    if state == "stopped":
        return _stopped(events)
    if state == "published":
        stored: list[str] = next((event["stored"] for event in events if event["event"] == "published"), [])
        return Verdict(level="good", text=f"Published: {len(stored)} of {len(present)} hospitals stored the models.")
    return _stuck(plan, present, events, now) or _going(plan, present, events)


def _stuck(
    plan: RunPlan, present: Sequence[Attendance], events: Sequence[Mapping[str, Any]], now: float
) -> Verdict | None:
    """What keeps a run from going on, or what a person must look into at once; None where there is nothing."""
    last: Mapping[str, Any] = events[-1] if events else {"event": "", "time": now}
    quiet = now - last["time"]
    if last["event"] == "waiting" and quiet <= last["seconds"] + SLACK_S:
        until = datetime.fromtimestamp(last["time"] + last["seconds"], UTC).strftime("%H:%M")
        here = f"{_count(present, 'in')} are in, {plan.cohort.threshold} are needed"
        text = f"Too few hospitals: {here}. Waiting for {listed(last['sites'])} until {until} UTC."
        return Verdict(level="bad", text=text, do="call them: cameo-node start")
    if quiet > _patience(plan):
        text = f"Nothing has been heard of this run for {quiet / 60:.0f} minutes."
        return Verdict(level="bad", text=text, do="cameo coordinator status")
    cut = sorted({event["site"] for event in events if event["event"] == "audit-log-cut"})
    if cut:
        text = f"The audit log of {listed(cut)} has lost entries that the hospital once told."
        return Verdict(level="bad", text=text, do="call them: cameo-node audit verify")
    return None


def _going(plan: RunPlan, present: Sequence[Attendance], events: Sequence[Mapping[str, Any]]) -> Verdict:
    invited = [one.name for one in present if one.where == "invited"]
    lost = [one.name for one in present if one.where == "lost"]
    declined = [one.name for one in present if one.where == "declined"]
    inside, needed = _count(present, "in"), plan.cohort.threshold
    if invited and not any(event["event"] == "epoch" for event in events):
        text = f"Waiting for the answer of {listed(invited)} to the invitation; {inside} of {len(present)} are in."
        return Verdict(level="warn", text=text)
    if lost:
        spare = "no further one may be missing" if inside <= needed else f"{needed} are needed"
        who = f"{listed(lost)} {'is' if len(lost) == 1 else 'are'} missing"
        return Verdict(level="warn", text=f"{who}. The run goes on: {inside} of {len(present)} are in, {spare}.")
    without = f"; {listed(declined)} declined" if declined else ""
    return Verdict(level="good", text=f"Healthy: {inside} of {len(present)} hospitals are in{without}.")


def _count(present: Sequence[Attendance], where: Where) -> int:
    return sum(one.where == where for one in present)


def _stopped(events: Sequence[Mapping[str, Any]]) -> Verdict:
    stop = next((event for event in reversed(events) if event["event"] == "stopped"), None)
    if stop is None:
        return Verdict(level="bad", text="Stopped.")
    return Verdict(level="bad", text=f"Stopped: {stop['what']} ({stop['code']}).", do=stop.get("do", ""))


def _patience(plan: RunPlan) -> float:
    """Seconds in which something must have happened: no stage waits longer for its answers."""
    wait = plan.deadlines
    return max(wait.admit, 3 * wait.setup, 3 * wait.stage) + wait.setup
