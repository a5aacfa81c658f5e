"""Sessions of a page: in memory, ended by time, by log-out, and by a restart."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cameo_protocol.web.links import Visitor

IDLE_SECONDS: Final = 30 * 60
LONGEST_SECONDS: Final = 12 * 3600
MOST_SESSIONS: Final = 200
# Time servers set a clock back by less; when it is set back further, nobody knows how long a session has lasted.
SET_BACK_SECONDS: Final = 60


@dataclass
class _Session:
    visitor: Visitor
    began: float
    seen: float


@dataclass
class Sessions:
    """Who is logged in. random: bytes from the operating system; clock: unix seconds."""

    random: Callable[[int], bytes]
    clock: Callable[[], float]
    _open: dict[bytes, _Session] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin(self, visitor: Visitor) -> str:
        """The cookie of a new session. Only its hash is kept."""
        cookie, now = self.random(32).hex(), self.clock()
        with self._lock:
            self._drop_ended(now)
            if len(self._open) >= MOST_SESSIONS:
                del self._open[min(self._open, key=lambda key: self._open[key].seen)]
            self._open[_key(cookie)] = _Session(visitor, now, now)
        return cookie

    def find(self, cookie: str, *, touch: bool = True) -> Visitor | None:
        """Who the cookie belongs to; None when there is no such session any more.

        touch: whether this counts as a sign of life. Pages that refresh themselves do not.
        """
        now = self.clock()
        with self._lock:
            self._drop_ended(now)
            session = self._open.get(_key(cookie))
            if session is None:
                return None
            if touch:
                session.seen = now
            return session.visitor

    def end(self, cookie: str) -> None:
        """Log out."""
        with self._lock:
            self._open.pop(_key(cookie), None)

    def _drop_ended(self, now: float) -> None:
        ended = [
            key
            for key, session in self._open.items()
            if not -SET_BACK_SECONDS <= now - session.seen <= IDLE_SECONDS or now - session.began > LONGEST_SECONDS
        ]
        for key in ended:
            del self._open[key]


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
