"""What a running node sees to by itself: its certificate, whether the roster has changed, and why it is not let in.

It never accepts anything: a person compares fingerprints and runs `cameo-node accept`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from cameo_client.enrolment import newest_federation, renew_if_due
from cameo_client.home import NodeHome, write_file
from cameo_client.membership import Review, review
from cameo_protocol.errors import CameoError, OperatorError

FILE = "upkeep.json"
FIRST_S, DAY_S, SPREAD_S = 60.0, 86400.0, 3600.0
# A node that is refused looks for the reason at once, but no more often than this.
AGAIN_S = 600.0
REVOKED = "certificate-refused"
REFUSED = (
    "refused: the coordinator does not let this node in. Either the hospital was taken out, or this machine's clock is"
    " more than 5 minutes off. It keeps trying. Next: cameo-node doctor"
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found last. looked: UTC; newest: issue of the federation file; error: code of a failure, or ""."""

    looked: str = ""
    newest: int = 0
    error: str = ""

    @classmethod
    def load(cls, home: NodeHome) -> Seen:
        """As it was left; nothing when there is none or it is unreadable."""
        try:
            kept = json.loads((home.root / FILE).read_bytes())
            return cls(looked=str(kept["looked"]), newest=int(kept["newest"]), error=str(kept["error"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()


@dataclass
class Upkeep:
    """Runs beside the agent. say: told what a person should know, in one line.

    clock: UTC. spread: draws from [0, 1): nodes that started together do not all ask together. ended: set when the
    coordinator has said that this hospital's certificate is revoked, which no waiting mends.
    """

    home: NodeHome
    say: Callable[[str], None]
    clock: Callable[[], datetime]
    spread: Callable[[], float]
    ended: CameoError | None = None
    _wake: threading.Event = field(default_factory=threading.Event)
    _told: set[str] = field(default_factory=set)
    _refused: float | None = None
    _state: str = ""

    def loop(self, stop: threading.Event) -> None:
        """Look soon after the start, then once a day, and when the node is refused; until stopped."""
        wait = FIRST_S * self.spread()
        while not stop.is_set():
            self._wake.wait(wait)
            self._wake.clear()
            if stop.is_set():
                return
            self.look()
            if self.ended is not None:
                stop.set()
            wait = DAY_S - SPREAD_S * self.spread()

    def wake(self) -> None:
        """End the present wait."""
        self._wake.set()

    def heard(self, state: str) -> None:
        """Pass on what the agent says of itself; a refusal that goes on is explained once, and looked into."""
        if state == "refused" or (state == "connecting" and self._state == "refused"):
            if self._state != "refused":
                self.say(REFUSED)
            if self._refused is None or time.monotonic() - self._refused > AGAIN_S:
                self._refused = time.monotonic()
                self.wake()
            self._state = "refused"
            return
        self._state = state
        self.say(state)

    def look(self) -> None:
        """Renew the certificate where it is due, and find out whether the roster has changed. Failures are told."""
        if not self.home.operator_cert.exists():  # joined by hand: files bring the news, and there is nothing to renew
            return
        now = self.clock()
        found = replace(Seen.load(self.home), looked=now.strftime("%Y-%m-%dT%H:%M:%SZ"), error="")
        try:
            if renew_if_due(self.home, now):
                self.say("this hospital's certificate has been renewed")
            changes = review(self.home, newest_federation(self.home))
            found = replace(found, newest=changes.federation.serial)
            if changes.changed:
                self._once(told(changes))
        except CameoError as error:
            found = replace(found, error=error.code)
            self._once(f"{error.code}: {error.what}. Next: {error.do}")
            if error.code == REVOKED:
                self.ended = error
        try:
            write_file(self.home.root / FILE, json.dumps(asdict(found)).encode())
        except OperatorError as error:  # a full disk stops rounds, not this thread
            self._once(f"{error.code}: {error.what}. Next: {error.do}")

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.say(text)


def told(changes: Review) -> str:
    """A changed roster in one line."""
    parts = [f"{name} is new or has a new key" for name in changes.joined]
    parts += [f"{name} is out" for name in changes.left]
    parts += [f"{what} changed" for what, _, _ in changes.terms]
    serial = changes.federation.serial
    return f"the roster has changed (issue {serial}: {'; '.join(parts)}). Compare and approve: cameo-node accept"
