"""Carrying an audit out: the subject is built, every check is run, the result is kept in the coordinator's home."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np

from cameo_lab.audit.canary import NAME as CANARY
from cameo_lab.audit.canary import canary_audit, claimed
from cameo_lab.audit.dry_run import ledger_entries
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.people import made_up
from cameo_lab.audit.structure import batch_size, empty_batch_noise, noise_distribution
from cameo_lab.audit.subject import Subject, subject_of
from cameo_protocol.facts import feature_names
from cameo_protocol.layout import ROUND_KINDS
from cameo_protocol.plan import RunPlan, parse_plan
from cameo_protocol.recipe import recipe_of
from cameo_server.definitions import read_catalogue
from cameo_server.home import CoordinatorHome
from cameo_server.run import release_gate
from cameo_server.run.release_gate import Audit, CheckResult
from cameo_server.run.store import RunStore
from cameo_server.run.summary import open_store

Check = Callable[[Subject, np.random.Generator, Effort], Finding]
Say = Callable[[str], None]

PATIENTS = 100
CHECKS: Mapping[str, Check] = {
    "noise-distribution": lambda subject, _, effort: noise_distribution(subject, effort),
    "empty-batch-noise": lambda subject, *_: empty_batch_noise(subject),
    "batch-size": lambda subject, *_: batch_size(subject),
    "ledger-entries": lambda subject, *_: ledger_entries(subject),
    CANARY: canary_audit,
}


def audit_plan(plan: RunPlan, effort: Effort, say: Say) -> Audit:
    """Audit a plan on made-up patients of its catalogue. say: told each check as it ends."""
    catalogue = read_catalogue(plan.data.catalogue)
    random = np.random.default_rng()
    hospitals = [made_up(plan, catalogue, PATIENTS, random) for _ in plan.cohort.sites]
    return audit_subject(subject_of(plan, len(feature_names(catalogue)), hospitals), random, effort, say)


def audit_subject(subject: Subject, random: np.random.Generator, effort: Effort, say: Say) -> Audit:
    """Run every check on a subject. A check that cannot be carried out is a failed one, never a skipped one."""
    findings = []
    with one_thread():
        for number, (name, check) in enumerate(checks().items(), start=1):
            say(f"audit {number}/{len(checks())}: {name}")
            finding = _tried(name, check, subject, random, effort)
            say(f"  {'passed' if finding.passed and finding.control_failed else 'FAILED'} in {finding.seconds:.1f} s")
            findings.append(finding)
    bounds = [f.figures["lower bound"] for f in findings if f.name == CANARY and "lower bound" in f.figures]
    return Audit(
        recipe=recipe_of(subject.plan),
        effort=effort,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        software=release_gate.software(),
        findings=tuple(CheckResult(**_plain(finding)) for finding in findings),
        lower_bound=max(bounds, default=0.0),
        claim=claimed(subject),
    )


def audit_run(home: CoordinatorHome, run: str, effort: Effort, say: Say) -> Audit:
    """Audit the plan of a run, waiting or finished, and hold the rounds that it asked for against that plan."""
    store = open_store(home, run)
    plan = parse_plan(store.plan())
    made = audit_plan(plan, effort, say)
    return made.model_copy(update={"findings": (*made.findings, CheckResult(**_plain(rounds_asked(plan, store))))})


def rounds_asked(plan: RunPlan, store: RunStore) -> Finding:
    """A run asks for no more sums than its plan, and so its claim, counts; void ones are counted too."""
    began = time.perf_counter()
    asked = Counter(event["kind"] for event in store.events() if event["event"] in ("round", "void"))
    most = {kind: plan.rounds_of(kind) + (plan.training.spare if kind == "train" else 0) for kind in ROUND_KINDS}
    return Finding(
        name="rounds-asked",
        passed=all(asked[kind] <= most[kind] for kind in ROUND_KINDS) and not asked.keys() - most.keys(),
        figures={kind: float(asked[kind]) for kind in ROUND_KINDS},
        limit="at most " + ", ".join(f"{count} {kind}" for kind, count in most.items()),
        control={},
        control_failed=True,
        seconds=time.perf_counter() - began,
    )


def ensure(home: CoordinatorHome, plan: RunPlan, say: Say) -> None:
    """Make a quick audit of the plan's recipe unless there is one that fits; one that failed stops here."""
    if release_gate.find(home, plan) is None:
        say("no audit of this recipe yet: a quick one is made now, once for all runs of it")
        release_gate.keep(home, audit_plan(plan, "quick", say))
    release_gate.require(home, plan)


def checks() -> Mapping[str, Check]:
    """Every check and attack by name, in order."""
    from cameo_lab.audit.attacks.table import ATTACKS

    return {**CHECKS, **ATTACKS}


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: the models are small, and more threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tried(name: str, check: Check, subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    began = time.perf_counter()
    try:
        return check(subject, random, effort)
    except Exception as error:  # whatever goes wrong, the gate stays shut and says which check it was
        return Finding(
            name=name,
            passed=False,
            figures={},
            limit=f"could not be carried out: {type(error).__name__}: {error}"[:300],
            control={},
            control_failed=False,
            seconds=time.perf_counter() - began,
        )


def _plain(finding: Finding) -> dict[str, object]:
    value = dataclasses.asdict(finding)
    for part in ("figures", "control"):
        value[part] = {key: float(number) for key, number in value[part].items()}
    return value
