"""What a round of our secure sum costs a hospital and the coordinator: real states and real messages, in one process.

The hospital that is measured is party 1. In its measured rounds the other n - 1 are their identity keys only: they
sign real headers and acknowledgements, since what they masked does not matter to it. The coordinator is measured on
rounds in which everybody really masks.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_lab.bench.secagg_clock import Stages
from cameo_protocol.errors import Bug, Reject
from cameo_protocol.layout import Block, Layout
from cameo_protocol.secagg import client_round, client_setup, server_round, server_setup
from cameo_protocol.secagg.client_round import Live
from cameo_protocol.secagg.encoding import encode, largest_scale
from cameo_protocol.secagg.journal import Stage
from cameo_protocol.secagg.messages import Ack, Upload, seal
from cameo_protocol.secagg.params import EpochParams, Party, RoundStart, default_threshold
from cameo_protocol.secagg.server_round import Quorum, Summed
from cameo_protocol.secagg.server_setup import Epoch
from cameo_protocol.secagg.transcript import read_survivors

Lanes = npt.NDArray[np.uint32]
ROUNDS = 100  # of an epoch: over so many rounds its set-up is shared out
ME = 1
MODEL = hashlib.sha256(b"the model of the benchmark").digest()
BOUND = 8.0


class MemoryJournal:
    """A journal that is not a disk: the disk's time is no CPU time."""

    def __init__(self) -> None:
        self._entries: set[tuple[bytes, int, Stage]] = set()

    def record(self, transcript: bytes, round_no: int, stage: Stage, digest: bytes) -> None:
        """See `secagg.journal.Journal`."""
        del digest
        if (transcript, round_no, stage) in self._entries:
            raise Reject("already-released", what=f"the {stage} of round {round_no} has left already")
        self._entries.add((transcript, round_no, stage))


@dataclass(frozen=True, eq=False, repr=False)
class World:
    """A federation that is set up. setup_cpu: CPU seconds of party 1's set-up; setup_bytes: what it sent for it."""

    params: EpochParams
    identities: dict[int, Ed25519PrivateKey]
    epoch: Epoch
    lives: dict[int, Live]
    setup_cpu: float
    setup_bytes: int

    @property
    def layout(self) -> Layout:
        """Of the one kind of round there is."""
        return self.params.layouts[0]

    def start(self, round_no: int) -> RoundStart:
        """A round to which everybody is invited."""
        return RoundStart(round_no, "train", frozenset(self.identities), MODEL)


def build(n: int, d: int) -> World:
    """Set up n parties, t = floor(2n/3) + 1, for an epoch of `ROUNDS` rounds over d lanes."""
    identities = {i: Ed25519PrivateKey.generate() for i in range(1, n + 1)}
    t = default_threshold(n)
    scale = largest_scale(dim=d, clip=1.0, bound=BOUND, sigma=1.0, n=n, t=t, c=0)
    block = Block(name="risk", dim=d, clip=1.0, bound=BOUND, scale=scale, sigma=1.0)
    params = EpochParams(
        plan_id=b"bench",
        run_id="bench",
        epoch=1,
        rounds=ROUNDS,
        threshold=t,
        colluders=0,
        layouts=(Layout(kind="train", blocks=(block,)),),
        parties=tuple(Party(i, key.public_key().public_bytes_raw()) for i, key in identities.items()),
    )
    return _set_up(params, identities)


def _set_up(params: EpochParams, identities: dict[int, Ed25519PrivateKey]) -> World:
    mine, others = Stages(), Stages()
    advertised, adverts, shared, messages, lives, readies = {}, {}, {}, {}, {}, {}
    for i, key in identities.items():
        with (mine if i == ME else others).time("advertise"):
            advertised[i], adverts[i] = client_setup.advertise(params, i, key, os.urandom)
    waiting = server_setup.collect_adverts(server_setup.open_setup(params), adverts)
    for i, advert in advertised.items():
        with (mine if i == ME else others).time("share"):
            shared[i], messages[i] = client_setup.share(advert, waiting.adverts, os.urandom)
    envelopes = {i: message.envelope for i, message in messages.items()}
    routed = server_setup.collect_shares(waiting, envelopes, {i: m.boxes for i, m in messages.items()})
    for i, state in shared.items():
        with (mine if i == ME else others).time("ready"):
            lives[i], readies[i] = client_setup.ready(state, *routed.deliveries[i], MemoryJournal())
    epoch = server_setup.collect_readies(routed, readies)
    sent = len(adverts[ME]) + len(envelopes[ME]) + len(readies[ME]) + sum(map(len, messages[ME].boxes.values()))
    return World(params, identities, epoch, lives, sum(mine.medians().values()), sent)


