"""Hospitals and a coordinator in one process, for the tests: no network, seeded randomness, an in-memory journal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import Reject
from cameo_protocol.layout import Block, Layout
from cameo_protocol.secagg import client_round, client_setup, server_round, server_setup
from cameo_protocol.secagg.client_round import Live
from cameo_protocol.secagg.journal import Stage
from cameo_protocol.secagg.keys import RoundKeys
from cameo_protocol.secagg.params import EpochParams, Party, RoundStart
from cameo_protocol.secagg.server_round import Summed, Void
from cameo_protocol.secagg.server_setup import Epoch

MODEL = hashlib.sha256(b"model").digest()


def stream(seed: object) -> Callable[[int], bytes]:
    """Deterministic bytes for tests: SHAKE-256 in counter mode over a seed."""
    count = 0

    def read(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed}/{count}".encode()).digest(size)

    return read


@cache
def identity(index: int) -> Ed25519PrivateKey:
    """A fixed identity key of a test hospital."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"identity {index}".encode()).digest())


def layout(dim: int = 7) -> Layout:
    """A train layout of one block."""
    block = Block(name="risk", dim=dim, clip=1.0, bound=4.0, scale=1024, sigma=1.0)
    return Layout(kind="train", blocks=(block,))


def histogram(dim: int = 8) -> Layout:
    """An evaluate layout of counts."""
    block = Block(name="evaluation", dim=dim, clip=1.0, bound=1e5, scale=1, sigma=2.0, counts=True)
    return Layout(kind="evaluate", blocks=(block,))


def epoch_params(
    n: int = 4, t: int = 3, c: int = 1, *, rounds: int = 3, dim: int = 7, indices: Iterable[int] = (), epoch: int = 0
) -> EpochParams:
    """Parameters of a small epoch; hospitals are 1..n unless `indices` says otherwise."""
    chosen = sorted(indices) or list(range(1, n + 1))
    parties = tuple(Party(i, identity(i).public_key().public_bytes_raw()) for i in chosen)
    return EpochParams(
        plan_id=b"plan",
        run_id="run",
        epoch=epoch,
        rounds=rounds,
        threshold=t,
        colluders=c,
        layouts=(layout(dim), histogram()),
        parties=parties,
    )


@dataclass(repr=False)
class MemoryJournal:
    """A journal that outlives the states of one test. `broken` makes the next record fail, as a full disk does."""

    entries: dict[tuple[bytes, int, Stage], bytes] = field(default_factory=dict)
    broken: bool = False

    def record(self, transcript: bytes, round_no: int, stage: Stage, digest: bytes) -> None:
        if self.broken:
            raise OSError("no space left on device")
        if (transcript, round_no, stage) in self.entries:
            raise Reject("already-released", what=f"{stage} of round {round_no} is in the journal")
        self.entries[transcript, round_no, stage] = digest


@dataclass(repr=False)
class Federation:
    """An epoch that is set up."""

    params: EpochParams
    epoch: Epoch
    lives: dict[int, Live]
    journals: dict[int, MemoryJournal]
    adverts: Mapping[int, bytes]
    envelopes: Mapping[int, bytes]
    readies: Mapping[int, bytes]

    @property
    def all(self) -> frozenset[int]:
        return frozenset(self.lives)

    def start(self, round_no: int = 0, invited: Iterable[int] = (), kind: str = "train") -> RoundStart:
        return RoundStart(round_no, kind, frozenset(invited) or self.all, MODEL)  # type: ignore[arg-type]


