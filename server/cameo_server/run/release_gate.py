"""The release gate: no run without an audit of its recipe that passed, and no model published without it.

There is no way around it: nothing here takes a "force". An audit is made by `cameo audit`, signed with the
coordinator's key and kept in the coordinator's home. It is an audit of a recipe, that is of a plan without what
changes from run to run (its name, who the hospitals are, deadlines), by this version of the software.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from cameo_protocol.envelope import open_envelope, seal
from cameo_protocol.errors import ExitCode, OperatorError, Reject
from cameo_protocol.plan import Hex32, RunPlan
from cameo_protocol.recipe import recipe_of
from cameo_server.audit import note
from cameo_server.home import CoordinatorHome, load_ed25519, read_file, write_file

AUDIT_VERSION = 1
LABEL = "audit"
MAX_AUDIT_BYTES = 1 << 20
AUDITED = ("cameo-fl", "cryptography", "dp-accounting", "flwr", "numpy", "opacus", "opendp", "torch")
"""Software whose change makes an audit out of date."""
REQUIRED = frozenset(
    {
        "noise-distribution",
        "empty-batch-noise",
        "batch-size",
        "ledger-entries",
        "canary-lower-bound",
        "gradient-inversion",
        "imprint",
        "membership-inference",
    }
)
"""Checks without which an audit is none."""

Auditor = Callable[[CoordinatorHome, RunPlan], None]
"""Makes an audit of a plan's recipe and keeps it; raises `OperatorError` "audit-failed" when it does not pass."""


class _Frozen(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Base of every part of an audit."""


class CheckResult(_Frozen):
    """One check of an audit; see `cameo_lab.audit.finding.Finding`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    passed: bool
    figures: dict[str, float]
    limit: str
    control: dict[str, float]
    control_failed: bool
    seconds: float = Field(ge=0)


class Audit(_Frozen):
    """What an audit of a recipe found.

    recipe: `recipe_of` the plan. made: UTC, ISO 8601. software: versions, by distribution. lower_bound: on epsilon,
    from the canaries; claim: epsilon that the plan states, both at the plan's delta.
    """

    schema_version: Literal[1] = 1
    recipe: Hex32
    effort: Literal["quick", "full"]
    made: str
    software: dict[str, str]
    findings: tuple[CheckResult, ...]
    lower_bound: float = Field(ge=0)
    claim: float = Field(gt=0)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed, or that are missing; a control that held fails its check too."""
        bad = [f.name for f in self.findings if not (f.passed and f.control_failed)]
        missing = sorted(REQUIRED - {f.name for f in self.findings})
        over = ["lower-bound-over-claim"] if self.lower_bound > self.claim else []
        return tuple(dict.fromkeys([*bad, *missing, *over]))

    @property
    def passed(self) -> bool:
        """Whether a model of this recipe may be published."""
        return not self.failed

    def card(self) -> dict[str, Any]:
        """For the model card: effort, passed, findings, lower_bound, claim and where they come from."""
        return {**self.model_dump(mode="json"), "passed": self.passed}


def software() -> dict[str, str]:
    """The installed versions of what an audit covers."""
    return {name: version(name) for name in AUDITED}


def keep(home: CoordinatorHome, audit: Audit) -> Path:
    """Sign an audit and write it to audits/ of the home, and that it was made into the audit log; returns its path."""
    path = _path(home, audit.recipe)
    note(home, "recipe-audited", about=audit.recipe, effort=audit.effort, passed="yes" if audit.passed else "no")
    write_file(path, seal(load_ed25519(home.plan_key), LABEL, audit.model_dump_json()))
    return path


def find(home: CoordinatorHome, plan: RunPlan) -> Audit | None:
    """The audit of a plan's recipe by the software that is installed, passed or not; None when there is none.

    A file that this coordinator did not sign, or that is damaged, is an `OperatorError` "audit-invalid".
    """
    path = _path(home, recipe_of(plan))
    if not path.exists():
        return None
    public = load_ed25519(home.plan_key).public_key().public_bytes_raw()
    try:
        value = open_envelope(read_file(path), public, LABEL, max_bytes=MAX_AUDIT_BYTES)
        audit = Audit.model_validate_json(value)
    except (Reject, ValidationError, TypeError):
        raise _invalid(path) from None
    if audit.recipe != recipe_of(plan):
        raise _invalid(path)
    return audit if audit.software == software() else None


def require(home: CoordinatorHome, plan: RunPlan) -> Audit:
    """The audit that lets a plan run and its models out.

    None that fits: `OperatorError` "audit-missing"; one that failed: "audit-failed". Exit POLICY, both.
    """
    audit = find(home, plan)
    if audit is None:
        raise OperatorError(
            "audit-missing",
            what="no audit of this plan's recipe by the installed software",
            do="cameo run makes one by itself; or: cameo audit --plan with the same overrides",
            exit=ExitCode.POLICY,
        )
    if not audit.passed:
        raise failure(audit)
    return audit


def failure(audit: Audit) -> OperatorError:
    """What is raised for an audit that did not pass."""
    return OperatorError(
        "audit-failed",
        what=f"the audit failed: {', '.join(audit.failed)};"
        f" lower bound {audit.lower_bound:.3g}, claim {audit.claim:.3g}",
        do="do not use this installation for hospitals; see docs/audit.md, then: cameo audit --plan ... --full",
        exit=ExitCode.POLICY,
    )


def _path(home: CoordinatorHome, recipe: str) -> Path:
    return home.audits / f"{recipe}.cbor"


def _invalid(path: Path) -> OperatorError:
    return OperatorError(
        "audit-invalid",
        what=f"{path} is not an audit signed by this coordinator",
        do=f"remove {path}, find out who changed it, then make the audit again: cameo audit --plan ...",
        exit=ExitCode.POLICY,
    )
