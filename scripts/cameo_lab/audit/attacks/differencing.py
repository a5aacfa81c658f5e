"""Differencing: two sums whose difference is one hospital, or one patient; and shares asked for without a quorum."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cameo_client.node.contribution import Patients
from cameo_client.node.hospital import InRound
from cameo_lab.audit.attacks.gradients import View, hits, invert
from cameo_lab.audit.attacks.invert import alone
from cameo_lab.audit.attacks.wire import Lanes, Refused, Wire, ack_packet, open_wire, round_start
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.people import nobody
from cameo_lab.audit.subject import Floats, Subject, added
from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_protocol.plan import Site
from cameo_protocol.secagg.client_round import Live, Uploaded, acknowledge, reveal
from cameo_protocol.secagg.encoding import decode
from cameo_protocol.secagg.journal import Stage
from cameo_protocol.secagg.keys import RoundKeys
from cameo_protocol.secagg.messages import pack
from cameo_protocol.secagg.server_round import Summed, Survivors, Void
from cameo_protocol.stages import REVEAL, RoundCall

TRIALS = {"quick": 4, "full": 50}
REVEALS = {"quick": 20, "full": 100}
STEPS = {"quick": 60, "full": 300}


# --- an aggregate of one: two survivor sets of one round ----------------------------------------------------------


def aggregate_of_one(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Open two survivor sets of one round that differ by one hospital: the difference is its vector, mask off.

    The attacker is a malicious coordinator. Of one round's uploads it tells some hospitals that all survived, others
    that the target was lost, then each of them the other story, and asks everybody for shares of both; it also asks
    for the target alone. Where all hospitals of a plan must answer, one more joins, so that there is a second set to
    tell of. Control: hospitals that forget (a machine restored from a snapshot, its journal with it).
    Source: Pasquini, Francati, Ateniese, CCS 2022, "Eluding Secure Aggregation in Federated Learning via Model
    Inconsistency", on differing views; Bonawitz et al., CCS 2017, section 6 (consistency round).
    """
    started = time.monotonic()
    trials = TRIALS[effort]
    model, larger = subject.initial(), _with_room(subject)
    with open_wire(larger, larger.hospitals) as wire:
        opened = sum(_equivocate(wire, model, random, forgetful=False) for _ in range(trials))
        control = sum(_equivocate(wire, model, random, forgetful=True) for _ in range(trials))
    return Finding(
        name="aggregate-of-one",
        passed=opened == 0 and control == trials,
        figures={"trials": trials, "opened": opened},
        limit=f"0 of {trials} vectors opened",
        control={"trials": trials, "opened": control},
        control_failed=control == trials,
        seconds=time.monotonic() - started,
    )


