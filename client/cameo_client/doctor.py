"""What `cameo-node doctor` looks at: typed checks, each with a stable code, how bad it is, and what to do.

A check names the checks that it needs. Where one of those failed, it stays silent: what it would say follows from
that failure. Reads and connects; changes nothing.
"""

from __future__ import annotations

import importlib
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cameo_client.home import (
    NodeConfig,
    NodeHome,
    load_config,
    load_identity,
    load_node_key,
    load_pseudonym_key,
)
from cameo_client.membership import Membership, load_federation, load_membership, review
from cameo_client.node.witness import look_at_log
from cameo_client.policy_file import load_policy
from cameo_client.reach import Answer, reach
from cameo_client.running import is_paused
from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.federation import Federation
from cameo_protocol.quiet import QUIET

if TYPE_CHECKING:
    from cameo_client.node.study import LocalData
    from cameo_client.source import Configured

Severity = Literal["ok", "warning", "failed"]
LEAST_DISK = 1 << 30
SERVER_DAYS, OWN_DAYS = 14, 20
# Flower refuses a node whose clock is 5 minutes off; certificates and proofs care less.
CLOCK_WARN_S, CLOCK_S = 60, 300
LITTLE_EPSILON = 0.1


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding. code: stable, "ok" when all is well; do: the next step; exit: of the command when this failed."""

    name: str
    code: str
    severity: Severity
    what: str
    do: str = ""
    exit: ExitCode = ExitCode.OK


class Warned(Exception):
    """Raised by a check that found something that does not keep the node from taking part.

    hollow: what needs this check has nothing to look at.
    """

    def __init__(self, code: str, what: str, do: str, *, hollow: bool = False) -> None:
        super().__init__(code)
        self.code, self.what, self.do, self.hollow = code, what, do, hollow


@dataclass
class Examination:
    """One look at a node. clock: UTC. say: told before what takes longer."""

    home: NodeHome
    clock: Callable[[], datetime]
    say: Callable[[str], None] = lambda _text: None
    silent: list[str] = field(default_factory=list)

    def checks(self) -> list[Check]:
        """Carry out `CHECKS` in their order; `silent` then names those that needed one that failed."""
        found: list[Check] = []
        out: set[str] = set()
        for name, needs, look in CHECKS:
            if out.intersection(needs):
                self.silent.append(name)
                out.add(name)
                continue
            check, firm = self._one(name, look)
            found.append(check)
            if not firm:
                out.add(name)
        return found

    def _one(self, name: str, look: Callable[[Examination], str]) -> tuple[Check, bool]:
        """The finding, and whether others can build on it."""
        try:
            return Check(name=name, code="ok", severity="ok", what=look(self)), True
        except Warned as warned:
            check = Check(name=name, code=warned.code, severity="warning", what=warned.what, do=warned.do)
            return check, not warned.hollow
        except CameoError as error:
            told = {"what": error.what, "do": error.do}
            return Check(name=name, code=error.code, severity="failed", exit=error.exit_code, **told), False

    @cached_property
    def config(self) -> NodeConfig:
        """node.toml."""
        return load_config(self.home)

    @cached_property
    def source(self) -> Configured:
        """The data source with the definitions it is read by."""
        from cameo_client.source import configured

        return configured(self.config.data)

    @cached_property
    def local(self) -> LocalData:
        """The patients, read as a run would."""
        from cameo_client.node.study import load_local

        self.say("reading the data source as a run would …")
        return load_local(self.home, today=self.clock().date())

    @cached_property
    def federation(self) -> Federation:
        """What was accepted."""
        return load_federation(self.home)

    @cached_property
    def member(self) -> Membership:
        """This hospital's place, checked against keys and policy."""
        return load_membership(self.home)

    @cached_property
    def answer(self) -> Answer:
        """How the coordinator answers on the fleet port."""
        return reach(self.federation, self.clock)


def examine(home: NodeHome, clock: Callable[[], datetime]) -> list[Check]:
    """All checks of a node that have something to say."""
    return Examination(home, clock).checks()


# --- this machine ---------------------------------------------------------------------------------------------------


def _configuration(at: Examination) -> str:
    return f"{at.config.site}, data source {at.config.data.kind}"


def _keys(at: Examination) -> str:
    if not (at.home.identity_key.exists() or at.home.federation.exists()):
        raise OperatorError(
            "keys-none", what="this hospital has left, or has not joined", do="cameo-node join HOST:PORT --token T"
        )
    load_identity(at.home)
    load_node_key(at.home)
    return "identity and node key, readable by their owner only"


def _disk(at: Examination) -> str:
    free = shutil.disk_usage(at.home.root).free
    what = f"{free / (1 << 30):.1f} GiB free in {at.home.root}"
    if free < LEAST_DISK:
        raise OperatorError(
            "disk-full", what=what, do="free space: without it the ledger cannot be written, and rounds are refused"
        )
    return what


