"""Parameters of an epoch and starts of a round: what is accepted, what is refused, what the digests bind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from secagg_parties import MODEL, epoch_params, histogram, identity, layout, run_round, set_up, vectors

from cameo_protocol.errors import Reject
from cameo_protocol.layout import Layout
from cameo_protocol.secagg import client_setup
from cameo_protocol.secagg.params import (
    EpochParams,
    Party,
    RoundStart,
    check_start,
    default_threshold,
    most_colluders,
)
from cameo_protocol.secagg.server_round import Void

GOOD = epoch_params()
BLOCK = layout().blocks[0]


def with_block(**changes):
    return (Layout(kind="train", blocks=(replace(BLOCK, **changes),)),)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 2},
        {"threshold": 5},
        {"colluders": 2},
        {"colluders": -1},
        {"rounds": 0},
        {"rounds": 5000},
        {"epoch": -1},
        {"plan_id": b""},
        {"plan_id": bytes(65)},
        {"run_id": "x" * 129},
        {"layouts": ()},
        {"layouts": (layout(), layout())},
        {"layouts": (Layout(kind="train", blocks=()),)},
        {"layouts": with_block(dim=0)},
        {"layouts": with_block(sigma=0.0)},
        {"layouts": with_block(sigma=float("nan"))},
        {"layouts": with_block(clip=float("inf"))},
        {"layouts": with_block(bound=-1.0)},
        {"layouts": with_block(scale=0)},
        {"layouts": with_block(counts=True)},
        {"parties": GOOD.parties[:2]},
        {"parties": GOOD.parties[::-1]},
        {"parties": (*GOOD.parties[:3], Party(300, bytes(32)))},
        {"parties": (Party(0, bytes(32)), *GOOD.parties[1:])},
        {"parties": (*GOOD.parties[:3], Party(3, bytes(32)))},
        {"parties": (*GOOD.parties[:3], Party(9, GOOD.parties[0].identity))},
        {"parties": (*GOOD.parties[:3], Party(9, bytes(31)))},
    ],
)
def test_unsound_parameters_are_refused(changes) -> None:
    with pytest.raises(Reject, match="epoch-invalid"):
        replace(GOOD, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"plan_id": b"other"},
        {"run_id": "other"},
        {"epoch": 1},
        {"rounds": 4},
        {"threshold": 4},
        {"colluders": 0},
        {"noise": "local"},
        {"layouts": (layout(),)},
        {"layouts": (replace(layout(), blocks=(replace(BLOCK, sigma=1.5),)), histogram())},
        {"parties": (*GOOD.parties[:3], Party(9, GOOD.parties[3].identity))},
        {"parties": (*GOOD.parties[:3], Party(4, bytes(32)))},
    ],
)
def test_every_fact_is_bound_by_the_digest(changes) -> None:
    assert replace(GOOD, **changes).digest() != GOOD.digest()


def test_a_start_binds_its_invited_set_model_and_kind() -> None:
    start = RoundStart(0, "train", frozenset({1, 2, 3}), MODEL)
    assert replace(start, invited=frozenset({1, 2, 4})).invited_digest() != start.invited_digest()
    assert replace(start, model_hash=bytes(32)).context(GOOD) != start.context(GOOD)
    assert replace(start, kind="evaluate").context(GOOD) != start.context(GOOD)
    louder = replace(GOOD, layouts=with_block(sigma=2.0))
    assert start.context(louder) != start.context(GOOD)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"round_no": -1}, "round-unknown"),
        ({"round_no": 3}, "round-unknown"),
        ({"kind": "recalibrate"}, "kind-unknown"),
        ({"invited": frozenset({1, 2, 9})}, "invited-foreign"),
        ({"invited": frozenset({1, 2})}, "invited-too-small"),
        ({"invited": frozenset()}, "invited-too-small"),
        ({"model_hash": b""}, "model-hash-invalid"),
    ],
)
def test_unsound_starts_are_refused(changes, code) -> None:
    start = RoundStart(0, "train", frozenset({1, 2, 3}), MODEL)
    check_start(GOOD, (1, 2, 3, 4), start)
    with pytest.raises(Reject, match=code):
        check_start(GOOD, (1, 2, 3, 4), replace(start, **changes))


def test_default_threshold_and_colluders() -> None:
    assert [(n, default_threshold(n), most_colluders(n, default_threshold(n))) for n in (3, 4, 5, 10, 100)] == [
        (3, 3, 2),
        (4, 3, 1),
        (5, 4, 2),
        (10, 7, 3),
        (100, 67, 33),
    ]


def test_three_hospitals_tolerate_no_dropout() -> None:
    fed = set_up(epoch_params(3, 3, 2))
    assert fed.params.least == 3
    result = run_round(fed, fed.start(), vectors(fed.all, 7), uploads=(1, 2)).result
    assert result == Void(0, "uploads-too-few")


def test_a_sum_has_at_least_three_survivors_whatever_the_threshold() -> None:
    """n=3, t=2, c=0 is a sound quorum, but a sum of two shows each of them the other's."""
    fed = set_up(epoch_params(3, 2, 0))
    assert fed.params.least == 3
    with pytest.raises(Reject, match="invited-too-small"):
        check_start(fed.params, fed.all, fed.start(invited=(1, 2)))
    assert isinstance(run_round(fed, fed.start(), vectors(fed.all, 7), uploads=(1, 2)).result, Void)


def test_an_identity_other_than_the_rosters_is_refused() -> None:
    with pytest.raises(Reject, match="identity-differs"):
        client_setup.advertise(GOOD, 1, identity(2), bytes)
    with pytest.raises(Reject, match="party-unknown"):
        client_setup.advertise(GOOD, 9, identity(9), bytes)


def test_parameters_are_frozen_and_by_name() -> None:
    with pytest.raises(AttributeError):
        GOOD.threshold = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        EpochParams(b"plan", "run")  # type: ignore[call-arg]
