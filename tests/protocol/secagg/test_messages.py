"""Every single-bit mutation of every message kind is refused; so is a replay elsewhere (invariant 9)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from secagg_parties import MemoryJournal, epoch_params, identity, plain_sum, run_round, set_up, stream, vectors

from cameo_protocol import canonical
from cameo_protocol.errors import Reject
from cameo_protocol.secagg import client_round, client_setup, messages, server_round, server_setup
from cameo_protocol.secagg.boxes import open_box
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.transcript import read_ack, read_advert, read_header, read_shares

KINDS = ("adv", "shr", "rdy", "upl", "ack", "rev")


class Scene:
    """One finished round of one epoch: a receiver for every message kind, and everybody's messages."""

    def __init__(self, params, *, round_no: int = 0, absent=()) -> None:
        self.fed = set_up(params, absent=absent)
        self.start = self.fed.start(round_no)
        self.trace = run_round(self.fed, self.start, vectors(self.fed.all, 7))
        self.sent = {
            "adv": self.fed.adverts,
            "shr": self.fed.envelopes,
            "rdy": self.fed.readies,
            "upl": self.trace.headers,
            "ack": self.trace.acks,
            "rev": self.trace.reveals,
        }
        total = np.zeros(7, dtype=np.uint32)
        self.survivors = server_round.Survivors(self.fed.epoch, self.start, self.trace.headers, total).survivors

    def receive(self, kind: str, index: int, data: bytes):
        """What every receiver of a message does with it."""
        cohort = self.fed.epoch.cohort
        match kind:
            case "adv":
                return read_advert(self.fed.params, index, data)
            case "shr":
                return read_shares(cohort, index, data)
            case "rdy":
                return server_setup._read_ready(cohort, index, data)
            case "upl":
                return read_header(cohort, self.start, index, data)
            case "ack":
                return read_ack(cohort, self.survivors, index, data)
            case _:
                quorum = server_round.Quorum(self.fed.epoch, self.survivors, {}, np.zeros(7, dtype=np.uint32))
                quorum.add_reveal(index, data)
                return quorum.answered


@pytest.fixture(scope="module")
def scene():
    return Scene(epoch_params(3, 3, 2, rounds=2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_single_bit_mutation_is_refused(scene, kind: str) -> None:
    data = scene.sent[kind][2]
    assert scene.receive(kind, 2, data)
    for bit in range(8 * len(data)):
        mutated = bytearray(data)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PartyFault) as refused:
            scene.receive(kind, 2, bytes(mutated))
        assert refused.value.party == 2


def test_every_single_bit_mutation_of_a_vector_is_refused(scene) -> None:
    collecting = server_round.open_round(scene.fed.epoch, scene.start)
    header, vector = scene.trace.headers[2], scene.trace.masked[2]
    for bit in range(8 * len(vector)):
        mutated = bytearray(vector)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PartyFault, match="vector-differs"):
            collecting.add_upload(2, header, bytes(mutated))
    for length in (0, 4, len(vector) - 4, len(vector) + 4):
        with pytest.raises(PartyFault, match="vector-length"):
            collecting.add_upload(2, header, vector[:length].ljust(length, b"\0"))
    assert not collecting.answered
    collecting.add_upload(2, header, vector)
    with pytest.raises(PartyFault, match="upload-repeated"):
        collecting.add_upload(2, header, vector)


