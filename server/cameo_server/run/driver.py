"""Drives a run from the first invitation to the published models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_models.numbering import Numbering
from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.layout import RoundKind
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.stages import FINISH, PUBLISH, finish_body
from cameo_server.run.admission import admit
from cameo_server.run.findings import Correction, corrected, corrections, corrections_card, findings
from cameo_server.run.numbering import in_order, settle_numbers
from cameo_server.run.party import Parties
from cameo_server.run.publication import publication
from cameo_server.run.release_gate import Audit
from cameo_server.run.round import Opened
from cameo_server.run.rounds import MAX_EPOCH_ROUNDS, Rounds
from cameo_server.run.store import CHECKPOINT
from cameo_server.run.training import Models

FINISH_WAIT = 5.0
ORDER: tuple[RoundKind, ...] = ("train", "recalibrate", "evaluate")
# What stops the coordinator but not the run: once it is mended, the run goes on.
GOES_ON = frozenset({"disk-write", "disk-read", "run-busy", "superlink-unreachable", "coordinator-not-started"})


@dataclass
class RunDriver:
    """One run over the hospitals of `parties`.

    key: the coordinator's plan-signing key. features: model inputs of the plan's catalogue. versions: software
    versions for the model card. members: indices of the plan's hospitals that are still in the roster, asked before
    every round. audit: the audit that lets this plan run and its models out, or an `OperatorError`; asked before the
    first hospital is, and again before anything is published. epoch_rounds: the most rounds that one key set-up covers.
    """

    parties: Parties
    run: str
    key: Ed25519PrivateKey
    features: int
    versions: dict[str, str]
    members: Callable[[], frozenset[int]]
    audit: Callable[[], Audit]
    epoch_rounds: int = MAX_EPOCH_ROUNDS

    def __post_init__(self) -> None:
        self._plan: RunPlan = self.parties.plan
        self._store = self.parties.store
        self._rounds = Rounds(self.parties, self.run, self.key, self.epoch_rounds)
        self._charged = 0

    def execute(self) -> None:
        """The whole run, or the rest of one whose coordinator died: rounds that ended are not asked for again.

        Ends with the event "published", or with "stopped" and the error that stopped it. Hospitals that can be reached
        are then told the end, so that they free what was reserved; not where the run can still go on.
        """
        try:
            if not self._rounds.go_on():
                self._store.event("start", run=self.run, plan_id=self._plan.plan_id(), name=self._plan.name)
                self.audit()
                admit(self.parties, self.run, self.key)
                self._rounds.admitted()
            else:
                self._store.event("resumed", run=self.run)
            models = self._train(Models.initial(self._plan, self.features))
            self._publish(models)
        except CameoError as error:
            if error.code in GOES_ON:
                raise
            self._store.event("stopped", code=error.code, what=error.what, do=error.do)
            self._finish()
            raise

    def _train(self, models: Models) -> Models:
        budget = self._plan.training.rounds + self._plan.training.spare
        step = 0
        while step < self._plan.training.rounds:
            if self._charged >= budget:
                raise OperatorError(
                    "spare-rounds-spent",
                    what=f"{self._charged} rounds are charged, {step} of {self._plan.training.rounds} opened",
                    do="find out why rounds were void (events.jsonl), then start a new run: cameo run",
                    exit=ExitCode.PEER,
                )
            self._charged += 1
            opened = self._sum("train", step, models.broadcast(self._plan))
            if opened is not None:
                models = models.after(self._plan, opened.total)
                step += 1
                self._checkpoint(step, models)
        return models

    def _checkpoint(self, step: int, models: Models) -> None:
        """The model after a step; a replayed step has left it already."""
        name = f"model-{step:04d}.npz"
        if (self._store.folder / name).exists():
            return
        numbers = np.array([step, self._rounds.number])
        self._store.save_arrays(CHECKPOINT, {**models.to_arrays(), "run/step": numbers})
        result = np.frombuffer(models.result(self._plan), dtype="<f4")
        self._store.save_arrays(name, {"parameters": result})

    def _heed_people(self) -> None:
        """Stop when somebody asked for it, and leave out hospitals that were revoked: before every round."""
        if self._store.stop_asked():
            raise OperatorError("stopped-by-operator", what="somebody stopped the run", do="start a new run: cameo run")
        for index in sorted(self.parties.nodes.keys() - self.members()):
            self.parties.drop(index, "round", "revoked")
            self.parties.declined.add(index)  # also one that was lost already: it is not waited for

    def _sum(self, kind: RoundKind, step: int, parameters: bytes) -> Opened | None:
        """One secure sum; None when the round was void."""
        self._heed_people()
        return self._rounds.sum(kind, step, parameters, self._remaining(kind))

    def _remaining(self, kind: RoundKind) -> int:
        """How many rounds the run may still ask for, with the one of this kind that comes now."""
        plan = self._plan
        now = plan.training.rounds + plan.training.spare - self._charged + 1 if kind == "train" else 1
        later = ORDER[ORDER.index(kind) + 1 :]
        return now + sum(plan.rounds_of(other) for other in later)

    # --- the end ------------------------------------------------------------------------------------------------

    def _publish(self, models: Models) -> None:
        audit = self.audit()
        parameters, corrections = self._recalibrate(models.result(self._plan))
        opened = None
        if self._plan.rounds_of("evaluate"):
            opened = self._sum("evaluate", self._plan.training.rounds, parameters)
        figures = findings(self._plan, opened)
        self._store.event("evaluated", figures=figures)
        parameters, segments = self._number(parameters)
        message = publication(
            self._plan, self.run, self.features, parameters, figures, self.versions, corrections, audit.card(), segments
        )
        for name, bundle in message.models.items():
            self._store.save_bytes(f"{name}.safetensors", bundle)
        self._store.save_bytes("card.json", message.card)
        stored = self._tell_all(Packet(PUBLISH, message.seal(self.key)), self._plan.deadlines.stage)
        self._store.event("published", stored=stored, traffic=asdict(self.parties.traffic))

    def _recalibrate(self, parameters: bytes) -> tuple[bytes, dict[str, Correction]]:
        """The parameters that are evaluated and published: corrected where the plan asks for it and noise allows."""
        if not self._plan.rounds_of("recalibrate"):
            return parameters, {}
        opened = self._sum("recalibrate", self._plan.training.rounds, parameters)
        found = corrections(self._plan, opened)
        self._store.event("recalibrated", corrections=corrections_card(found))
        return corrected(self._plan, self.features, parameters, found), found

    def _number(self, parameters: bytes) -> tuple[bytes, Mapping[str, Numbering]]:
        """Give the segments their numbers: the parameters in that order, and what the card says of it."""
        now = datetime.now(UTC).replace(microsecond=0)
        found = settle_numbers(self._store, self._plan, self.features, parameters, now)
        return in_order(self._plan, self.features, parameters, found.orders), found.card

    def _finish(self) -> None:
        told = self._tell_all(Packet(FINISH, finish_body(self.key, self.run)), FINISH_WAIT)
        self._store.event("finished", told=told, traffic=asdict(self.parties.traffic))

    def _tell_all(self, packet: Packet, deadline: float) -> list[str]:
        """Tell the active hospitals and wait for their answers; leave the message for those that were lost."""
        self.parties.post({i: packet for i in self.parties.nodes if i not in self.parties.active})
        requests = dict.fromkeys(sorted(self.parties.active), packet)
        return self.parties.names([i for i, _ in self.parties.ask(packet.kind, requests, deadline)])
