"""When a page's session ends, on a clock of ours."""

from __future__ import annotations

import itertools

import pytest

from cameo_protocol.web.links import Visitor
from cameo_protocol.web.sessions import IDLE_SECONDS, LONGEST_SECONDS, Sessions

WHO = Visitor("A. Officer", "officer")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    numbers = itertools.count(1)
    return Sessions(lambda n: next(numbers).to_bytes(n, "big"), clock)


def test_a_session_ends_when_nobody_uses_it(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.begin(WHO)
    for _ in range(3):
        clock.now += IDLE_SECONDS - 1
        assert sessions.find(cookie) == WHO, "used in time"
    clock.now += IDLE_SECONDS + 1
    assert sessions.find(cookie) is None
    clock.now -= 60
    assert sessions.find(cookie) is None, "what has ended does not come back"
    assert IDLE_SECONDS == 30 * 60


def test_a_page_that_refreshes_itself_keeps_no_session_open(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.begin(WHO)
    for _ in range(4):
        clock.now += IDLE_SECONDS / 3
        sessions.find(cookie, touch=False)
    assert sessions.find(cookie) is None


def test_a_session_ends_at_the_latest_after_half_a_day(sessions: Sessions, clock: Clock) -> None:
    cookie, begun = sessions.begin(WHO), clock.now
    while clock.now - begun < LONGEST_SECONDS - 600:
        clock.now += 600
        assert sessions.find(cookie) == WHO
    clock.now += 601
    assert sessions.find(cookie) is None
    assert LONGEST_SECONDS == 12 * 3600


def test_another_cookie_opens_nothing(sessions: Sessions) -> None:
    cookie = sessions.begin(WHO)
    for other in ("", cookie[:-1], cookie + "0", "0" * len(cookie)):
        assert sessions.find(other) is None