def test_every_single_bit_mutation_of_a_box_is_refused() -> None:
    params = epoch_params(3, 3, 2, rounds=1)
    first = {i: client_setup.advertise(params, i, identity(i), stream(i)) for i in (1, 2, 3)}
    adverts = {i: advert for i, (_, advert) in first.items()}
    private = first[1][0].private
    second = {i: client_setup.share(first[i][0], adverts, stream(i)) for i in (1, 2, 3)}
    transcript, box = second[1][0].cohort.transcript, second[2][1].boxes[1]
    assert open_box(box, private, transcript, 2, 1, 1)
    for bit in range(8 * len(box)):
        mutated = bytearray(box)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PartyFault, match="box-invalid"):
            open_box(bytes(mutated), private, transcript, 2, 1, 1)
    for dealer, receiver, t in ((3, 1, transcript), (2, 3, transcript), (2, 1, bytes(32))):
        with pytest.raises(PartyFault, match="box-invalid"):
            open_box(box, private, t, dealer, receiver, 1)
    sent = {i: m.envelope for i, (_, m) in second.items()}
    boxes = {2: box[:-1] + bytes([box[-1] ^ 1]), 3: second[3][1].boxes[1]}
    with pytest.raises(PartyFault, match="box-swapped"):
        client_setup.ready(second[1][0], sent, boxes, MemoryJournal())


@pytest.mark.parametrize(
    ("elsewhere", "but"),
    [
        (lambda p: Scene(p, round_no=1), {"adv", "shr", "rdy"}),
        (lambda p: Scene(replace(p, epoch=1)), set()),
        (lambda p: Scene(replace(p, run_id="another")), set()),
        (lambda p: Scene(p, absent=(4,)), {"adv"}),
    ],
    ids=["another round", "another epoch", "another run", "another cohort"],
)
def test_replay_elsewhere_is_refused(elsewhere, but) -> None:
    """`but`: kinds that are the same message there. An advert holds for any cohort; T then tells them apart."""
    params = epoch_params(rounds=2)
    here, there = Scene(params), elsewhere(params)
    for kind in set(KINDS) - but:
        for index in there.sent[kind]:
            with pytest.raises(PartyFault) as refused:
                here.receive(kind, index, there.sent[kind][index])
            assert refused.value.code.endswith(("-foreign", "-another-set"))


def test_replay_in_another_role_is_refused(scene) -> None:
    for kind in KINDS:
        for other in KINDS:
            for sender in (1, 2, 3):
                if (other, sender) != (kind, 1):
                    with pytest.raises(PartyFault, match=r"signature-invalid|message-too-long"):
                        scene.receive(kind, 1, scene.sent[other][sender])


def test_an_older_advert_under_the_same_parameters_is_noticed_by_its_owner() -> None:
    params = epoch_params()
    older = client_setup.advertise(params, 1, identity(1), stream("older"))[1]
    first = {i: client_setup.advertise(params, i, identity(i), stream(i)) for i in params.indices}
    adverts = {i: advert for i, (_, advert) in first.items()} | {1: older}
    with pytest.raises(Reject, match="own-advert-differs"):
        client_setup.share(first[1][0], adverts, stream(0))


def test_bundles_keep_their_messages_and_refuse_everything_else() -> None:
    items = {9: b"nine", 2: b"", 255: b"x" * 50}
    packed = messages.pack(items)
    assert messages.unpack(packed, max_item_bytes=50) == items
    for refused in (
        canonical.encode([[2, b""], [2, b""]]),
        canonical.encode([[9, b""], [2, b""]]),
        canonical.encode([[0, b""]]),
        canonical.encode([[256, b""]]),
        canonical.encode([[True, b""]]),
        canonical.encode([[1, b"x" * 51]]),
        canonical.encode([[1, b"", b""]]),
        canonical.encode([[1, "text"]]),
        canonical.encode({"1": b""}),
        canonical.encode([[i, b""] for i in range(1, 12)]),
        packed + b"\0",
        packed[:-1],
        b"",
    ):
        with pytest.raises(Reject):
            messages.unpack(refused, max_item_bytes=50, max_items=10)