@dataclass(frozen=True, kw_only=True)
class ClientCost:
    """One hospital's round. seconds: CPU by stage; round_bytes: all it sends in a round, set-up left out."""

    seconds: dict[str, float]
    round_bytes: int


def measure_client(world: World, repeats: int) -> ClientCost:
    """Encode (round, add noise), mask (with hash and signature), acknowledge, reveal; rounds 0 .. repeats of an epoch.

    The first round is not counted.
    """
    stages = Stages()
    random = np.random.default_rng(0)
    d = world.layout.dim
    values = {"risk": random.normal(size=d)}
    noise = {"risk": random.integers(-1000, 1000, d, dtype=np.int64)}
    sent = _client_round(world, 0, values, noise, Stages())
    for round_no in range(1, repeats + 1):
        sent = _client_round(world, round_no, values, noise, stages)
    return ClientCost(seconds=stages.medians(), round_bytes=sent)


def _client_round(
    world: World,
    round_no: int,
    values: dict[str, npt.NDArray[np.float64]],
    noise: dict[str, npt.NDArray[np.int64]],
    stages: Stages,
) -> int:
    live, start = world.lives[ME], world.start(round_no)
    with stages.time("encode"):
        vector = encode(world.layout, values, noise, os.urandom)
    with stages.time("upload"):
        state, header, masked = client_round.upload(live, start, vector, consume=True)
    headers = {i: header if i == ME else _header(world, i, start) for i in world.identities}
    with stages.time("ack"):
        acked, ack = client_round.acknowledge(live, state, headers)
    acks = {i: ack if i == ME else _ack(world, i, start, acked.survivors.digest) for i in world.identities}
    with stages.time("reveal"):
        reveal = client_round.reveal(live, acked, acks)
    return len(header) + masked.nbytes + len(ack) + len(reveal)


def _header(world: World, party: int, start: RoundStart) -> bytes:
    transcript, context = world.epoch.cohort.transcript, start.context(world.params)
    return seal(
        world.identities[party],
        Upload(
            sender=party,
            transcript=transcript,
            round_no=start.round_no,
            invited=start.invited_digest(),
            context=context,
            vector=os.urandom(32),
        ),
    )


def _ack(world: World, party: int, start: RoundStart, digest: bytes) -> bytes:
    transcript = world.epoch.cohort.transcript
    return seal(
        world.identities[party], Ack(sender=party, transcript=transcript, round_no=start.round_no, survivors=digest)
    )


@dataclass(frozen=True, kw_only=True)
class ServerCost:
    """seconds: CPU of opening a sum (from t reveals to the sum), and of taking one upload in (hash, check, add)."""

    opening: float
    taking_one: float


def measure_server(world: World, round_no: int, lost: Collection[int], repeats: int) -> ServerCost:
    """A round in which all but `lost` upload; opened `repeats` times, each checked against the plain sum."""
    stages, start, taking = Stages(), world.start(round_no), Stages()
    random = np.random.default_rng(round_no)
    vector = random.integers(0, 2**32, world.layout.dim, dtype=np.uint32)
    collecting = server_round.open_round(world.epoch, start)
    total, headers, states = np.zeros_like(vector), {}, {}
    alive = [i for i in world.identities if i not in lost]
    for i in alive:
        states[i], headers[i], masked = client_round.upload(world.lives[i], start, vector)
        raw = masked.tobytes()
        with taking.time("take"):
            collecting.add_upload(i, headers[i], raw)
        np.add(total, masked, out=total)
    answering = alive[: world.params.threshold]
    acked, acks = {}, {}
    for i in answering:
        acked[i], acks[i] = client_round.acknowledge(world.lives[i], states[i], headers)
    reveals = {i: client_round.reveal(world.lives[i], acked[i], acks) for i in answering}
    survivors = read_survivors(world.epoch.cohort, start, headers)
    wanted = vector * np.uint32(len(alive))
    for repeat in range(repeats + 1):
        quorum = Quorum(world.epoch, survivors, acks, total.copy())
        for i, reveal in reveals.items():
            quorum.add_reveal(i, reveal)
        with (stages if repeat else Stages()).time("open"):
            opened = quorum.close()
        if not isinstance(opened, Summed) or not np.array_equal(opened.total, wanted):
            raise Bug("bench-wrong", what="the opened sum of the benchmark is not the plain sum")
    return ServerCost(opening=stages.medians()["open"], taking_one=taking.medians()["take"])


def tenth(n: int) -> list[int]:
    """The 10 % of n parties that drop out, party 1 not among them; rounded down, but at least one."""
    return list(range(2, 2 + max(1, math.floor(n / 10))))
