"""Set-up of an epoch: three exchanges after which any R rounds can be summed."""

from __future__ import annotations

from collections.abc import Mapping

from cameo_protocol.epochs import epoch_params
from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.secagg.server_setup import Epoch, collect_adverts, collect_readies, collect_shares, open_setup
from cameo_protocol.stages import ADVERTISE, MAX_SETUP_ITEM, READY, SHARE, EpochCall, pair, unpair
from cameo_server.run.admission import require_threshold
from cameo_server.run.party import Parties


def set_up(parties: Parties, run: str, number: int, rounds: int) -> tuple[Epoch, int]:
    """Set up an epoch with all active hospitals; whoever fails is dropped and set-up starts again, with fresh keys.

    Returns the epoch and the number under which it succeeded (each attempt takes a new one).
    Raises OperatorError "cohort-incomplete" when fewer than the threshold are left.
    """
    while True:
        require_threshold(parties, "answered the set-up")
        call = EpochCall(run=run, epoch=number, rounds=rounds, parties=tuple(sorted(parties.active)))
        epoch = _attempt(parties, call)
        if epoch is not None:
            parties.store.event("epoch", epoch=number, rounds=rounds, sites=parties.names(epoch.cohort.members))
            return epoch, number
        number += 1


def _attempt(parties: Parties, call: EpochCall) -> Epoch | None:
    """One attempt; None when a hospital was lost or refused on the way (it is no longer active)."""
    wait = parties.plan.deadlines.setup
    try:
        invited = {i: Packet(ADVERTISE, call.encode()) for i in call.parties}
        adverts = {i: p.body for i, p in parties.ask(ADVERTISE, invited, wait)}
        require_threshold(parties, "answered the set-up")
        advertised = collect_adverts(open_setup(epoch_params(parties.plan, call)), adverts)
        answers = _all(parties, SHARE, {i: Packet(SHARE, pack(adverts)) for i in adverts}, wait)
        if answers is None:
            return None
        shared = collect_shares(advertised, *_share_messages(answers))
        deliveries = {
            i: Packet(READY, pair(pack(delivery.envelopes), pack(delivery.boxes)))
            for i, delivery in shared.deliveries.items()
        }
        readies = _all(parties, READY, deliveries, wait)
        return None if readies is None else collect_readies(shared, readies)
    except PartyFault as error:
        parties.drop(error.party, "set-up", error.code, what=error.what)
        return None


def _all(parties: Parties, stage: str, requests: Mapping[int, Packet], wait: float) -> dict[int, bytes] | None:
    answers = {i: p.body for i, p in parties.ask(stage, requests, wait)}
    return answers if len(answers) == len(requests) else None


def _share_messages(answers: Mapping[int, bytes]) -> tuple[dict[int, bytes], dict[int, Mapping[int, bytes]]]:
    """Dealer -> its signed envelope, and dealer -> receiver -> box."""
    envelopes: dict[int, bytes] = {}
    boxes: dict[int, Mapping[int, bytes]] = {}
    for dealer, body in answers.items():
        try:
            envelopes[dealer], packed = unpair(body)
            boxes[dealer] = unpack(packed, max_item_bytes=MAX_SETUP_ITEM)
        except Reject as error:
            raise PartyFault(error.code, dealer, what=error.what) from None
    return envelopes, boxes
