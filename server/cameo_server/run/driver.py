"""Drives a run from the first invitation to the published models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.layout import RoundKind
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.stages import ADMIT, FINISH, PUBLISH, RoundCall, finish_body
from cameo_server.run.admission import admit, invitation, read_admission, require_threshold
from cameo_server.run.epoch import set_up
from cameo_server.run.party import Parties
from cameo_server.run.publication import findings, publication
from cameo_server.run.round import Opened, VoidRound, run_round
from cameo_server.run.store import CHECKPOINT
from cameo_server.run.training import Models, block_norms

MAX_EPOCH_ROUNDS = 100
WORTH_A_NEW_EPOCH = 5
FINISH_WAIT = 5.0


@dataclass
class RunDriver:
    """One run over the hospitals of `parties`.

    key: the coordinator's plan-signing key. features: model inputs of the plan's catalogue. versions: software
    versions for the model card.
    """

    parties: Parties
    run: str
    key: Ed25519PrivateKey
    features: int
    versions: dict[str, str]

    def __post_init__(self) -> None:
        self._plan: RunPlan = self.parties.plan
        self._store = self.parties.store
        self._setup: Epoch | None = None
        self._epoch = 0
        self._epoch_rounds = 0
        self._round = 0
        self._left_in_epoch = 0
        self._charged = 0
        self._returned: set[int] = set()

    def execute(self) -> None:
        """The whole run. Ends with the event "published", or with "stopped" and the error that stopped it.

        Whatever happens, hospitals that can be reached are told the end, so that they free what was reserved.
        """
        try:
            self._store.event("start", run=self.run, plan_id=self._plan.plan_id(), name=self._plan.name)
            admit(self.parties, self.run, self.key)
            models = self._train(Models.initial(self._plan, self.features))
            self._publish(models)
        except CameoError as error:
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
                self._checkpoint(step, models, opened)
        return models

    def _checkpoint(self, step: int, models: Models, opened: Opened) -> None:
        self._store.save_arrays(f"opening-{self._round:04d}.npz", {"total": opened.total})
        self._store.save_arrays(CHECKPOINT, {**models.to_arrays(), "run/step": np.array([step, self._round])})
        result = np.frombuffer(models.result(self._plan), dtype="<f4")
        self._store.save_arrays(f"model-{step:04d}.npz", {"parameters": result})

    def _sum(self, kind: RoundKind, step: int, parameters: bytes) -> Opened | None:
        """One secure sum, with a new epoch before it where one is due; None when the round was void."""
        self._take_back_the_returned()
        epoch = self._epoch_for_a_round()
        require_threshold(self.parties, "are left")
        call = RoundCall(
            run=self.run,
            epoch=self._epoch,
            round_no=self._next_in_epoch(),
            kind=kind,
            step=step,
            invited=tuple(sorted(self.parties.active)),
        )
        before = set(self.parties.active)
        outcome = run_round(self.parties, epoch, call, parameters)
        self._left_in_epoch -= 1
        self._round += 1
        self._record(kind, call, outcome)
        for index in sorted(before - self.parties.active):
            self._invite_back(index)
        return outcome if isinstance(outcome, Opened) else None

    def _record(self, kind: RoundKind, call: RoundCall, outcome: Opened | VoidRound) -> None:
        seconds: dict[str, Any] = {"seconds": outcome.seconds, "total_seconds": sum(outcome.seconds.values())}
        common = {"kind": kind, "step": call.step, "epoch": call.epoch, "round": self._round, **seconds}
        invited = self.parties.names(call.invited)
        if isinstance(outcome, VoidRound):
            self._store.event("void", **common, invited=invited, reason=outcome.reason)
            return
        norms = block_norms(self._plan, outcome.total) if kind == "train" else {}
        survivors = self.parties.names(outcome.survivors)
        self._store.event("round", **common, invited=invited, survivors=survivors, norms=norms)

    # --- epochs -----------------------------------------------------------------------------------------------

    def _remaining(self) -> int:
        """How many rounds the run may still ask for."""
        plan = self._plan
        training = plan.training.rounds + plan.training.spare - max(self._charged - 1, 0)
        return training + plan.rounds_of("recalibrate") + plan.rounds_of("evaluate")

    def _epoch_for_a_round(self) -> Epoch:
        if self._setup is None or self._left_in_epoch == 0:
            rounds = min(self._remaining(), MAX_EPOCH_ROUNDS)
            self._setup, self._epoch = set_up(self.parties, self.run, self._epoch + 1, rounds)
            self._left_in_epoch = self._epoch_rounds = rounds
        return self._setup

    def _next_in_epoch(self) -> int:
        return self._epoch_rounds - self._left_in_epoch

    # --- hospitals that come back -------------------------------------------------------------------------------

    def _invite_back(self, index: int) -> None:
        """Leave a fresh invitation for a hospital that was lost; it answers when it is there again."""
        self.parties.post({index: invitation(self.parties, self.run, self.key)})

    def _take_back_the_returned(self) -> None:
        """Start a new epoch with hospitals that answered a late invitation, where it is worth it or needed."""
        for index, packet in self.parties.collect():
            if packet.kind == ADMIT and read_admission(self.parties, self.run, index, packet):
                self._returned.add(index)
        short = len(self.parties.active) < max(self._plan.cohort.threshold, 3)
        if self._returned and (short or self._remaining() >= WORTH_A_NEW_EPOCH):
            self._store.event("returned", sites=self.parties.names(self._returned))
            self.parties.active |= self._returned
            self._returned.clear()
            self._setup = None

    # --- the end ------------------------------------------------------------------------------------------------

    def _publish(self, models: Models) -> None:
        parameters = models.result(self._plan)
        opened = None
        if self._plan.rounds_of("evaluate"):
            opened = self._sum("evaluate", self._plan.training.rounds, parameters)
        figures = findings(self._plan, opened)
        self._store.event("evaluated", figures=figures)
        message = publication(self._plan, self.run, self.features, parameters, figures, self.versions)
        for name, bundle in message.models.items():
            self._store.save_bytes(f"{name}.safetensors", bundle)
        self._store.save_bytes("card.json", message.card)
        stored = self._tell_all(Packet(PUBLISH, message.seal(self.key)), self._plan.deadlines.stage)
        self._store.event("published", stored=stored, traffic=asdict(self.parties.traffic))

    def _finish(self) -> None:
        told = self._tell_all(Packet(FINISH, finish_body(self.key, self.run)), FINISH_WAIT)
        self._store.event("finished", told=told, traffic=asdict(self.parties.traffic))

    def _tell_all(self, packet: Packet, deadline: float) -> list[str]:
        """Tell the active hospitals and wait for their answers; leave the message for those that were lost."""
        self.parties.post({i: packet for i in self.parties.nodes if i not in self.parties.active})
        requests = dict.fromkeys(sorted(self.parties.active), packet)
        return self.parties.names([i for i, _ in self.parties.ask(packet.kind, requests, deadline)])