def _folder(at: Examination) -> str:
    mode = stat.S_IMODE(at.home.root.stat().st_mode)
    if mode & 0o022:
        raise Warned("folder-open", f"others may write into {at.home.root}", f"chmod go-w {at.home.root}")
    if not os.access(at.home.root, os.W_OK):
        raise OperatorError(
            "disk-write", what=f"{at.home.root} cannot be written", do="run it as the user who owns the folder"
        )
    return f"{at.home.root} is this user's"


def _telemetry(_at: Examination) -> str:
    """Flower reads its environment at import: what it has read in this process is what it reads in the node's."""
    importlib.import_module("cameo_client.flower")  # switches it off
    from flwr.supercore import telemetry

    loud = [name for name, value in QUIET.items() if os.environ.get(name) != value]
    if loud or telemetry.FLWR_TELEMETRY_ENABLED != "0":
        raise OperatorError("telemetry-on", what="Flower's telemetry is on", do="install it again: scripts/install.sh")
    return "Flower's telemetry and its update check are off"


# --- data -----------------------------------------------------------------------------------------------------------


def _source(at: Examination) -> str:
    from cameo_client.source import present

    kind, place = at.config.data.kind, present(at.config.data).source.path
    if isinstance(place, Path):
        return f"{kind}, {place}"
    return f"{kind}, a database"


def _catalogue(at: Examination) -> str:
    catalogue, labels = at.source.catalogue, ", ".join(label.id for label in at.source.labels)
    return f"{catalogue.id} {catalogue.version}, labels: {labels or 'none'}"


def _pseudonyms(at: Examination) -> str:
    load_pseudonym_key(at.home.pseudonym_key)
    return "the pseudonym key is there, readable by its owner only"


def _data(at: Examination) -> str:
    return f"data set {at.local.data.dataset} can be read"


def _quality(at: Examination) -> str:
    at.local.data.quality.require()
    return f"{at.local.data.quality.score:.1f} of 100"


# --- the federation -------------------------------------------------------------------------------------------------


def _federation(at: Examination) -> str:
    return f"{at.federation.name}, issue {at.federation.serial}, {len(at.federation.cohort.sites)} hospitals"


def _policy(at: Examination) -> str:
    load_policy(at.home.policy)
    return f"{at.home.policy} is a valid policy"


def _membership(at: Examination) -> str:
    return f"number {at.member.index} of {at.member.federation.name}"


def _peers(at: Examination) -> str:
    changes = review(at.home, at.home.federation.read_bytes())
    if changes.joined:
        raise OperatorError(
            "peer-not-approved",
            what=f"policy.yaml does not approve {', '.join(changes.joined)} with its present key; runs are declined",
            do=f"if that is not meant: cameo-node accept {at.home.federation}",
            exit=ExitCode.POLICY,
        )
    return f"every hospital of the roster is approved ({len(at.member.policy.policy.peers)} approved)"


def _coordinator(at: Examination) -> str:
    try:
        days = (at.answer.certificate_ends - at.clock()).days
    except CameoError as error:
        if error.code != "coordinator-silent":
            raise
        raise Warned(error.code, error.what, error.do, hollow=True) from None
    what = f"{at.federation.address} answers with {at.answer.version}, certificate valid for {days} days"
    if days < SERVER_DAYS:
        raise Warned("server-certificate-ends", what, "tell the coordinator: a running one renews it by itself")
    return what


def _clock(at: Examination) -> str:
    off = at.answer.clock_off_s
    if off is None:
        raise Warned("clock-unknown", "the coordinator did not tell its time", "see that this machine's clock is right")
    what = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the coordinator"
    do = "set this machine's clock (timedatectl set-ntp true)"
    if abs(off) >= CLOCK_S:
        raise OperatorError("clock-differs", what=what, do=do, exit=ExitCode.AUTH)
    if abs(off) >= CLOCK_WARN_S:
        raise Warned("clock-differs", what, do)
    return "as the coordinator's" if abs(off) < 2 else what


def _certificate(at: Examination) -> str:
    from cameo_client.enrolment import certificate_days

    if not at.home.operator_cert.exists():
        return "none: this hospital joined by hand, and rounds need none"
    days = certificate_days(at.home, at.clock())
    what = f"valid for {days} days"
    again = "run the join command of the invitation again: it fetches a new one"
    if days < 0:
        raise OperatorError("certificate-ended", what=f"it ended {-days} days ago", do=again, exit=ExitCode.AUTH)
    if days < OWN_DAYS:
        raise Warned("certificate-ends", what, f"a running node renews it by itself (cameo-node start); or {again}")
    return what


