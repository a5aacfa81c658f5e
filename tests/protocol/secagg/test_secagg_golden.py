"""The frozen golden transcript, made by scripts/make_vectors.py without our code (invariant 16)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from secagg_parties import MemoryJournal

from cameo_protocol.errors import Reject
from cameo_protocol.layout import Block, Layout
from cameo_protocol.secagg import client_round, client_setup, server_round, server_setup
from cameo_protocol.secagg.params import EpochParams, Party, RoundStart
from cameo_protocol.secagg.transcript import read_ack, read_advert, read_header

ROOT = Path(__file__).parents[3]
GOLDEN = json.loads((ROOT / "tests" / "vectors" / "secagg_golden.json").read_text())
MEMBERS = (2, 3, 5, 9)
START = RoundStart(1, "train", frozenset(MEMBERS), hashlib.sha256(b"golden model").digest())


def golden(name: str) -> dict[int, bytes]:
    return {int(index): bytes.fromhex(item) for index, item in GOLDEN[name].items()}


def identity(party: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"golden identity {party}".encode()).digest())


def reads(party: int):
    count = 0

    def read(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"golden/{party}/{count}".encode()).digest(size)

    return read


def params() -> EpochParams:
    risk = Block(name="risk", dim=6, clip=1.0, bound=4.0, scale=1024, sigma=1.5)
    segment = Block(name="segment", dim=5, clip=2.0, bound=8.0, scale=512, sigma=2.5)
    return EpochParams(
        plan_id=hashlib.sha256(b"golden plan").digest(),
        run_id="golden run",
        epoch=7,
        rounds=2,
        threshold=3,
        colluders=1,
        layouts=(Layout(kind="train", blocks=(risk, segment)),),
        parties=tuple(Party(p, identity(p).public_key().public_bytes_raw()) for p in MEMBERS),
    )


@pytest.fixture(scope="module")
def ran():
    """The same transcript by our code."""
    randoms = {p: reads(p) for p in MEMBERS}
    first = {p: client_setup.advertise(params(), p, identity(p), randoms[p]) for p in MEMBERS}
    adverts = {p: envelope for p, (_, envelope) in first.items()}
    waiting = server_setup.collect_adverts(server_setup.open_setup(params()), adverts)
    second = {p: client_setup.share(first[p][0], adverts, randoms[p]) for p in MEMBERS}
    routed = server_setup.collect_shares(
        waiting, {p: m.envelope for p, (_, m) in second.items()}, {p: m.boxes for p, (_, m) in second.items()}
    )
    third = {p: client_setup.ready(second[p][0], *routed.deliveries[p], MemoryJournal()) for p in MEMBERS}
    epoch = server_setup.collect_readies(routed, {p: envelope for p, (_, envelope) in third.items()})
    return adverts, epoch, {p: live for p, (live, _) in third.items()}, {p: e for p, (_, e) in third.items()}


def test_the_script_makes_the_stored_file() -> None:
    script = ROOT / "scripts" / "make_vectors.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0


def test_set_up(ran) -> None:
    adverts, epoch, lives, readies = ran
    assert params().digest().hex() == GOLDEN["params"]
    assert adverts == golden("adverts")
    assert epoch.cohort.transcript.hex() == GOLDEN["transcript"]
    assert {p: m.masks for p, m in epoch.dealt.items()} == golden("mask_commitments")
    assert {p: m.openers for p, m in epoch.dealt.items()} == golden("open_commitments")
    assert readies == golden("readies")
    for receiver, live in lives.items():
        for place, dealer in enumerate(MEMBERS):
            held = live._keys.mask_shares[:, place].tobytes() + live._keys.open_shares[:, place].tobytes()
            assert held.hex() == GOLDEN["shares"][str(dealer)][str(receiver)]


def test_round_with_a_dropout(ran) -> None:
    _, epoch, lives, _ = ran
    inputs, where = golden("inputs"), dict.fromkeys(MEMBERS, START)
    collecting = server_round.open_round(epoch, START)
    for p, raw in inputs.items():
        vector = np.frombuffer(raw, dtype="<u4").astype(np.uint32)
        where[p], header, masked = client_round.upload(lives[p], START, vector)
        assert header == golden("headers")[p]
        assert masked.tobytes() == golden("vectors")[p]
        collecting.add_upload(p, header, masked.tobytes())
    survivors = collecting.close()
    acked = {p: client_round.acknowledge(lives[p], where[p], survivors.headers) for p in MEMBERS}
    assert {p: ack for p, (_, ack) in acked.items()} == golden("acks")
    for p, (_, ack) in acked.items():
        survivors.add_ack(p, ack)
    quorum = survivors.close()
    reveals = {p: client_round.reveal(lives[p], acked[p][0], quorum.acks) for p in MEMBERS}
    assert reveals == golden("reveals")
    for p, reveal in reveals.items():
        quorum.add_reveal(p, reveal)
    assert quorum.close().total.astype("<u4").tobytes().hex() == GOLDEN["sum"]


@pytest.mark.parametrize("case", GOLDEN["must_fail"], ids=lambda case: f"{case['kind']}, {case['what']}")
def test_what_must_fail(ran, case) -> None:
    epoch, envelope = ran[1], bytes.fromhex(case["envelope"])
    survivors = server_round.Survivors(epoch, START, golden("headers"), np.zeros(11, dtype=np.uint32)).survivors
    quorum = server_round.Quorum(epoch, survivors, golden("acks"), np.zeros(11, dtype=np.uint32))
    if case["kind"] == "void":
        for p in (2, 5):
            quorum.add_reveal(p, golden("reveals")[p])
        quorum.add_reveal(3, envelope)
        assert quorum.close() == server_round.Void(1, case["code"])
        return
    routed = server_setup.AwaitReadies(epoch.cohort, epoch.dealt, {})
    take = {
        "adv": lambda: read_advert(params(), 3, envelope),
        "rdy": lambda: server_setup.collect_readies(routed, golden("readies") | {3: envelope}),
        "upl": lambda: read_header(epoch.cohort, START, 3, envelope),
        "ack": lambda: read_ack(epoch.cohort, survivors, 3, envelope),
        "rev": lambda: quorum.add_reveal(3, envelope),
    }
    with pytest.raises(Reject) as refused:
        take[case["kind"]]()
    assert refused.value.code == case["code"]


def test_control_the_unchanged_messages_are_taken(ran) -> None:
    epoch = ran[1]
    survivors = server_round.Survivors(epoch, START, golden("headers"), np.zeros(11, dtype=np.uint32)).survivors
    read_advert(params(), 3, golden("adverts")[3])
    read_header(epoch.cohort, START, 3, golden("headers")[3])
    read_ack(epoch.cohort, survivors, 3, golden("acks")[3])
    quorum = server_round.Quorum(epoch, survivors, golden("acks"), np.zeros(11, dtype=np.uint32))
    quorum.add_reveal(3, golden("reveals")[3])
    server_setup.collect_readies(server_setup.AwaitReadies(epoch.cohort, epoch.dealt, {}), golden("readies"))
