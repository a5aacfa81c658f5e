"""A wrong share, dealer, or wrapped edge key is detected and never silently summed (invariant 10)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from secagg_parties import MemoryJournal, epoch_params, identity, plain_sum, run_round, set_up, stream, vectors

from cameo_protocol.secagg import client_setup, messages, server_setup
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.server_round import Summed, Void


def resigned(data: bytes, kind, sender: int, **changes) -> bytes:
    """A message of a hospital with other contents, signed by it."""
    message = messages.open_from(kind, data, epoch_params(5, 4, 2).party(sender), max_bytes=10**6)
    return messages.seal(identity(sender), replace(message, **changes))


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def round_with_wrong_reveals(wrong, *, answers, uploads=(1, 2, 3, 4)):
    """n=5, t=4: hospital 5 drops out; `wrong` hospitals reveal a wrong share of everybody, or of party `only`."""
    fed = set_up(epoch_params(5, 4, 2, rounds=1))
    inputs = vectors(fed.all, 7)
    trace = run_round(fed, fed.start(), inputs, uploads=uploads)
    from cameo_protocol.secagg import server_round

    collecting = server_round.open_round(fed.epoch, fed.start())
    for i in uploads:
        collecting.add_upload(i, trace.headers[i], trace.masked[i])
    survivors = collecting.close()
    for i, ack in trace.acks.items():
        survivors.add_ack(i, ack)
    quorum = survivors.close()
    for i in answers:
        reveal = trace.reveals[i]
        if i in wrong:
            shares = messages.open_from(messages.Reveal, reveal, fed.params.party(i), max_bytes=10**4).shares
            reveal = resigned(reveal, messages.Reveal, i, shares=wrong[i](shares))
        quorum.add_reveal(i, reveal)
    return quorum.close(), plain_sum(inputs, uploads)


def test_a_wrong_share_among_more_than_t_is_left_out_and_named() -> None:
    for liar in (1, 2, 3, 4, 5):
        result, expected = round_with_wrong_reveals({liar: flipped}, answers=(1, 2, 3, 4, 5))
        assert isinstance(result, Summed)
        np.testing.assert_array_equal(result.total, expected)
        assert result.blamed <= {liar}
        assert liar == 5 or result.blamed == {liar}, "the fifth was not needed"


@pytest.mark.parametrize("party", range(5))
def test_a_wrong_share_of_any_party_among_exactly_t_voids_the_round(party: int) -> None:
    result, _ = round_with_wrong_reveals({2: lambda s: flipped(s, 32 * party)}, answers=(1, 2, 3, 4))
    assert result == Void(0, "shares-wrong")


def test_two_wrong_shares_void_the_round() -> None:
    wrong = {1: flipped, 2: lambda s: flipped(s, 40)}
    result, _ = round_with_wrong_reveals(wrong, answers=(1, 2, 3, 4, 5))
    assert isinstance(result, Void)
    assert result.reason == "shares-wrong"


def test_a_reveal_with_too_few_shares_is_refused() -> None:
    with pytest.raises(PartyFault, match="reveal-malformed") as refused:
        round_with_wrong_reveals({3: lambda s: s[:-32]}, answers=(1, 2, 3, 4))
    assert refused.value.party == 3


def with_wrong_messages(kind: str, party: int, **changes):
    """A set-up in which one party signed other contents; rounds then run on it."""
    fed = set_up(epoch_params(5, 4, 2, rounds=1))
    envelopes, readies = dict(fed.envelopes), dict(fed.readies)
    if kind == "shr":
        message = messages.open_from(messages.Shares, envelopes[party], fed.params.party(party), max_bytes=10**4)
        altered = {name: change(getattr(message, name)) for name, change in changes.items()}
        envelopes[party] = messages.seal(identity(party), replace(message, **altered))
    else:
        message = messages.open_from(messages.Ready, readies[party], fed.params.party(party), max_bytes=10**4)
        altered = {name: change(getattr(message, name)) for name, change in changes.items()}
        readies[party] = messages.seal(identity(party), replace(message, **altered))
    fed.epoch = server_setup.restore(fed.params, fed.adverts, envelopes, readies)
    return fed


@pytest.mark.parametrize(("secret", "uploads"), [("masks", (1, 2, 3, 4, 5)), ("openers", (1, 3, 4, 5))])
def test_a_dealer_whose_secret_is_not_what_it_committed_to_voids_the_round_and_is_named(secret, uploads) -> None:
    fed = with_wrong_messages("shr", 2, **{secret: flipped})
    result = run_round(fed, fed.start(), vectors(fed.all, 7), uploads=uploads).result
    assert result == Void(0, "shares-wrong", frozenset({2}))


def test_a_wrongly_wrapped_edge_key_voids_the_round_and_is_named() -> None:
    fed = with_wrong_messages("rdy", 2, wrapped=flipped)
    result = run_round(fed, fed.start(), vectors(fed.all, 7), uploads=(1, 3, 4, 5)).result
    assert result == Void(0, "edges-wrong", frozenset({2}))


def test_a_wrongly_wrapped_edge_key_does_no_harm_when_its_owner_stays() -> None:
    fed = with_wrong_messages("rdy", 2, wrapped=flipped)
    inputs = vectors(fed.all, 7)
    result = run_round(fed, fed.start(), inputs, uploads=(1, 2, 3, 4)).result
    np.testing.assert_array_equal(result.total, plain_sum(inputs, (1, 2, 3, 4)))


def test_two_ends_that_published_different_tags_end_the_set_up() -> None:
    with pytest.raises(PartyFault, match="edge-differs") as refused:
        with_wrong_messages("rdy", 2, tags=lambda rows: bytes(len(rows)))
    assert refused.value.party == 2, "it differs from everybody"
    with pytest.raises(PartyFault, match="edge-differs") as refused:
        with_wrong_messages("rdy", 1, tags=flipped)
    assert refused.value.party == 2, "one differing edge accuses the higher index of its two ends"


@pytest.mark.parametrize("name", ["masks", "openers", "boxes"])
def test_a_share_message_with_missing_rows_is_refused(name: str) -> None:
    with pytest.raises(PartyFault, match="shares-malformed"):
        with_wrong_messages("shr", 3, **{name: lambda rows: rows[:-32]})


@pytest.mark.parametrize(("name", "row"), [("wrapped", 32), ("tags", 16)])
def test_a_ready_message_with_missing_rows_is_refused(name: str, row: int) -> None:
    with pytest.raises(PartyFault, match="ready-malformed"):
        with_wrong_messages("rdy", 3, **{name: lambda rows: rows[:-row]})


def test_the_coordinator_names_a_dealer_with_wrong_or_missing_boxes() -> None:
    params = epoch_params()
    first = {i: client_setup.advertise(params, i, identity(i), stream(i)) for i in params.indices}
    adverts = {i: advert for i, (_, advert) in first.items()}
    waiting = server_setup.collect_adverts(server_setup.open_setup(params), adverts)
    second = {i: client_setup.share(first[i][0], adverts, stream(i))[1] for i in params.indices}
    sent = {i: m.envelope for i, m in second.items()}
    boxes = {i: dict(m.boxes) for i, m in second.items()}
    for code, wrong in (
        ("box-swapped", boxes[3] | {1: boxes[3][2]}),
        ("box-invalid", boxes[3] | {1: boxes[3][1][:-1]}),
        ("boxes-incomplete", {1: boxes[3][1]}),
        ("boxes-incomplete", boxes[3] | {3: b""}),
    ):
        with pytest.raises(PartyFault, match=code) as refused:
            server_setup.collect_shares(waiting, sent, boxes | {3: wrong})
        assert refused.value.party == 3
    with pytest.raises(PartyFault, match="setup-incomplete"):
        server_setup.collect_shares(waiting, {i: sent[i] for i in (1, 2, 4)}, boxes)
    routed = server_setup.collect_shares(waiting, sent, boxes)
    assert routed.deliveries[2].boxes == {j: boxes[j][2] for j in (1, 3, 4)}


def test_a_key_that_no_secret_can_be_agreed_with_names_its_party() -> None:
    """X25519's point of order two passes as bytes, not in the agreement."""
    from cameo_protocol.secagg.transcript import expected_advert

    params = epoch_params()
    first = {i: client_setup.advertise(params, i, identity(i), stream(i)) for i in params.indices}
    adverts = {i: advert for i, (_, advert) in first.items()}
    good = messages.open_from(messages.Advert, adverts[3], params.party(3), max_bytes=4096)
    adverts[3] = messages.seal(identity(3), expected_advert(params, 3, good.mlkem, bytes(32)))
    with pytest.raises(PartyFault, match="key-invalid") as refused:
        client_setup.share(first[1][0], adverts, stream(0))
    assert refused.value.party == 3
    adverts[3] = messages.seal(identity(3), expected_advert(params, 3, b"\xff" * 1184, good.x25519))
    with pytest.raises(PartyFault, match="key-invalid") as refused:
        client_setup.share(first[1][0], adverts, stream(0))
    assert refused.value.party == 3


def test_a_box_signed_by_its_dealer_that_does_not_open_names_the_dealer() -> None:
    params = epoch_params()
    first = {i: client_setup.advertise(params, i, identity(i), stream(i)) for i in params.indices}
    adverts = {i: advert for i, (_, advert) in first.items()}
    second = {i: client_setup.share(first[i][0], adverts, stream(i)) for i in params.indices}
    sent = {i: m.envelope for i, (_, m) in second.items()}
    boxes = {j: second[j][1].boxes[1] for j in (2, 3, 4)}
    garbage = bytes(len(boxes[3]))
    from cameo_protocol.secagg.boxes import box_hash

    message = messages.open_from(messages.Shares, sent[3], params.party(3), max_bytes=10**4)
    lie = replace(message, boxes=box_hash(garbage) + message.boxes[32:])
    sent[3] = messages.seal(identity(3), lie)
    with pytest.raises(PartyFault, match="box-invalid") as refused:
        client_setup.ready(second[1][0], sent, boxes | {3: garbage}, MemoryJournal())
    assert refused.value.party == 3
