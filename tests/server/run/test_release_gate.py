"""The release gate: what it lets through, what it refuses, and that a file is believed only with our signature."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cameo_protocol.envelope import seal
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.plan import RunPlan, Site
from cameo_protocol.recipe import recipe_of
from cameo_server.home import CoordinatorHome, load_ed25519
from cameo_server.launch import make_plan_for, start_run
from cameo_server.membership import init_coordinator
from cameo_server.run import release_gate
from cameo_server.run.release_gate import REQUIRED, Audit, find, keep, require
from passed_audit import keep_passed_audit, passed_audit


def plan_of(*overrides: str, salt: int = 0, n: int = 4) -> RunPlan:
    sites = [Site(name=f"h-{i}", index=i, identity=bytes([i, salt] * 16).hex()) for i in range(1, n + 1)]
    return make_plan_for(sites, overrides)


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    place = CoordinatorHome(tmp_path / "coordinator")
    init_coordinator(place, federation="demo", host="localhost", fleet_port=9999, now=datetime.now(UTC))
    return place


def code_of(home: CoordinatorHome, plan: RunPlan) -> str:
    with pytest.raises(OperatorError) as refused:
        require(home, plan)
    assert refused.value.exit_code == ExitCode.POLICY
    return refused.value.code


def test_no_audit_no_run(home: CoordinatorHome) -> None:
    plan = plan_of()
    assert find(home, plan) is None
    assert code_of(home, plan) == "audit-missing"
    with pytest.raises(OperatorError, match="audit-missing"):
        start_run(home, plan)
    assert not home.runs.exists() or not list(home.runs.iterdir())


def test_an_audit_that_passed_opens_it_for_every_run_of_the_recipe(home: CoordinatorHome) -> None:
    keep_passed_audit(home, plan_of())
    assert require(home, plan_of()).passed
    others = (plan_of("name=other", "seed=7", "deadlines.stage=3"), plan_of(salt=5))
    for plan in others:
        assert require(home, plan).passed


@pytest.mark.parametrize(
    "changed", ["privacy.epsilon=1", "training.rounds=31", "risk=mlp", "data.population=15999", "risk.clip=1"]
)
def test_another_recipe_needs_an_audit_of_its_own(home: CoordinatorHome, changed: str) -> None:
    keep_passed_audit(home, plan_of())
    assert code_of(home, plan_of(changed)) == "audit-missing"


def test_another_size_of_cohort_needs_one_too(home: CoordinatorHome) -> None:
    keep_passed_audit(home, plan_of())
    assert code_of(home, plan_of(n=5)) == "audit-missing"


def broken(**changes: Any) -> Audit:
    return passed_audit(plan_of()).model_copy(update=changes)


def test_what_fails_an_audit() -> None:
    whole = passed_audit(plan_of())
    bad, held = (
        (whole.findings[0].model_copy(update={field: False}), *whole.findings[1:])
        for field in ("passed", "control_failed")
    )
    assert broken(findings=bad).failed == (whole.findings[0].name,)
    assert broken(findings=held).failed == (whole.findings[0].name,)
    assert broken(lower_bound=whole.claim + 0.01).failed == ("lower-bound-over-claim",)
    assert set(broken(findings=()).failed) == REQUIRED
    assert whole.failed == ()


def test_a_failed_audit_shuts_the_gate(home: CoordinatorHome) -> None:
    keep(home, broken(lower_bound=99.0))
    assert code_of(home, plan_of()) == "audit-failed"


def test_another_version_of_the_software_needs_a_new_audit(
    home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_passed_audit(home, plan_of())
    installed = release_gate.version
    for changed in ("cameo-fl", "cryptography", "dp-accounting", "flwr", "numpy", "opacus", "opendp", "torch"):
        other = {changed: "999"}
        monkeypatch.setattr(release_gate, "version", lambda name, other=other: other.get(name) or installed(name))
        assert code_of(home, plan_of()) == "audit-missing"


def test_only_our_own_signature_is_believed(home: CoordinatorHome, tmp_path: Path) -> None:
    path = keep(home, passed_audit(plan_of()))
    other = CoordinatorHome(tmp_path / "other")
    init_coordinator(other, federation="demo", host="localhost", fleet_port=9998, now=datetime.now(UTC))
    foreign = keep(other, passed_audit(plan_of())).read_bytes()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    mine = load_ed25519(home.plan_key)
    elsewhere = passed_audit(plan_of("privacy.epsilon=1")).model_dump_json()
    extra = json.dumps({**json.loads(passed_audit(plan_of()).model_dump_json()), "force": True})
    forged = [
        foreign, bytes(flipped), whole[:-1], b"", b"{}",
        seal(mine, "federation", passed_audit(plan_of()).model_dump_json()),
        seal(mine, "audit", elsewhere), seal(mine, "audit", extra), seal(mine, "audit", 7),
    ]  # fmt: skip
    for raw in forged:
        path.write_bytes(raw)
        assert code_of(home, plan_of()) == "audit-invalid"


def test_an_audit_is_reused_by_recipe_not_by_plan() -> None:
    assert recipe_of(plan_of()) == recipe_of(plan_of(salt=9))
    assert plan_of().plan_id() != plan_of(salt=9).plan_id()