def test_a_late_message_is_refused_by_a_closed_stage(scene) -> None:
    collecting = server_round.open_round(scene.fed.epoch, scene.start)
    for i in (1, 2, 3):
        collecting.add_upload(i, scene.trace.headers[i], scene.trace.masked[i])
    survivors = collecting.close()
    for call in (collecting.close, lambda: collecting.add_upload(1, scene.trace.headers[1], scene.trace.masked[1])):
        with pytest.raises(Reject, match="stage-closed"):
            call()
    for i in (1, 2, 3):
        survivors.add_ack(i, scene.trace.acks[i])
    with pytest.raises(PartyFault, match="ack-repeated"):
        survivors.add_ack(1, scene.trace.acks[1])
    quorum = survivors.close()
    with pytest.raises(Reject, match="stage-closed"):
        survivors.add_ack(1, scene.trace.acks[1])
    for i in (1, 2, 3):
        quorum.add_reveal(i, scene.trace.reveals[i])
    with pytest.raises(PartyFault, match="reveal-repeated"):
        quorum.add_reveal(1, scene.trace.reveals[1])
    again = quorum.close()
    np.testing.assert_array_equal(again.total, scene.trace.result.total)
    with pytest.raises(Reject, match="stage-closed"):
        quorum.add_reveal(1, scene.trace.reveals[1])


def test_a_coordinator_that_restarts_replays_the_raw_messages() -> None:
    scene = Scene(epoch_params(rounds=1))
    fed = scene.fed
    epoch = server_setup.restore(fed.params, fed.adverts, fed.envelopes, fed.readies)
    assert epoch.cohort.transcript == fed.epoch.cohort.transcript
    collecting = server_round.open_round(epoch, scene.start)
    for i in sorted(fed.all):
        collecting.add_upload(i, scene.trace.headers[i], scene.trace.masked[i])
    survivors = collecting.close()
    for i, ack in scene.trace.acks.items():
        survivors.add_ack(i, ack)
    quorum = survivors.close()
    for i, reveal in scene.trace.reveals.items():
        quorum.add_reveal(i, reveal)
    np.testing.assert_array_equal(quorum.close().total, scene.trace.result.total)


def test_strangers_are_refused_at_every_stage(scene) -> None:
    collecting = server_round.open_round(scene.fed.epoch, scene.start)
    with pytest.raises(Reject, match="not-invited"):
        collecting.add_upload(7, scene.trace.headers[1], scene.trace.masked[1])
    for kind in ("ack", "rev"):
        with pytest.raises(Reject, match="party-unknown"):
            scene.receive(kind, 7, scene.sent[kind][1])
    with pytest.raises(Reject, match="party-unknown"):
        server_setup.collect_adverts(server_setup.open_setup(scene.fed.params), {**scene.fed.adverts, 7: b""})
    readies = {**scene.fed.readies, 7: b""}
    with pytest.raises(Reject, match="party-unknown"):
        server_setup.restore(scene.fed.params, scene.fed.adverts, scene.fed.envelopes, readies)
    with pytest.raises(PartyFault, match="setup-incomplete") as refused:
        server_setup.restore(scene.fed.params, scene.fed.adverts, scene.fed.envelopes, {1: b"", 3: b""})
    assert refused.value.party == 2


def test_a_member_that_was_not_invited_or_whose_upload_was_lost_still_answers() -> None:
    fed = set_up(epoch_params(5, 4, 2, rounds=1))
    start, inputs = fed.start(invited=(1, 2, 3, 4)), vectors(fed.all, 7)
    ups = {i: client_round.upload(fed.lives[i], start, inputs[i]) for i in (1, 2, 3, 4)}
    collecting = server_round.open_round(fed.epoch, start)
    for i in (1, 2, 3, 4):
        collecting.add_upload(i, ups[i][1], ups[i][2].tobytes())
    survivors = collecting.close()
    acked = {i: client_round.acknowledge(fed.lives[i], start, survivors.headers) for i in (1, 2, 4, 5)}
    for i, (_, ack) in acked.items():
        survivors.add_ack(i, ack)
    quorum = survivors.close()
    for i, (state, _) in acked.items():
        quorum.add_reveal(i, client_round.reveal(fed.lives[i], state, quorum.acks))
    result = quorum.close()
    assert result.survivors == {1, 2, 3, 4}
    np.testing.assert_array_equal(result.total, plain_sum(inputs, (1, 2, 3, 4)))
