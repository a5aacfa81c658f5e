"""Twenty ways in which a coordinator with c hospitals on its side may deviate, each refused by honest hospitals.

Each deviation drives honest hospitals through `World.refused`, which demands a `Reject` with one of the named codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from malicious_world import World, outsider
from secagg_parties import MODEL, MemoryJournal, identity, stream, vectors

from cameo_protocol import envelope
from cameo_protocol.secagg import client_round, client_setup, messages
from cameo_protocol.secagg.boxes import new_key_pair
from cameo_protocol.secagg.params import RoundStart
from cameo_protocol.secagg.transcript import expected_advert

OTHER_MODEL = bytes(32)


def other_model(w: World) -> None:
    """One hospital trains on another model than the rest."""
    fed = w.federation()
    good = fed.start()
    ups = w.uploads(fed, {i: replace(good, model_hash=OTHER_MODEL) if i == w.victim else good for i in w.members})
    for i in w.honest:
        headers = {j: ups[j][1] for j in w.members} | w.colluding_headers(fed, ups[i][0].start)
        w.refused("context-differs", client_round.acknowledge, fed.lives[i], ups[i][0], headers)


def other_invited_set(w: World) -> None:
    """One hospital is told that somebody was not invited."""
    fed = w.federation()
    small = fed.start(invited=set(w.members) - {w.rng.choice(w.colluders)})
    ups = w.uploads(fed, {i: small if i == w.victim else fed.start() for i in w.honest})
    for i in w.honest:
        headers = {j: ups[j][1] for j in w.honest} | w.colluding_headers(fed, ups[i][0].start)
        w.refused("invited-differs", client_round.acknowledge, fed.lives[i], ups[i][0], headers)


def other_cohort(w: World) -> None:
    """One hospital sets up with fewer peers than the rest."""
    states, adverts = w.adverts()
    gone = w.rng.choice([i for i in w.members if i != w.victim])
    less = {i: e for i, e in adverts.items() if i != gone}
    groups = {i: less if i == w.victim else adverts for i in w.members}
    second = {i: client_setup.share(states[i], groups[i], stream((w.seed, i))) for i in w.members}
    for i in w.honest:
        boxes = {j: second[j][1].boxes.get(i, b"") for j in groups[i] if j != i}
        sent = {j: second[j][1].envelope for j in groups[i]}
        w.refused("transcript-foreign", client_setup.ready, second[i][0], sent, boxes, MemoryJournal())


def other_survivor_list(w: World) -> None:
    """Every honest hospital is shown another survivor set; the colluders acknowledge all of them."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    acked = {}
    for i, gone in zip(w.honest, w.rng.sample(w.members, len(w.honest)), strict=True):
        acked |= w.acks(fed, ups, set(w.members) - {gone}, [i])
    for i in w.honest:
        own = {i: acked[i][1]} | w.colluding_acks(fed, acked[i][0])
        mixed = {j: ack for j, (_, ack) in acked.items()} | own
        w.refused("ack-of-another-set", w.reveal, fed, i, acked[i][0], mixed)
        w.refused("quorum-too-small", w.reveal, fed, i, acked[i][0], own)