def _with_room(subject: Subject) -> Subject:
    """The subject with an empty hospital more, if its threshold leaves no hospital that may be lost."""
    plan, cohort = subject.plan, subject.plan.cohort
    if max(cohort.threshold, 3) < len(cohort.sites):
        return subject
    free = min(set(range(1, 256)) - {site.index for site in cohort.sites})
    joined = (*cohort.sites, Site(name="one-more", index=free, identity="0" * 64))
    sites = tuple(sorted(joined, key=lambda site: site.index))
    # The scale was the largest at which the smaller cohort's sum fits its lanes.
    tasks = tuple(
        task.model_copy(update={"encoded": task.encoded.model_copy(update={"scale": max(1, task.encoded.scale // 2)})})
        for task in plan.tasks
    )
    changed = plan.model_copy(update={"cohort": cohort.model_copy(update={"sites": sites}), "tasks": tasks})
    return replace(subject, plan=changed, hospitals=(*subject.hospitals, nobody(plan, subject.features)))


def _equivocate(wire: Wire, model: Floats, random: np.random.Generator, *, forgetful: bool) -> bool:
    """One trial; whether the target's vector came out."""
    call = wire.call()
    survivors, uploads = wire.collect(call, model)
    target = int(random.choice(wire.everybody))
    everybody = dict(survivors.headers)
    without = {index: header for index, header in everybody.items() if index != target}
    stories = [everybody, without, {target: everybody[target]}]
    if forgetful:
        sums = [_open_forgetful(wire, call, model, uploads, story) for story in stories[:2]]
    else:
        order = [int(index) for index in random.permutation(wire.everybody)]
        half = len(order) // 2 + int(random.integers(2))
        acks = _tell(wire, call, model, stories, order[:half], order[half:])
        sums = [_open(wire, call, model, uploads, *pair) for pair in zip(stories, acks, strict=True)]
    if len(sums) == 3 and sums[2] is not None:
        return True
    first, second = sums[:2]
    if first is None or second is None:
        return False
    return np.array_equal(first - second, wire.made[target])


def _tell(
    wire: Wire,
    call: RoundCall,
    model: Floats,
    stories: Sequence[Mapping[int, bytes]],
    some: Iterable[int],
    others: Iterable[int],
) -> list[dict[int, bytes]]:
    """The acknowledgements of each story: `some` hear the first one first, `others` the second, all hear all."""
    acks: list[dict[int, bytes]] = [{} for _ in stories]
    for indices, order in ((some, (0, 1, 2)), (others, (1, 0, 2))):
        for index in indices:
            for story in order:
                try:
                    packet = ack_packet(call, model, stories[story])
                    acks[story][index] = wire.ask(index, packet).body
                except Refused:
                    continue
    return acks


def _open(
    wire: Wire,
    call: RoundCall,
    model: Floats,
    uploads: Mapping[int, Lanes],
    headers: Mapping[int, bytes],
    acks: Mapping[int, bytes],
) -> Lanes | None:
    """The sum of one story, if its acknowledgements and the shares that they get open it."""
    reveals = {}
    for index in wire.everybody:
        try:
            reveals[index] = wire.ask(index, Packet(REVEAL, pack(dict(acks)))).body
        except Refused:
            continue
    return _summed(wire, call, model, uploads, headers, acks, reveals)


def _summed(
    wire: Wire,
    call: RoundCall,
    model: Floats,
    uploads: Mapping[int, Lanes],
    headers: Mapping[int, bytes],
    acks: Mapping[int, bytes],
    reveals: Mapping[int, bytes],
) -> Lanes | None:
    try:
        total = added([uploads[index] for index in headers])
        survivors = Survivors(wire.epoch, round_start(call, model), headers, total)
        for index, ack in acks.items():
            survivors.add_ack(index, ack)
        quorum = survivors.close()
        if isinstance(quorum, Void):
            return None
        for index, envelope in reveals.items():
            quorum.add_reveal(index, envelope)
        found = quorum.close()
    except Reject:
        return None
    return found.total if isinstance(found, Summed) else None


class _NoJournal:
    """A journal that went back with the snapshot."""

    def record(self, transcript: bytes, round_no: int, stage: Stage, digest: bytes) -> None:
        """Forget it."""


def _open_forgetful(
    wire: Wire, call: RoundCall, model: Floats, uploads: Mapping[int, Lanes], headers: Mapping[int, bytes]
) -> Lanes | None:
    """The sum of a story that every hospital hears in a copy of the state in which it uploaded."""
    copies = {index: _restored(wire, index) for index in wire.everybody}
    acked, acks = {}, {}
    for index, (live, uploaded) in copies.items():
        acked[index], acks[index] = acknowledge(live, uploaded, headers)
    reveals = {index: reveal(live, acked[index], acks) for index, (live, _) in copies.items()}
    return _summed(wire, call, model, uploads, headers, acks, reveals)


def _restored(wire: Wire, index: int) -> tuple[Live, Uploaded]:
    """A hospital as a snapshot of its machine right after its upload would bring it back, keys included."""
    phase = wire.nodes[index]._phase
    assert isinstance(phase, InRound)
    live = phase.living.state
    kept = live._keys
    keys = RoundKeys(*kept.edges.shape[:2])
    for name in RoundKeys.__slots__:
        getattr(keys, name)[:] = getattr(kept, name)
    copy = Live(live.cohort, live.index, live._identity, keys, _NoJournal())
    copy._state = phase.state
    return copy, phase.state


# --- cohort differencing: two rounds with and without a hospital ---------------------------------------------------


def cohort_differencing(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Open a round with a hospital and a round without it at the same model; their difference is its one patient.

    The attacker is the coordinator, who may leave a hospital out of a round as if it had been lost; the hospital has
    a single patient, so what is left after the subtraction is a gradient and the noise of both rounds. Where the
    cohort is too small for a second sum, hospitals refuse it. Control: the same difference without noise.
    Source: Dwork and Roth 2014, section 1.1 (differencing); inversion as in `gradients.invert`.
    """
    started = time.monotonic()
    trials = TRIALS[effort]
    rows = random.uniform(-1.0, 1.0, (trials, subject.features)).astype(np.float32)
    outcome = random.integers(0, 2, trials).astype(np.float64)
    focus = [0]
    target = alone(subject, rows, outcome, lambda: focus[0])
    rest = [nobody(subject.plan, subject.features) for _ in subject.plan.cohort.sites[1:]]
    model = subject.initial()
    with open_wire(subject, [target, *rest]) as wire:
        seen = [_difference(wire, model, focus, at) for at in range(trials)]
    refused = sum(one is None for one in seen)
    clear = []
    for at in range(trials):
        focus[0] = at
        clear.append(_cohort_sum(subject.silent(), [target, *rest], model) - _cohort_sum(subject.silent(), rest, model))
    found = _inverted(subject, model, [one for one in seen if one is not None], rows, STEPS[effort])
    plain = _inverted(subject, model, clear, rows, STEPS[effort])
    return Finding(
        name="cohort-differencing",
        passed=found == 0 and plain == trials,
        figures={"trials": trials, "reconstructed": found, "second_sum_refused": refused},
        limit=f"0 of {trials} reconstructed",
        control={"trials": trials, "reconstructed": plain},
        control_failed=plain == trials,
        seconds=time.monotonic() - started,
    )


def _difference(wire: Wire, model: Floats, focus: list[int], at: int) -> Lanes | None:
    """With minus without the first hospital; None where the second sum is refused."""
    focus[0] = at
    whole = wire.round(model).total
    try:
        difference: Lanes = whole - wire.round(model, invited=wire.everybody[1:]).total
    except (Refused, Reject):
        return None
    return difference


def _cohort_sum(subject: Subject, hospitals: Sequence[Patients], model: Floats) -> Lanes:
    return added([subject.contribute("train", model, patients) for patients in hospitals])


def _inverted(
    subject: Subject, model: Floats, differences: Sequence[Lanes], rows: npt.NDArray[np.float32], steps: int
) -> int:
    if not differences:
        return 0
    layout = subject.plan.layout("train")
    decoded = [decode(layout, difference) for difference in differences]
    view = View(model, {name: np.stack([one[name] for one in decoded]) for name in decoded[0]})
    return hits(invert(subject.plan, subject.features, view, steps), rows)


# --- shares below the threshold -----------------------------------------------------------------------------------


def below_threshold(subject: Subject, random: np.random.Generator, effort: Effort) -> Finding:
    """Ask for shares with fewer than t acknowledgements, or with one counted twice; refused every time.

    The attacker is the coordinator with true acknowledgements of an honest round. Control: t of them, which are
    answered, so that it is the number that was refused.
    """
    started = time.monotonic()
    tries = REVEALS[effort]
    model = subject.initial()
    with open_wire(subject, subject.hospitals) as wire:
        call = wire.call()
        survivors, _ = wire.collect(call, model)
        packet = ack_packet(call, model, survivors.headers)
        acks = {index: wire.ask(index, packet).body for index in wire.everybody}
        victim = wire.everybody[0]
        refused = 0
        for _ in range(tries):
            refused += not _reveals(wire, victim, _too_few(acks, subject.plan.cohort.threshold, random))
        quorum = dict(list(acks.items())[: subject.plan.cohort.threshold])
        answered = sum(_reveals(wire, index, quorum) for index in wire.everybody)
    return Finding(
        name="below-threshold-reveal",
        passed=refused == tries and answered == len(acks),
        figures={"tries": tries, "refused": refused},
        limit=f"{tries} of {tries} refused",
        control={"tries": len(acks), "answered": answered},
        control_failed=answered == len(acks),
        seconds=time.monotonic() - started,
    )


def _too_few(acks: Mapping[int, bytes], threshold: int, random: np.random.Generator) -> dict[int, bytes]:
    """Fewer than t of the acknowledgements, or t with one of them under a second name."""
    indices = [int(index) for index in random.permutation(sorted(acks))]
    padded = bool(random.integers(2))
    chosen = indices[: threshold - 1 if padded else int(random.integers(threshold))]
    told = {index: acks[index] for index in sorted(chosen)}
    if padded:
        told[indices[threshold - 1]] = acks[chosen[0]]
    return told


def _reveals(wire: Wire, index: int, acks: Mapping[int, bytes]) -> bool:
    try:
        return bool(wire.ask(index, Packet(REVEAL, pack(dict(acks)))).body)
    except Refused:
        return False