def set_up(params: EpochParams, seed: object = 0, absent: Iterable[int] = ()) -> Federation:
    """Run the key set-up; `absent` hospitals never advertise."""
    here = sorted(params.indices - set(absent))
    randoms = {i: stream((seed, i)) for i in here}
    advertised, adverts = {}, {}
    for i in here:
        advertised[i], adverts[i] = client_setup.advertise(params, i, identity(i), randoms[i])
    waiting = server_setup.collect_adverts(server_setup.open_setup(params), adverts)
    shared, messages = {}, {}
    for i in here:
        shared[i], messages[i] = client_setup.share(advertised[i], waiting.adverts, randoms[i])
    envelopes = {i: m.envelope for i, m in messages.items()}
    routed = server_setup.collect_shares(waiting, envelopes, {i: m.boxes for i, m in messages.items()})
    lives, readies = {}, {}
    journals = {i: MemoryJournal() for i in here}
    for i in here:
        envelopes_for, boxes_for = routed.deliveries[i]
        lives[i], readies[i] = client_setup.ready(shared[i], envelopes_for, boxes_for, journals[i])
    epoch = server_setup.collect_readies(routed, readies)
    return Federation(params, epoch, lives, journals, adverts, envelopes, readies)


def vectors(indices: Iterable[int], dim: int, seed: int = 0) -> dict[int, np.ndarray]:
    """One uniform uint32 vector a hospital."""
    return {i: np.random.default_rng((seed, i)).integers(0, 2**32, dim, dtype=np.uint32) for i in indices}


def plain_sum(inputs: Mapping[int, np.ndarray], of: Iterable[int]) -> np.ndarray:
    """What a secure sum must equal, bit for bit."""
    total = np.zeros_like(next(iter(inputs.values())))
    for i in of:
        total = total + inputs[i]
    return total


@dataclass(repr=False)
class Trace:
    """What a round left with each side."""

    result: Summed | Void
    headers: dict[int, bytes] = field(default_factory=dict)
    masked: dict[int, bytes] = field(default_factory=dict)
    acks: dict[int, bytes] = field(default_factory=dict)
    reveals: dict[int, bytes] = field(default_factory=dict)


def run_round(
    fed: Federation,
    start: RoundStart,
    inputs: Mapping[int, np.ndarray],
    *,
    uploads: Iterable[int] | None = None,
    acks: Iterable[int] | None = None,
    reveals: Iterable[int] | None = None,
) -> Trace:
    """A whole round; who is not in `uploads`, `acks` or `reveals` is silent at that stage. None: everybody."""
    trace = Trace(Void(start.round_no, "unfinished"))
    where: dict[int, client_round.Uploaded | RoundStart] = dict.fromkeys(fed.lives, start)
    collecting = server_round.open_round(fed.epoch, start)
    for i in sorted(start.invited if uploads is None else uploads):
        where[i], trace.headers[i], masked = client_round.upload(fed.lives[i], start, inputs[i])
        trace.masked[i] = masked.tobytes()
        collecting.add_upload(i, trace.headers[i], trace.masked[i])
    survivors = collecting.close()
    if isinstance(survivors, Void):
        trace.result = survivors
        return trace
    acked = {}
    for i in sorted(fed.all if acks is None else acks):
        acked[i], trace.acks[i] = client_round.acknowledge(fed.lives[i], where[i], survivors.headers)
        survivors.add_ack(i, trace.acks[i])
    quorum = survivors.close()
    if isinstance(quorum, Void):
        trace.result = quorum
        return trace
    for i in sorted(acked if reveals is None else reveals):
        trace.reveals[i] = client_round.reveal(fed.lives[i], acked[i], quorum.acks)
        quorum.add_reveal(i, trace.reveals[i])
    trace.result = quorum.close()
    return trace


def snapshot(live: Live) -> Live:
    """What an attacker with a snapshot of the machine would restore: the same state, keys included, same journal."""
    copy = object.__new__(Live)
    for name in Live.__slots__:
        setattr(copy, name, getattr(live, name))
    kept = live._keys
    copy._keys = RoundKeys(*kept.edges.shape[:2])
    for name in RoundKeys.__slots__:
        getattr(copy._keys, name)[:] = getattr(kept, name)
    return copy


def reveal_kinds(fed: Federation, acked: client_round.Acked) -> dict[int, str]:
    """Party -> which of its secrets a reveal of this set opens a share of."""
    return {j: "b" if j in acked.survivors.members else "c" for j in acked.survivors.start.invited}