def both_shares(w: World) -> None:
    """After the reveal of b shares, the victim is declared lost, so that its c shares would be due."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    acked = w.acks(fed, ups, w.members, w.members)
    acks = {i: ack for i, (_, ack) in acked.items()}
    less = {i: ups[i][1] for i in w.members if i != w.victim}
    for i in w.honest:
        w.refused("already-acknowledged", client_round.acknowledge, fed.lives[i], ups[i][0], less)
        w.reveal(fed, i, acked[i][0], acks)
        w.refused("round-over", w.reveal, fed, i, acked[i][0], acks)
        w.refused("round-spent", client_round.acknowledge, fed.lives[i], fed.start(), less)


def replay(w: World) -> None:
    """Headers, acks and the start of the round before."""
    fed = w.federation()
    old_ups = w.uploads(fed, dict.fromkeys(w.members, fed.start(0)))
    old = w.acks(fed, old_ups, w.members, w.members)
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start(1)))
    old_acks = {i: ack for i, (_, ack) in old.items()}
    mixed = {i: (old_ups if i == w.victim else ups)[i][1] for i in w.members}
    for i in w.honest:
        w.refused("round-foreign", client_round.acknowledge, fed.lives[i], ups[i][0], mixed)
    acked = w.acks(fed, ups, w.members, w.members)
    for i in w.honest:
        w.refused("round-foreign", w.reveal, fed, i, acked[i][0], old_acks)
        w.refused("round-over", w.reveal, fed, i, old[i][0], old_acks)
        w.refused("round-spent", client_round.upload, fed.lives[i], fed.start(0), vectors([i], 5)[i])


def old_epoch(w: World) -> None:
    """Adverts, headers and acks of the epoch before."""
    old, new = w.federation(), w.federation(replace(w.params, epoch=1))
    stale = w.uploads(old, dict.fromkeys(w.members, old.start()))
    acks = {i: ack for i, (_, ack) in w.acks(old, stale, w.members, w.honest).items()}
    state, _ = client_setup.advertise(new.params, w.victim, identity(w.victim), stream("x"))
    w.refused("epoch-foreign", client_setup.share, state, old.adverts, stream("y"))
    ups = w.uploads(new, dict.fromkeys(w.members, new.start()))
    headers = {i: stale[i][1] for i in w.members}
    for i in w.honest:
        w.refused("transcript-foreign", client_round.acknowledge, new.lives[i], ups[i][0], headers)
        acked = w.acks(new, ups, w.members, [i])[i][0]
        w.refused("transcript-foreign", w.reveal, new, i, acked, w.colluding_acks(new, acked) | acks)


def swapped_keys(w: World) -> None:
    """The attacker's own public keys, or an older advert, under the victim's name; a colluder copies the victim's."""
    states, adverts = w.adverts()
    bad, ours = w.colluders[0], new_key_pair(stream("attacker"))
    forged = messages.seal(outsider(), expected_advert(w.params, w.victim, ours.mlkem, ours.x25519))
    body = envelope.unverified_body(adverts[w.victim], max_bytes=4096)
    copied = messages.seal(identity(bad), expected_advert(w.params, bad, body["mlkem"], body["x25519"]))
    older = client_setup.advertise(w.params, w.victim, identity(w.victim), stream("older"))[1]
    for i in w.honest:
        w.refused("signature-invalid", client_setup.share, states[i], adverts | {w.victim: forged}, stream(1))
        w.refused("key-reused", client_setup.share, states[i], adverts | {bad: copied}, stream(1))
    w.refused("own-advert-differs", client_setup.share, states[w.victim], adverts | {w.victim: older}, stream(1))


def swapped_boxes(w: World) -> None:
    """Another dealer's box, a box for another receiver, a shortened box, other shares under our name."""
    second = w.dealt()
    sent = {j: m.envelope for j, (_, m) in second.items()}
    a, b = w.rng.sample([i for i in w.members if i != w.victim], 2)
    boxes = {j: second[j][1].boxes[w.victim] for j in w.members if j != w.victim}
    state = second[w.victim][0]
    for bad in (boxes[b], second[a][1].boxes[b], boxes[a][:-1]):
        w.refused("box-swapped", client_setup.ready, state, sent, boxes | {a: bad}, MemoryJournal())
    again = w.dealt()[w.victim][1].envelope
    w.refused("own-shares-differ", client_setup.ready, state, sent | {w.victim: again}, boxes, MemoryJournal())


def truncated_sets(w: World) -> None:
    """Fewer adverts, shares, survivors or acks than are due."""
    states, adverts = w.adverts()
    w.refused("cohort-too-small", client_setup.share, states[w.victim], {w.victim: adverts[w.victim]}, stream(1))
    second = w.dealt()
    sent = {j: m.envelope for j, (_, m) in second.items() if j != w.colluders[0]}
    boxes = {j: second[j][1].boxes[w.victim] for j in sent if j != w.victim}
    w.refused("shares-incomplete", client_setup.ready, second[w.victim][0], sent, boxes, MemoryJournal())
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    few = {j: ups[j][1] for j in w.rng.sample(w.members, w.params.least - 1)}
    for i in w.honest:
        w.refused("survivors-too-few", client_round.acknowledge, fed.lives[i], ups[i][0], few)
        acked, ack = w.acks(fed, ups, w.members, [i])[i]
        w.refused("quorum-too-small", w.reveal, fed, i, acked, {i: ack} | w.colluding_acks(fed, acked))


