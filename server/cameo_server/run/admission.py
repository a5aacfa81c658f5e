"""Admission: every hospital is asked whether it takes part, and says only accept or one of two declines."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import ExitCode, OperatorError, Reject
from cameo_protocol.packet import Packet
from cameo_protocol.stages import ADMIT, Admission, Invitation
from cameo_server.run.party import Parties

# A hospital that is not connected yet is asked again after so many seconds, until the deadline.
RETRY_S = 0.5


def invitation(parties: Parties, run: str, key: Ed25519PrivateKey) -> Packet:
    """The signed invitation to this run."""
    heads = parties.heads
    asked = Invitation(run=run, plan=parties.plan.canonical(), heads=heads.rows(), former=heads.former)
    return Packet(ADMIT, asked.seal(key))


def read_admission(parties: Parties, run: str, index: int, packet: Packet) -> bool:
    """Whether a hospital's signed answer is an acceptance; records it. A forged answer counts as none."""
    name = parties.names([index])[0]
    try:
        admission = Admission.open(packet.body, parties.identity(index))
        if admission.run != run or admission.plan_id.hex() != parties.plan.plan_id():
            raise Reject("plan-foreign", what="the answer names another run or plan")
    except Reject as error:
        parties.drop(index, ADMIT, error.code)
        return False
    parties.take_heads({index: admission.head}, admission.peers)
    parties.store.event("admission", site=name, answer=admission.answer)
    if admission.answer != "accept":
        parties.declined.add(index)
    return admission.answer == "accept"


def admit(parties: Parties, run: str, key: Ed25519PrivateKey) -> None:
    """Invite all hospitals of the plan; `parties.active` becomes those that accepted.

    Raises OperatorError "cohort-incomplete" (exit 7) when fewer than the threshold accept.
    """
    until = parties.clock() + parties.plan.deadlines.admit
    waiting, accepted = set(parties.nodes), set()
    while waiting:
        left = until - parties.clock()
        packet = invitation(parties, run, key)  # anew each time: heads that were told meanwhile go along
        parties.active = set(parties.nodes)
        for index, answer in parties.ask(ADMIT, dict.fromkeys(waiting, packet), left, drop_silent=False):
            waiting.discard(index)
            if read_admission(parties, run, index, answer):
                accepted.add(index)
        waiting &= parties.active
        if waiting and parties.clock() + RETRY_S >= until:
            for index in waiting:
                parties.drop(index, ADMIT, "no-answer")
            break
        if waiting:
            parties.pause(RETRY_S)
    parties.active = accepted
    require_threshold(parties, "take part")


def require_threshold(parties: Parties, doing: str) -> None:
    """Stop the run when fewer hospitals than the threshold are left."""
    need = parties.least
    if len(parties.active) < need:
        raise OperatorError(
            "cohort-incomplete",
            what=f"{len(parties.active)} of {len(parties.nodes)} hospitals {doing}; at least {need} are needed",
            do=f"see who was lost or declined: cameo watch {parties.store.folder.name}, and who is connected: "
            "cameo site list; call them, then start a new run: cameo run",
            exit=ExitCode.PEER,
        )
