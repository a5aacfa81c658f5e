"""One-time links: how a person at the machine's terminal gets into its page.

The command line and the page share a key on disk (0600). A link is good once, for some minutes, and only in the
process that was running when it was made: a restart makes it worthless, so nothing needs to remember used links.
"""

from __future__ import annotations

import hmac
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cameo_protocol import canonical
from cameo_protocol.errors import Reject

LINK_SECONDS: Final = 600
_MAC_BYTES: Final = 32
_MAX_BYTES: Final = 1024


@dataclass(frozen=True)
class Visitor:
    """Who holds a link or a session."""

    name: str
    role: str


def make_link(key: bytes, visitor: Visitor, now: float, nonce: bytes) -> str:
    """The code of a one-time link, text for a URL. key: 32 bytes; now: unix seconds; nonce: 16 random bytes."""
    body = canonical.encode({"name": visitor.name, "role": visitor.role, "made": int(now), "nonce": nonce})
    return urlsafe_b64encode(_mac(key, body) + body).rstrip(b"=").decode()


@dataclass
class Links:
    """Redeems links. started: unix seconds at which this process began to serve."""

    key: bytes = field(repr=False)
    clock: Callable[[], float]
    started: float
    _used: set[bytes] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def redeem(self, code: str) -> Visitor | None:
        """Who the link is for; None for one that is forged, used, too old, or older than this process."""
        try:
            raw = urlsafe_b64decode(code.encode() + b"=" * (-len(code) % 4))
            mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, _mac(self.key, body)):
                return None
            value = canonical.decode(body, max_bytes=_MAX_BYTES)
        except (NotBase64, ValueError, Reject):
            return None
        made = int(value["made"])
        # A link is stamped in whole seconds, so one made in the second of the start is good.
        if not int(self.started) <= made <= self.clock() + 1 or self.clock() - made > LINK_SECONDS:
            return None
        with self._lock:
            if value["nonce"] in self._used:
                return None
            self._used.add(value["nonce"])
        return Visitor(str(value["name"]), str(value["role"]))


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"cameo/page/link\0" + body, "sha256")