def duplicated_sets(w: World) -> None:
    """One message under the name of everybody."""
    states, adverts = w.adverts()
    repeated = dict.fromkeys(w.members, adverts[w.victim])
    w.refused("signature-invalid", client_setup.share, states[w.victim], repeated, stream(1))
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    headers = dict.fromkeys(w.members, ups[w.colluders[0]][1])
    for i in w.honest:
        w.refused("signature-invalid", client_round.acknowledge, fed.lives[i], ups[i][0], headers)
        acked, ack = w.acks(fed, ups, w.members, [i])[i]
        w.refused("signature-invalid", w.reveal, fed, i, acked, dict.fromkeys(w.members, ack))


def forged_ack(w: World) -> None:
    """A colluder's ack under an honest name, and a colluder that names an honest hospital as the sender."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    acked, ack = w.acks(fed, ups, w.members, [w.victim])[w.victim]
    known = {w.victim: ack} | w.colluding_acks(fed, acked)
    missing, bad = [i for i in w.honest if i != w.victim], w.colluders[0]
    lie = messages.open_from(messages.Ack, known[bad], w.params.party(bad), max_bytes=512)
    named = messages.seal(identity(bad), replace(lie, sender=missing[0]))
    for forged in (named, known[bad], ack):
        acks = dict.fromkeys(missing, forged) | known
        w.refused("signature-invalid", w.reveal, fed, w.victim, acked, acks)
    rest = {i: messages.seal(identity(i), replace(lie, sender=i)) for i in missing}
    w.refused("sender-differs", w.reveal, fed, w.victim, acked, rest | known | {bad: named})


def shrunken_threshold(w: World) -> None:
    """Parameters in which two quorums fit, and peers that were told a smaller t or c."""
    w.refused("epoch-invalid", lambda: replace(w.params, threshold=w.params.threshold - 1))
    w.refused("epoch-invalid", lambda: replace(w.params, colluders=w.params.colluders + 1))
    w.told_otherwise("threshold-differs", threshold=w.params.threshold - 1)
    w.told_otherwise("colluders-differ", colluders=w.params.colluders - 1)


def foreign_plan(w: World) -> None:
    """Peers that were told another plan, run, encoding (or noise), roster or number of rounds."""
    w.told_otherwise("plan-foreign", plan_id=b"another plan")
    w.told_otherwise("run-foreign", run_id="another run")
    w.told_otherwise("rounds-differ", rounds=w.params.rounds + 1)
    w.told_otherwise("roster-differs", roster=bytes(32))
    block = w.params.layouts[0].blocks[0]
    quiet = replace(w.params.layouts[0], blocks=(replace(block, sigma=0.01),))
    less = replace(w.params, layouts=(quiet, w.params.layouts[1]))
    w.told_otherwise("encoding-differs", encoding=less.encoding_digest())
    w.told_otherwise("encoding-differs", encoding=replace(w.params, noise="local").encoding_digest())


def late_upload_opened(w: World) -> None:
    """The victim's upload comes late; then the coordinator wants it in the sum after all."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    acked = w.acks(fed, ups, set(w.members) - {w.victim}, w.members)
    acks = {i: ack for i, (_, ack) in acked.items()}
    everybody = {i: ups[i][1] for i in w.members}
    for i in w.honest:
        w.refused("already-acknowledged", client_round.acknowledge, fed.lives[i], ups[i][0], everybody)
        w.reveal(fed, i, acked[i][0], acks)
        w.refused("round-spent", client_round.acknowledge, fed.lives[i], ups[i][0], everybody)


