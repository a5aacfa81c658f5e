"""Set-up of an epoch: three exchanges after which any R rounds can be summed."""

from __future__ import annotations

from cameo_protocol.secagg.messages import ShareMessage, pack, pack_shares, unpack_share_message

from cameo_protocol.epochs import epoch_params
from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_protocol.secagg import server as secagg
from cameo_protocol.stages import ADVERTISE, READY, SHARE, EpochCall
from cameo_server.run.admission import require_threshold
from cameo_server.run.party import Parties


def set_up(parties: Parties, run: str, epoch: int, rounds: int) -> tuple[secagg.Cohort, int]:
    """Set up an epoch with all active hospitals; whoever fails is dropped and the set-up starts again, with fresh keys.

    Returns the cohort and the number of the epoch that succeeded (each attempt uses a new one).
    Raises OperatorError "cohort-incomplete" when fewer than the threshold are left.
    """
    while True:
        require_threshold(parties, "answered the set-up")
        members = frozenset(parties.active)
        call = EpochCall(run=run, epoch=epoch, rounds=rounds, parties=tuple(sorted(members)))
        cohort = _attempt(parties, call)
        if cohort is not None:
            parties.store.event("epoch", epoch=epoch, rounds=rounds, sites=parties.names(members))
            return cohort, epoch
        epoch += 1


def _attempt(parties: Parties, call: EpochCall) -> secagg.Cohort | None:
    """One attempt; None when a hospital was lost or refused on the way (it is no longer active)."""
    setup = secagg.open_setup(epoch_params(parties.plan, call))
    indices = call.parties
    wait = parties.plan.deadlines.setup
    try:
        adverts = _gather(parties, ADVERTISE, {i: Packet(ADVERTISE, call.encode()) for i in indices}, wait)
        if adverts is None:
            return None
        advertised = secagg.collect_adverts(setup, {i: p.body for i, p in adverts.items()})
        packed = pack({i: p.body for i, p in adverts.items()})
        shares = _gather(parties, SHARE, {i: Packet(SHARE, packed) for i in indices}, wait)
        if shares is None:
            return None
        shared = secagg.collect_shares(advertised, _share_messages(shares))
        requests = {i: Packet(READY, pack_shares(*shared.for_party(i))) for i in indices}
        readies = _gather(parties, READY, requests, wait)
        if readies is None:
            return None
        return secagg.collect_readies(shared, {i: p.body for i, p in readies.items()})
    except secagg.PartyReject as error:
        parties.drop(error.party, "set-up", error.code, what=error.what)
        return None


def _gather(parties: Parties, stage: str, requests: dict[int, Packet], wait: float) -> dict[int, Packet] | None:
    answers = dict(parties.ask(stage, requests, wait))
    return answers if len(answers) == len(requests) else None


def _share_messages(packets: dict[int, Packet]) -> dict[int, ShareMessage]:
    messages = {}
    for index, packet in packets.items():
        try:
            messages[index] = unpack_share_message(packet.body)
        except Reject as error:
            raise secagg.PartyReject(error.code, what=error.what, party=index) from None
    return messages
