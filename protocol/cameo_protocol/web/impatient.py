"""HTTP connections that are given a while to say what they want, and no longer.

uvicorn waits for ever for the first request of a connection, and for the rest of headers that come a byte at a time:
whoever opens many such connections would take all that a process may hold.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

HEADERS_S: Final = 10.0


def impatient(seconds: float = HEADERS_S) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which cuts a connection whose headers have not come so long after it was ready for them."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if not self._waits():
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(seconds, self._cut)

        def _waits(self) -> bool:
            """For headers: no request is being answered."""
            return self.cycle is None or bool(self.cycle.response_complete)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _cut(self) -> None:
            self._timer = None
            if self._waits() and not self.transport.is_closing():
                self.transport.close()

    return Impatient
