"""Hospitals in this very process: the same run loop over direct calls, for tests, sweeps and one-laptop research."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from cameo_protocol.packet import Packet

Handle = Callable[[Packet], Packet]


class Gone(Exception):
    """Raised by a handler whose hospital is lost: there is no answer."""


@dataclass
class DirectExchange:
    """Implements `cameo_server.run.party.Exchange` by calling handlers. handlers: node id -> a hospital's `handle`."""

    handlers: Mapping[int, Handle]
    _posted: list[tuple[int, Packet]] = field(default_factory=list)

    def ask(self, requests: Mapping[int, Packet], deadline_s: float) -> Iterator[tuple[int, Packet]]:  # noqa: ARG002
        """Ask one after the other; a handler that raises `Gone` does not answer. The deadline is not waited for."""
        for node, packet in requests.items():
            try:
                yield node, self.handlers[node](packet)
            except Gone:
                continue

    def post(self, requests: Mapping[int, Packet]) -> None:
        """Keep packets until their hospital is there again."""
        self._posted += list(requests.items())

    def collect(self) -> Iterator[tuple[int, Packet]]:
        """The answers of hospitals that are there now."""
        waiting, self._posted = self._posted, []
        for node, packet in waiting:
            try:
                yield node, self.handlers[node](packet)
            except Gone:
                self._posted.append((node, packet))
