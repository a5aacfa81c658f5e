"""`cameo audit` on the real command line, and the audit that opens or shuts the gate for a run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from planted import plan_of, subject

from cameo_lab.audit import conduct
from cameo_lab.audit.cli import table
from cameo_lab.audit.finding import Finding
from cameo_lab.audit.subject import Subject
from cameo_lab.demo.processes import command
from cameo_protocol.errors import OperatorError
from cameo_server.home import CoordinatorHome
from cameo_server.membership import init_coordinator
from cameo_server.run import release_gate
from cameo_server.run.store import RunStore


def quiet(_: str) -> None:
    """Nobody listens."""


def good(name: str) -> conduct.Check:
    figures = {"lower bound": 0.5, "claim": 3.0} if name == "canary-lower-bound" else {"tries": 3}

    def check(*_: object) -> Finding:
        return Finding(
            name=name, passed=True, figures=figures, limit="any", control={"plain": 3}, control_failed=True, seconds=0
        )

    return check


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    place = CoordinatorHome(tmp_path / "coordinator")
    init_coordinator(place, federation="demo", host="localhost", fleet_port=9999, now=datetime.now(UTC))
    return place


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, conduct.Check]:
    """Checks that take no time; a test may put others in their place."""
    chosen = {name: good(name) for name in release_gate.REQUIRED}
    monkeypatch.setattr(conduct, "checks", lambda: chosen)
    return chosen


def test_every_required_check_is_carried_out() -> None:
    assert conduct.checks().keys() >= release_gate.REQUIRED


def test_ensure_audits_once_and_keeps_it(home: CoordinatorHome, checks: dict[str, conduct.Check]) -> None:
    said: list[str] = []
    conduct.ensure(home, plan_of("data=heart"), said.append)
    assert any("no audit of this recipe" in line for line in said)
    assert release_gate.require(home, plan_of("data=heart")).lower_bound == 0.5
    checks.clear()
    again: list[str] = []
    conduct.ensure(home, plan_of("data=heart"), again.append)
    assert again == []


def raising(error: Exception) -> Callable[[Subject, np.random.Generator, conduct.Effort], Finding]:
    def check(*_: object) -> Finding:
        raise error

    return check


def test_a_check_that_cannot_be_carried_out_is_a_failed_one(
    home: CoordinatorHome, checks: dict[str, conduct.Check]
) -> None:
    checks["imprint"] = raising(RuntimeError("no"))
    with pytest.raises(OperatorError, match="imprint") as refused:
        conduct.ensure(home, plan_of("data=heart"), quiet)
    assert refused.value.code == "audit-failed"
    made = release_gate.find(home, plan_of("data=heart"))
    assert made is not None
    assert made.failed == ("imprint",)
    assert "FAILED  imprint" in table(made)


def test_a_control_that_holds_fails_the_audit(checks: dict[str, conduct.Check]) -> None:
    holds = replace(good("imprint")(subject(), np.random.default_rng(), "quick"), control_failed=False)
    checks["imprint"] = lambda *_: holds
    made = conduct.audit_subject(subject(), np.random.default_rng(), "quick", quiet)
    assert made.failed == ("imprint",)
    assert "DID NOT BREAK" in table(made)


def test_a_run_that_asked_for_more_sums_than_its_plan(home: CoordinatorHome, checks: dict[str, conduct.Check]) -> None:
    plan = plan_of("data=heart", "training.rounds=2", "training.spare=1")
    store = RunStore(home.runs / "r1")
    store.create(plan.canonical())
    for number in range(3):
        store.event("void" if number == 1 else "round", kind="train", round=number)
    assert conduct.audit_run(home, "r1", "quick", quiet).passed
    store.event("round", kind="train", round=4)
    assert conduct.audit_run(home, "r1", "quick", quiet).failed == ("rounds-asked",)
    del checks


def cameo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command("cameo"), *arguments], capture_output=True, text=True, timeout=250, check=False)


def test_the_command_line(home: CoordinatorHome) -> None:
    """One real quick audit: it passes, prints one object, and is kept for the gate."""
    place = ("--home", str(home.root))
    done = cameo("audit", "--plan", "--sites", "4", "data=heart", "training.rounds=5", "--json", *place)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["passed"] is True
    assert value["failed"] == []
    assert value["lower_bound"] <= value["claim"]
    assert {f["name"] for f in value["findings"]} >= release_gate.REQUIRED
    assert Path(value["path"]).is_file()
    assert release_gate.require(home, plan_of("data=heart", "training.rounds=5")).passed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), "usage"), (("a", "b"), "usage"), (("nobody",), "run-unknown"), (("--plan", "no.such=1"), "config-unknown")],
)
def test_bad_input_is_told(home: CoordinatorHome, arguments: tuple[str, ...], code: str) -> None:
    sites = ("--sites", "4") if "--plan" in arguments else ()
    done = cameo("audit", *arguments, *sites, "--home", str(home.root))
    assert done.returncode == 2
    assert code in done.stderr
    assert "Traceback" not in done.stderr
