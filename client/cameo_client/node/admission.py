"""Whether this hospital takes part in a run, and what it then lets the coordinator ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client.ledger import Caps, Ledger
from cameo_client.node.contribution import Contributor, Noise, Patients
from cameo_client.node.peers import PeerHeads
from cameo_client.node.witness import LOG_CUT, Witness
from cameo_models.shapes import initial_parameters, parameter_count
from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import CameoError, OperatorError, Reject
from cameo_protocol.heads import LedgerHead, dataset_hash
from cameo_protocol.layout import ROUND_KINDS
from cameo_protocol.plan import Cohort, RunPlan, parse_plan
from cameo_protocol.policy import Policy, check, check_coordinator
from cameo_protocol.privacy.plan_check import check_plan
from cameo_protocol.privacy.releases import plan_releases, round_releases
from cameo_protocol.stages import ROLLED_BACK, Admission, Answer, EpochCall, Invitation, RoundCall, open_finish

FLOAT32 = 4
NOT_APPROVED = "coordinator-not-approved"  # as `check_coordinator` says it


class PolicyRefusal(Exception):
    """A plan that the officer's policy, or what is installed here, does not allow; independent of patient data.

    codes: of the reasons, separated by spaces.
    """

    def __init__(self, what: str, codes: str = "other-definitions") -> None:
        super().__init__(what)
        self.codes = codes


@dataclass(frozen=True, kw_only=True, repr=False)
class Study:
    """What a plan needs from this hospital's data: the rows, and how many features a model of it has."""

    patients: Patients
    features: int


@dataclass
class Admitted:
    """A run that this hospital takes part in."""

    run: str
    plan: RunPlan
    index: int
    policy: Policy
    ledger: Ledger
    contributor: Contributor
    features: int
    last_epoch: int = field(default=-1)

    def check_epoch(self, call: EpochCall) -> None:
        """Refuse an epoch of another run, with too few or unapproved hospitals, too long, or older than the last."""
        if call.run != self.run:
            raise Reject("run-foreign", what="the epoch belongs to another run")
        if self.index not in call.parties:
            raise Reject("party-missing", what="the epoch leaves this hospital out")
        if call.epoch <= self.last_epoch:
            raise Reject("epoch-old", what=f"epoch {call.epoch} does not follow epoch {self.last_epoch}")
        self.check_cohort(call.parties)
        if not 1 <= call.rounds <= self._most_rounds():
            raise Reject("epoch-too-long", what=f"an epoch of {call.rounds} rounds; the plan has fewer")

    def check_cohort(self, parties: tuple[int, ...]) -> None:
        """Refuse hospitals that the policy does not approve, or too few of them."""
        members = {site.index: site for site in self.plan.cohort.sites}
        if not set(parties) <= members.keys():
            raise Reject("party-unknown", what="the epoch names a hospital that is not in the plan")
        terms = self.plan.cohort
        if len(parties) < max(terms.threshold, self.policy.floors.hospitals):
            raise Reject("cohort-too-small", what=f"{len(parties)} hospitals are too few for this policy")
        sites = tuple(members[i] for i in parties)
        cohort = Cohort(sites=sites, threshold=terms.threshold, colluders=terms.colluders)
        if refusals := check(self.policy, self.plan, cohort):
            raise Reject(refusals[0].code, what=refusals[0].what)

    def check_call(self, call: RoundCall, epoch: int) -> None:
        """Refuse a round of another run or epoch, or one that the plan does not have."""
        if call.run != self.run or call.epoch != epoch:
            raise Reject("round-foreign", what="the round belongs to another run or epoch")
        if not self.plan.layout(call.kind).blocks:
            raise Reject("round-unplanned", what=f"the plan has no {call.kind} round")
        if not 0 <= call.step <= self.plan.training.rounds:
            raise Reject("round-unplanned", what=f"step {call.step} of {self.plan.training.rounds}")

    def check_round(self, call: RoundCall, vector: bytes, epoch: int) -> npt.NDArray[np.float64]:
        """The global model of a round, (d,) float64; refuses a foreign round and a model that is not the plan's."""
        self.check_call(call, epoch)
        if self.index not in call.invited:
            raise Reject("not-invited", what="the round leaves this hospital out")
        size = sum(task.encoded.dim for task in self.plan.trained())
        if len(vector) != size * FLOAT32:
            raise Reject("model-shape", what=f"{len(vector)} bytes for a model of {size} parameters")
        parameters = np.frombuffer(vector, dtype="<f4")
        if not np.isfinite(parameters).all():
            raise Reject("model-not-finite", what="the model holds a number that is not finite")
        if call.step == 0 and not np.array_equal(parameters, initial_model(self.plan, self.features)):
            raise Reject("model-not-initial", what="the first model is not the one that the plan determines")
        return parameters.astype(np.float64)

    def charge(self, call: RoundCall) -> None:
        """Commit what this round releases to the ledger, on disk; refuses a second charge of one round."""
        releases = round_releases(self.plan, call.kind)
        self.ledger.commit(self.run, call.round_no, call.kind, releases, epoch=call.epoch)

    def _most_rounds(self) -> int:
        plan = self.plan
        return plan.training.spare + sum(plan.rounds_of(kind) for kind in ROUND_KINDS)


