"""A complete graph of 128 hospitals in the in-process Grid, and the memory of a coordinator."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_federation import SmallFederation, at_most_once, check_sums, events, identity, made_up_vectors, small_plan

from cameo_client.flower.client_app import make_client_app
from cameo_lab.grid import InProcessGrid
from cameo_protocol.layout import Block, Layout
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.client_round import Live, Uploaded, acknowledge, reveal, upload
from cameo_protocol.secagg.client_setup import advertise, ready, share
from cameo_protocol.secagg.messages import unpack
from cameo_protocol.secagg.params import EpochParams, Party, default_threshold
from cameo_protocol.secagg.server_setup import Epoch, collect_adverts, collect_readies, collect_shares, open_setup
from cameo_protocol.stages import ACK, REVEAL, UPLOAD, RoundCall, SurvivorsCall, pair
from cameo_server.flower.exchange import Exchange
from cameo_server.run.party import Parties
from cameo_server.run.record import RoundLog
from cameo_server.run.round import Opened, run_round
from cameo_server.run.store import RunStore

FULL = bool(os.environ.get("CAMEO_FULL"))
LANES = 1_000_000 if FULL else 250_000


def over_the_grid(federation: SmallFederation) -> tuple[InProcessGrid, Exchange]:
    grid = InProcessGrid({100 + i: make_client_app(federation._handle(i)) for i in federation.hospitals})
    return grid, Exchange(grid)


@pytest.mark.parametrize("n", [128 if FULL else 48])
def test_a_complete_graph_with_a_tenth_lost(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("training.rounds=1", "training.spare=0", "recalibration.share=0", "deadlines.stage=1")
    federation = SmallFederation(small_plan(n, *chosen), tmp_path, disk=False)
    made_up_vectors(monkeypatch, federation)
    grid, exchange = over_the_grid(federation)
    lost = set(range(5, n, 10))

    def lose(_site: int, packet: Packet) -> None:
        if packet.kind == UPLOAD:
            grid.lost |= {100 + i for i in lost}

    federation.before = lose
    store = federation.drive(exchange=exchange)

    train, evaluation = events(store, "round")
    assert len(train["invited"]) == n
    assert len(train["survivors"]) == len(evaluation["survivors"]) == n - len(lost)
    assert check_sums(federation, store) == 2
    assert at_most_once(federation)


class Lane:
    """One hospital of the secure sum alone: it makes its vector when it is asked for it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.live: Live | None = None
        self._at: Uploaded | Any = None

    def vector(self) -> Any:
        return np.full(LANES, self.index * 1001, dtype=np.uint32)

    def handle(self, packet: Packet) -> Packet:
        assert self.live is not None
        if packet.kind == UPLOAD:
            call = RoundCall.decode(packet.body)
            start = call.start(call.model_hash(packet.vector))
            self._at, header, masked = upload(self.live, start, self.vector())
            return Packet(UPLOAD, pair(header, b""), masked.tobytes())
        if packet.kind == ACK:
            asked = SurvivorsCall.decode(packet.body)
            self._at, answer = acknowledge(self.live, asked.call.start(asked.model_hash), asked.headers)
            return Packet(ACK, answer)
        return Packet(REVEAL, reveal(self.live, self._at, unpack(packet.body, max_item_bytes=1 << 14)))


class Nothing:
    def record(self, *_: Any) -> None:
        pass


def live(n: int) -> tuple[Epoch, dict[int, Lane]]:
    block = Block(name="risk", dim=LANES, clip=1.0, bound=2.0, scale=1024, sigma=1.0, counts=False)
    params = EpochParams(
        plan_id=b"p", run_id="r1", epoch=1, rounds=1, threshold=default_threshold(n), colluders=1,
        layouts=(Layout(kind="train", blocks=(block,)),),
        parties=tuple(Party(i, identity(i).public_key().public_bytes_raw()) for i in range(1, n + 1)),
    )  # fmt: skip
    lanes = {i: Lane(i) for i in range(1, n + 1)}
    advertised = {i: advertise(params, i, identity(i), os.urandom) for i in lanes}
    adverts = {i: advert for i, (_, advert) in advertised.items()}
    shared = {i: share(state, adverts, os.urandom) for i, (state, _) in advertised.items()}
    awaiting = collect_shares(
        collect_adverts(open_setup(params), adverts),
        {i: message.envelope for i, (_, message) in shared.items()},
        {i: message.boxes for i, (_, message) in shared.items()},
    )
    readies = {}
    for i, (state, _) in shared.items():
        lanes[i].live, readies[i] = ready(state, *awaiting.deliveries[i], Nothing())
    return collect_readies(awaiting, readies), lanes


def peak_of_a_round(n: int, folder: Path, lost: int) -> int:
    """Most bytes in use at once, beyond those before the round, with every hospital in this very process."""
    epoch, lanes = live(n)
    grid = InProcessGrid({i: make_client_app(lane.handle) for i, lane in lanes.items()})
    grid.lost = set(range(1, lost + 1))
    plan = small_plan(n, "deadlines.stage=0.5")
    store = RunStore(folder / str(n))
    store.create(plan.canonical())
    exchange = Exchange(grid)
    parties = Parties(plan, {i: i for i in lanes}, exchange, store, lambda: 0.0, lambda _s: None, active=set(lanes))
    call = RoundCall(run="r1", epoch=1, round_no=0, kind="train", step=0, invited=tuple(lanes))
    tracemalloc.start()
    try:
        outcome = run_round(parties, epoch, call, bytes(64), RoundLog(store.folder / "round.log"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, Opened)
    survivors = set(lanes) - set(range(1, lost + 1))
    assert outcome.survivors == survivors
    assert (outcome.total == sum(index * 1001 for index in survivors)).all()
    return peak


def test_the_coordinators_memory_does_not_grow_with_the_hospitals(tmp_path: Path) -> None:
    """Measured: a few vectors, whatever n; a coordinator that kept every upload would need n of them."""
    vector = 4 * LANES
    few, many = peak_of_a_round(8, tmp_path, 1), peak_of_a_round(24, tmp_path, 3)
    assert many < 1.15 * few
    assert many < 8 * vector
