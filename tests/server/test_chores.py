"""A chore that fails is tried again, and what is wrong with it is said once."""

from __future__ import annotations

import pytest

from cameo_protocol.errors import Bug, OperatorError
from cameo_server.chores import PASSING, Chore


def attempt(chore: Chore, code: str) -> None:
    with chore.tried():
        if code:
            raise OperatorError(code, what="it is so", do="do this")


@pytest.mark.parametrize(
    ("tries", "said"),
    [
        (["disk-write", "disk-write", "disk-write"], ["disk-write"]),
        (["disk-write", "", "disk-write"], ["disk-write", "disk-write"]),
        (["disk-write", "disk-read"], ["disk-write", "disk-read"]),
        ([PASSING, PASSING, ""], []),
    ],
)
def test_a_trouble_is_said_when_it_is_new(tries: list[str], said: list[str]) -> None:
    heard: list[str] = []
    chore = Chore(heard.append)
    for code in tries:
        attempt(chore, code)
    assert [text.partition(":")[0] for text in heard] == said
    assert all("do this" in text for text in heard)


def test_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(Bug), Chore(lambda _: None).tried():
        raise Bug("planted", what="an invariant does not hold")