def _roster(at: Examination) -> str:
    from cameo_client.enrolment import newest_federation

    if not at.home.operator_cert.exists():
        return "not asked for: this hospital joined by hand"
    changes = review(at.home, newest_federation(at.home))
    if changes.changed:
        raise Warned(
            "roster-changed",
            f"the coordinator has issued number {changes.federation.serial}, which is not accepted yet",
            "compare and approve: cameo-node accept",
        )
    return "this hospital's certificate is taken, and the accepted roster is the newest"


# --- taking part ----------------------------------------------------------------------------------------------------


def _budget(at: Examination) -> str:
    from cameo_client.ledger import Caps, Ledger
    from cameo_client.node.service import LEDGER_DELTA

    caps = load_policy(at.home.policy).policy.caps
    if not at.home.ledger.exists():
        return f"nothing spent yet of epsilon {caps.epsilon_per_data_set:g} for ever, {caps.epsilon_per_year:g} a year"
    limits = Caps(dataset=caps.epsilon_per_data_set, year=caps.epsilon_per_year)
    moment = at.clock().timestamp
    with Ledger.open(at.home.ledger, dataset=at.config.data.name, delta=LEDGER_DELTA, clock=moment) as book:
        left = book.left(limits)
    what = f"epsilon left: {left.dataset:.3f} for ever, {left.year:.3f} this year"
    what += "; what fits: cameo-node policy check PLAN"
    if min(left.dataset, left.year) < LITTLE_EPSILON:
        raise Warned("budget-spent", what, "ask the privacy officer; see: cameo-node ledger")
    return what


def _awake(at: Examination) -> str:
    if is_paused(at.home):
        raise Warned("node-paused", "this hospital is paused and declines new runs", "cameo-node resume")
    return "new runs are answered as policy.yaml says"


def _consents(at: Examination) -> str:
    from cameo_client.consent.store import ConsentStore

    basis = load_policy(at.home.policy).policy.legal_basis.get("model_training")
    if basis is not None:
        return f"training rests on the law that policy.yaml names: {basis}"
    granted = 0
    if at.home.consent.exists():
        with ConsentStore.open(at.home.consent) as store:
            granted = store.counts("model_training", at.clock())["granted"]
    if granted == 0:
        raise Warned(
            "consents-none",
            "no patient has agreed to training, so this hospital sends noise only",
            "cameo-node consent import consents.csv",
            hollow=True,
        )
    return "patients have agreed to training"


def _patients(at: Examination) -> str:
    from cameo_client.node.study import may_train_now

    # Without a store training rests on a law, and nobody has objected; the doctor makes no store.
    if at.home.consent.exists() and not may_train_now(at.home, at.local.data, at.clock()).any():
        raise Warned(
            "consents-elsewhere",
            "none of those who agreed to training is in the data source, so this hospital sends noise only",
            "compare the person ids of the consents and of the source; the pseudonym key must be the one that the "
            "consents were imported under",
        )
    return "patients of the data source may be trained on"


def _rules(at: Examination) -> str:
    from cameo_client.tags.store import TagStore

    approved = 0
    if at.home.tags.exists():
        with TagStore(at.home.tags) as store:
            approved = len(store.approved_packs())
    if approved == 0:
        raise Warned(
            "rules-none",
            "no rule pack is in force, so no tags will be written",
            'read the packs, then: cameo-node tags approve-pack --as "B. Doctor"',
        )
    return f"rule packs approved: {approved}"


CHECKS: tuple[tuple[str, tuple[str, ...], Callable[[Examination], str]], ...] = (
    ("configuration", (), _configuration),
    ("folder", (), _folder),
    ("disk", (), _disk),
    ("telemetry", (), _telemetry),
    ("keys", ("configuration",), _keys),
    ("federation", ("keys",), _federation),
    ("policy", ("keys", "federation"), _policy),
    ("membership", ("federation", "policy"), _membership),
    ("peers", ("membership",), _peers),
    ("coordinator", ("federation",), _coordinator),
    ("clock", ("coordinator",), _clock),
    ("certificate", ("federation",), _certificate),
    ("roster", ("membership", "coordinator", "clock", "certificate"), _roster),
    ("budget", ("configuration", "policy"), _budget),
    ("runs", ("membership",), _awake),
    ("consents", ("policy",), _consents),
    ("rules", ("configuration",), _rules),
    ("audit log", ("federation",), lambda at: look_at_log(at.home)),
    ("source", ("configuration",), _source),
    ("catalogue", ("source",), _catalogue),
    ("pseudonyms", ("configuration",), _pseudonyms),
    ("data", ("catalogue", "pseudonyms"), _data),
    ("quality", ("data",), _quality),
    ("patients", ("data", "consents"), _patients),
)