def invented_hospital(w: World) -> None:
    """A hospital that the coordinator made up advertises, is invited, survives and acknowledges."""
    ghost = next(i for i in range(1, 256) if i not in w.members)
    states, adverts = w.adverts()
    pair = new_key_pair(stream("ghost"))
    invented = messages.seal(identity(ghost), expected_advert(w.params, ghost, pair.mlkem, pair.x25519))
    w.refused("party-unknown", client_setup.share, states[w.victim], adverts | {ghost: invented}, stream(2))
    fed = w.federation()
    live, vector = fed.lives[w.victim], vectors([w.victim], 5)[w.victim]
    w.refused("invited-foreign", client_round.upload, live, fed.start(invited={*w.members, ghost}), vector)
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    headers = {i: ups[i][1] for i in w.members}
    more = headers | {ghost: ups[w.victim][1]}
    w.refused("survivor-foreign", client_round.acknowledge, live, ups[w.victim][0], more)
    acked = w.acks(fed, ups, w.members, w.members)
    acks = {i: ack for i, (_, ack) in acked.items()} | {ghost: acked[w.victim][1]}
    w.refused("party-unknown", w.reveal, fed, w.victim, acked[w.victim][0], acks)


def void_round_again(w: World) -> None:
    """Too few reveal, the round is void; the coordinator starts it again, with the same and with another model."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    acked = w.acks(fed, ups, set(w.members) - {w.victim}, w.members)
    acks = {i: ack for i, (_, ack) in acked.items()}
    for i in w.rng.sample(w.honest, w.params.threshold - len(w.colluders) - 1):
        w.reveal(fed, i, acked[i][0], acks)
    for i in w.honest:
        for start in (fed.start(), replace(fed.start(), model_hash=OTHER_MODEL), fed.start(kind="evaluate")):
            vector = np.zeros(w.params.layout(start.kind).dim, dtype=np.uint32)
            w.refused("round-spent", client_round.upload, fed.lives[i], start, vector)


def next_round_before_reveal(w: World) -> None:
    """A later round is started before the reveal of this one; then the coordinator comes back to it."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start(0)))
    acked = w.acks(fed, ups, w.members, w.members)
    acks = {i: ack for i, (_, ack) in acked.items()}
    w.uploads(fed, dict.fromkeys(w.members, fed.start(2)))
    for i in w.honest:
        w.refused("round-over", w.reveal, fed, i, acked[i][0], acks)
        w.refused("round-spent", client_round.upload, fed.lives[i], fed.start(1), vectors([i], 5)[i])


def start_differs(w: World) -> None:
    """After the upload, the same round is said to have been started in another way."""
    fed = w.federation()
    ups = w.uploads(fed, dict.fromkeys(w.members, fed.start()))
    headers = {i: ups[i][1] for i in w.members}
    other = replace(fed.start(), model_hash=OTHER_MODEL)
    for i in w.honest:
        w.refused("start-differs", client_round.acknowledge, fed.lives[i], other, headers)


def tiny_or_odd_start(w: World) -> None:
    """A start for too few, without us, of an unknown round or kind, or with half a model hash."""
    fed = w.federation()
    few = [w.victim, *w.rng.sample([i for i in w.members if i != w.victim], w.params.least - 2)]
    starts = {
        "invited-too-small": fed.start(invited=few),
        "not-invited": fed.start(invited=set(w.members) - {w.victim}),
        "model-hash-invalid": RoundStart(0, "train", fed.all, MODEL[:31]),
        "round-unknown": fed.start(w.params.rounds),
        "kind-unknown": fed.start(kind="recalibrate"),
    }
    for code, start in starts.items():
        w.refused(code, client_round.upload, fed.lives[w.victim], start, vectors([w.victim], 5)[w.victim])


DEVIATIONS: tuple[Callable[[World], None], ...] = (
    other_model,
    other_invited_set,
    other_cohort,
    other_survivor_list,
    both_shares,
    replay,
    old_epoch,
    swapped_keys,
    swapped_boxes,
    truncated_sets,
    duplicated_sets,
    forged_ack,
    shrunken_threshold,
    foreign_plan,
    late_upload_opened,
    invented_hospital,
    void_round_again,
    next_round_before_reveal,
    start_differs,
    tiny_or_odd_start,
)
# Here the plan itself lets shares of one set leave before, or the attack begins after an honest round.
SHARES_DUE = (both_shares, late_upload_opened, void_round_again)
