"""The secure sums of a run, one after the other: epochs under them, hospitals lost and taken back, and going on.

A run that goes on after a crash asks for the same sums in the same order. Those that had ended are replayed from disk,
the one that had begun is finished, and only then is anybody asked for a new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import OperatorError
from cameo_protocol.heads import countersign
from cameo_protocol.layout import RoundKind
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.stages import ADMIT, ERROR, ROLLED_BACK, EpochCall, RoundCall, error_code
from cameo_server.run.admission import invitation, read_admission, require_threshold
from cameo_server.run.epoch import set_up
from cameo_server.run.kept import Ended, Kept
from cameo_server.run.party import Parties
from cameo_server.run.record import RoundLog
from cameo_server.run.round import Opened, VoidRound, run_round
from cameo_server.run.training import block_norms

MAX_EPOCH_ROUNDS = 100
WORTH_A_NEW_EPOCH = 5
# While too few hospitals are there, those that are lost are looked for so often.
REGROUP_POLL_S = 0.5


@dataclass
class Rounds:
    """Carries rounds through, each under the next number. epoch_rounds: the most rounds that one key set-up covers."""

    parties: Parties
    run: str
    key: Ed25519PrivateKey
    epoch_rounds: int = MAX_EPOCH_ROUNDS

    def __post_init__(self) -> None:
        self._plan = self.parties.plan
        self._store = self.parties.store
        self._kept = Kept(self._store, self._plan)
        self._number = 0
        self._call: EpochCall | None = None
        self._epoch: Epoch | None = None
        self._used = 0
        self._invited: set[int] = set()
        self._returned: set[int] = set()
        self._told: set[int] = set()

    @property
    def number(self) -> int:
        """How many rounds there were, void ones included."""
        return self._number

    def admitted(self) -> None:
        """Admission is over: who takes part is on disk."""
        self._kept.keep_taking_part(self.parties.active, self.parties.declined)

    def go_on(self) -> bool:
        """Take up a run whose admission was over when its coordinator died; False when there is none to take up."""
        found = self._kept.taking_part()
        if found is None:
            return False
        self.parties.active, self.parties.declined = found
        newest = self._kept.newest_epoch()
        if newest is not None:
            self._call, self._epoch = newest
        if self._epoch is not None:
            self._expect(self._epoch.cohort.members)
        self._told = {event["round"] for event in self._store.events() if event["event"] in ("round", "void")}
        return True

    def sum(self, kind: RoundKind, step: int, parameters: bytes, remaining: int) -> Opened | None:
        """One secure sum; None when the round was void. remaining: rounds that the run may still ask for, this one too.

        `OperatorError` "cohort-incomplete" when too few hospitals are there, after waiting for those that were lost.
        """
        self._number += 1
        ended = self._kept.outcome(self._number)
        if ended is None:
            ended = self._carry(kind, step, parameters, remaining)
            self._kept.keep_outcome(self._number, ended)
        else:
            self._replay(ended, kind, step)
        if self._number not in self._told:
            self._tell(ended)
        return ended.outcome if isinstance(ended.outcome, Opened) else None

    def _carry(self, kind: RoundKind, step: int, parameters: bytes, remaining: int) -> Ended:
        log = self._kept.log(self._number)
        begun = log.first("call")
        if begun is None:
            epoch, call = self._next(kind, step, remaining)
        else:
            epoch, call = self._begun(begun.body)
        self._used = call.round_no + 1
        outcome = run_round(self.parties, epoch, call, parameters, RoundLog(log.path))
        if isinstance(outcome, Opened):
            self.parties.active |= outcome.helpers
        self._invite_the_lost()
        return Ended(call, outcome, frozenset(self.parties.active))

    def _next(self, kind: RoundKind, step: int, remaining: int) -> tuple[Epoch, RoundCall]:
        epoch = self._epoch_for_a_round(remaining)
        invited, heads = tuple(sorted(self.parties.active)), self.parties.heads.all()
        call = RoundCall(
            run=self.run,
            epoch=epoch.cohort.params.epoch,
            round_no=self._used,
            kind=kind,
            step=step,
            invited=invited,
            heads=heads,
            receipts={index: countersign(self.key, head) for index, head in heads.items()},
        )
        return epoch, call

    def _begun(self, body: bytes) -> tuple[Epoch, RoundCall]:
        """The round in which the coordinator died: it goes on with those that it had invited."""
        call = RoundCall.decode(body)
        if self._epoch is None or self._epoch.cohort.params.epoch != call.epoch:
            raise self._foreign()
        self._expect(call.invited)
        return self._epoch, call

    def _replay(self, ended: Ended, kind: RoundKind, step: int) -> None:
        call = ended.call
        if (call.run, call.kind, call.step) != (self.run, kind, step):
            raise self._foreign()
        self._kept.log(self._number).delete()
        if self._epoch is not None and call.epoch == self._epoch.cohort.params.epoch:
            self._used = call.round_no + 1
            self._expect(ended.active)
        elif self._epoch is None:
            self._expect(ended.active)

    def _expect(self, hospitals: Iterable[int]) -> None:
        """After a restart: these may answer, as far as is known; those that declined or were revoked are not asked."""
        self.parties.active = set(hospitals) - self.parties.declined

    def _foreign(self) -> OperatorError:
        return OperatorError(
            "run-unreadable",
            what=f"round {self._number} of run {self.run} on disk is not the one that this plan comes to",
            do="restore the run's folder from a backup, or start a new run: cameo run",
        )

    def _tell(self, ended: Ended) -> None:
        call, outcome = ended.call, ended.outcome
        seconds: dict[str, Any] = {"seconds": outcome.seconds, "total_seconds": sum(outcome.seconds.values())}
        common = {"kind": call.kind, "step": call.step, "epoch": call.epoch, "round": self._number, **seconds}
        invited = self.parties.names(call.invited)
        if isinstance(outcome, VoidRound):
            self._store.event("void", **common, invited=invited, reason=outcome.reason)
            return
        norms = block_norms(self._plan, outcome.total) if call.kind == "train" else {}
        survivors = self.parties.names(outcome.survivors)
        self._store.event("round", **common, invited=invited, survivors=survivors, norms=norms)

    # --- epochs -----------------------------------------------------------------------------------------------

    def _epoch_for_a_round(self, remaining: int) -> Epoch:
        """An epoch with a round left and enough hospitals that are in it and there; a new one where that is due."""
        while True:
            self._gather(remaining)
            if self._epoch is not None and self._call is not None and self._used < self._call.rounds:
                return self._epoch
            self._call = EpochCall(
                run=self.run,
                epoch=self._call.epoch + 1 if self._call else 1,
                rounds=min(remaining, self.epoch_rounds),
                parties=tuple(sorted(self.parties.active)),
            )
            self._epoch, self._used = set_up(self.parties, self._call, self._kept), 0

    # --- hospitals that come back -------------------------------------------------------------------------------

    def _gather(self, remaining: int) -> None:
        """Take in who came back. With too few hospitals there, wait for lost ones, as long as the plan says."""
        self._take_back(remaining)
        parties, limit = self.parties, self._plan.deadlines.regroup
        lost = parties.nodes.keys() - parties.active - parties.declined
        if len(parties.active) >= parties.least or not lost:
            require_threshold(parties, "are left")
            return
        self._store.event("waiting", sites=parties.names(lost), seconds=limit, needed=parties.least)
        until = parties.clock() + limit
        while len(parties.active) < parties.least and parties.clock() < until and not self._store.stop_asked():
            parties.pause(REGROUP_POLL_S)
            self._take_back(remaining)
        require_threshold(parties, "are left")

    def _invite_the_lost(self) -> None:
        """Leave a fresh invitation for every hospital that was lost; it answers when it is there again."""
        parties = self.parties
        lost = parties.nodes.keys() - parties.active - parties.declined - self._invited
        if lost:
            parties.post(dict.fromkeys(sorted(lost), invitation(parties, self.run, self.key)))
            self._invited |= lost

    def _take_back(self, remaining: int) -> None:
        """Start a new epoch with hospitals that answered a late invitation, where it is worth it or needed."""
        self._invite_the_lost()
        for index, packet in self.parties.collect():
            self._invited.discard(index)
            if packet.kind == ADMIT and read_admission(self.parties, self.run, index, packet):
                self._returned.add(index)
            elif packet.kind == ERROR and error_code(packet.body) == ROLLED_BACK:
                self._store.event("refused", site=self.parties.names([index])[0], code=ROLLED_BACK)
                self.parties.declined.add(index)
        self._returned -= self.parties.active | self.parties.declined
        short = len(self.parties.active) < self.parties.least
        if self._returned and (short or remaining >= WORTH_A_NEW_EPOCH):
            self._store.event("returned", sites=self.parties.names(self._returned))
            self.parties.active |= self._returned
            self._returned.clear()
            self._epoch = None
