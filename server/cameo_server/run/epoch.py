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
from cameo_server.run.kept import Kept, SetupMessages
from cameo_server.run.party import Parties


def set_up(parties: Parties, call: EpochCall, kept: Kept) -> Epoch | None:
    """One attempt to set up an epoch with the hospitals of `call`; it is on disk before it is used.

    None when a hospital was lost or refused on the way: it is no longer active. The next attempt is another epoch,
    with another number and fresh keys.
    """
    kept.keep_epoch_call(call)
    try:
        found = _attempt(parties, call)
    except PartyFault as error:
        parties.drop(error.party, "set-up", error.code, what=error.what)
        return None
    if found is None:
        return None
    epoch, messages = found
    kept.keep_epoch(call, messages)
    sites = parties.names(epoch.cohort.members)
    parties.store.event("epoch", epoch=call.epoch, rounds=call.rounds, sites=sites)
    return epoch


def _attempt(parties: Parties, call: EpochCall) -> tuple[Epoch, SetupMessages] | None:
    wait = parties.plan.deadlines.setup
    invited = {i: Packet(ADVERTISE, call.encode()) for i in call.parties}
    adverts = {i: p.body for i, p in parties.ask(ADVERTISE, invited, wait)}
    if len(adverts) < parties.least:
        return None
    advertised = collect_adverts(open_setup(epoch_params(parties.plan, call)), adverts)
    answers = _all(parties, SHARE, {i: Packet(SHARE, pack(adverts)) for i in adverts}, wait)
    if answers is None:
        return None
    envelopes, boxes = _share_messages(answers)
    shared = collect_shares(advertised, envelopes, boxes)
    deliveries = {
        i: Packet(READY, pair(pack(delivery.envelopes), pack(delivery.boxes)))
        for i, delivery in shared.deliveries.items()
    }
    readies = _all(parties, READY, deliveries, wait)
    if readies is None:
        return None
    return collect_readies(shared, readies), SetupMessages(adverts, envelopes, readies)


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