def initial_model(plan: RunPlan, features: int) -> npt.NDArray[np.float32]:
    """The model with which the plan says training starts, as it travels: all trained tasks in plan order."""
    parts = [initial_parameters(task, features, plan.seed) for task in plan.trained()]
    return np.concatenate(parts).astype("<f4")


def _known_to(invitation: Invitation, plan: RunPlan) -> set[bytes]:
    """Every identity, present or former, of the plan's hospitals."""
    present = {bytes.fromhex(site.identity) for site in plan.cohort.sites}
    return present.union(*invitation.former.values())


@dataclass
class Gatekeeper:
    """Decides on invitations.

    coordinator: 32-byte key that signs plans. policy: reads the officer's policy as it is now. study: loads what a
    plan needs from the data; raises OperatorError when the data or their quality do not allow it. report:
    (code, what) into the hospital's own log: the reason of a decline never leaves. peers: remembers others' ledgers.
    witness: the hospital's audit log, and what others have seen of it.
    """

    site: str
    coordinator: bytes
    identity: Ed25519PrivateKey
    policy: Callable[[], Policy]
    study: Callable[[RunPlan], Study]
    ledger: Ledger
    noise: Noise
    random: Callable[[int], bytes]
    report: Callable[[str, str], None]
    peers: PeerHeads = field(default_factory=PeerHeads)
    witness: Witness = field(default_factory=Witness)

    def consider(self, body: bytes, current: Admitted | None = None) -> tuple[str, Admitted | None, bytes]:
        """The run of an invitation, what was admitted when the answer is accept, and the signed answer.

        current: the run that this hospital is in. Invited to it again, the hospital stays in it with what it has: the
        data as they were read, the epochs it has seen. A plan that is not the coordinator's or not sound is a `Reject`.
        """
        invitation = Invitation.open(body, self.coordinator)
        plan = parse_plan(invitation.plan)
        index = self._own_index(plan)
        check_plan(plan)
        self.hear(invitation, plan, index)
        answer: Answer = "accept"
        admitted, code = None, ""
        try:
            known = current is not None and (current.run, current.plan) == (invitation.run, plan)
            admitted = self._again(current) if current and known else self._admit(invitation.run, plan, index)
        except PolicyRefusal as refusal:
            answer, code = "declined-policy", refusal.codes
            self.report("declined-policy", f"{refusal.codes.split()[0]}: {refusal}")
        except CameoError as error:
            if error.code == ROLLED_BACK:
                raise
            answer, code = "declined-local", error.code
            self.report(error.code, error.what)
        self.witness.admission(invitation.run, answer, code)
        stranger = NOT_APPROVED in code.split()  # it learns nothing of this ledger, nor of the others'
        admission = Admission(
            run=invitation.run,
            plan_id=bytes.fromhex(plan.plan_id()),
            answer=answer,
            head=b"" if stranger else self.head(),
            peers=() if stranger else self.peers.of(_known_to(invitation, plan) - {self._public()}),
        )
        return invitation.run, admitted, admission.seal(self.identity)

    def head(self) -> bytes:
        """How far the ledger is now, signed: what others shall say back."""
        now = self.ledger.head()
        dataset, audit = dataset_hash(self.ledger.dataset), self.witness.log.head()
        told = LedgerHead(dataset=dataset, entries=now.entries, last=now.hash, told=audit.told, audit=audit.last)
        return told.seal(self.identity)

    def check_policy(self, admitted: Admitted) -> None:
        """Hold the plan of a running run against the officer's policy as it is now, and keep that policy in the run.

        A plan that it refuses is a `Reject` "policy-stricter", which follows from no patient; a policy that cannot be
        read is an `OperatorError`. Either way nothing is answered.
        """
        admitted.policy = self.policy()
        try:
            self._check_policy(admitted.policy, admitted.plan)
        except PolicyRefusal as refusal:
            what = f"{refusal.codes}: the policy refuses this run now; {refusal}"
            raise Reject("policy-stricter", what=what) from None

    def hear(self, invitation: Invitation, plan: RunPlan, index: int) -> None:
        """Hold the ledger against every head of its data set that this hospital ever signed, and remember the others'.

        Also those that it signed with the keys that it had before, as the coordinator says: joining anew gives no
        budget back. Errors as in `check_echo`. An old head of another hospital is no error here, as the answer to the
        invitation says the newer one; a round with it is refused.
        """
        own, former = self._public(), invitation.former.get(index, ())
        for identity, head in invitation.heads:
            if identity == own:
                self._check_own(head)
            elif identity in former:
                self._check_former(LedgerHead.open(head, identity), identity)
        self.peers.remember(plan, (row for row in invitation.heads if row[0] != own))

    def check_echo(self, plan: RunPlan, index: int, heads: Mapping[int, bytes]) -> None:
        """Hold the ledger against the head that others have of it, theirs against what is remembered; remember them.

        heads: signed, by Shamir index. `OperatorError` "ledger-rolled-back" when this ledger is behind what this
        hospital signed once; a head in our name that we did not sign is a `Reject`, and so are heads of others that
        are old or left out ("peer-head-stale"). A head of a data set that this node no longer serves says nothing
        about this ledger.
        """
        if index in heads:
            self._check_own(heads[index])
        self.peers.check(plan, index, heads)
        keys = {site.index: bytes.fromhex(site.identity) for site in plan.cohort.sites if site.index != index}
        self.peers.remember(plan, ((keys[other], head) for other, head in heads.items() if other in keys))

    def keep_receipt(self, call: RoundCall, index: int) -> None:
        """Keep the coordinator's receipt for the head that this hospital told last; a forged one is a `Reject`."""
        if index in call.receipts:
            self.witness.keep_receipt(call.receipts[index], self.coordinator, self._public())

    def finish(self, body: bytes) -> str:
        """The coordinator says that a run ended without a result: what was reserved and not spent is free again."""
        run = open_finish(body, self.coordinator)
        self.ledger.close(run)
        return run

    def _check_own(self, head: bytes) -> None:
        echo = LedgerHead.open(head, self._public())
        if echo.dataset == dataset_hash(self.ledger.dataset):
            self.ledger.check_echo(echo.entries, echo.last)
        if self.witness.lacks(echo):
            self.report(LOG_CUT, "others have seen an entry of the audit log that is not in it any more")

    def _check_former(self, echo: LedgerHead, identity: bytes) -> None:
        if echo.dataset != dataset_hash(self.ledger.dataset):
            return
        try:
            self.ledger.check_echo(echo.entries, echo.last)
        except OperatorError as error:
            if error.code != ROLLED_BACK:
                raise
            raise OperatorError(
                ROLLED_BACK,
                what=f"{error.what}, when this hospital had the key {fingerprint(identity)}",
                do="bring the newest ledger.sqlite of the machine that it had then, or ask the data protection"
                " officer to retire this data set",
                exit=error.exit_code,
            ) from None

    def _public(self) -> bytes:
        return self.identity.public_key().public_bytes_raw()

    def _own_index(self, plan: RunPlan) -> int:
        own = self._public().hex()
        for site in plan.cohort.sites:
            if site.name == self.site and site.identity == own:
                return site.index
        raise Reject("not-invited", what="the plan's roster does not hold this hospital with its own key")

    def _again(self, current: Admitted) -> Admitted:
        current.policy = self.policy()
        self._check_policy(current.policy, current.plan)
        self._reserve(current.run, current.plan, current.policy)
        return current

    def _check_policy(self, policy: Policy, plan: RunPlan) -> None:
        refusals = check_coordinator(policy, self.coordinator) + check(policy, plan, plan.cohort)
        if refusals:
            codes = " ".join(dict.fromkeys(r.code for r in refusals))
            raise PolicyRefusal("; ".join(f"{r.code} ({r.field}): {r.what}" for r in refusals), codes)

    def _reserve(self, run: str, plan: RunPlan, policy: Policy) -> None:
        caps = Caps(dataset=policy.caps.epsilon_per_data_set, year=policy.caps.epsilon_per_year)
        self.ledger.reserve(run, plan.plan_id(), plan_releases(plan), caps)

    def _admit(self, run: str, plan: RunPlan, index: int) -> Admitted:
        policy = self.policy()
        self._check_policy(policy, plan)
        study = self.study(plan)
        for task in plan.trained():
            if task.encoded.dim != parameter_count(task, study.features):
                what = f"task {task.name} has another number of parameters than its model here"
                raise PolicyRefusal(what)
        contributor = Contributor(plan, study.patients, self.noise, self.random, run)
        contributor.warm_up(initial_model(plan, study.features).astype(np.float64))
        # Last: a decline leaves the ledger as it was, so its head does not tell how far the data came.
        self._reserve(run, plan, policy)
        return Admitted(run, plan, index, policy, self.ledger, contributor, study.features)
