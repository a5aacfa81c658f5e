"""The hospitals of a run as the coordinator reaches them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.secagg.params import LEAST_SURVIVORS
from cameo_protocol.stages import ERROR, UPLOAD, error_code
from cameo_server.run.heads import Heads
from cameo_server.run.store import RunStore


class Exchange(Protocol):
    """How packets reach hospitals. Keys are Flower node ids."""

    def ask(self, requests: Mapping[int, Packet], deadline_s: float) -> Iterator[tuple[int, Packet]]:
        """Send a packet to each node, yield the answers as they come, end when all answered or at the deadline."""

    def post(self, requests: Mapping[int, Packet]) -> None:
        """Leave a packet for each node and do not wait."""

    def collect(self) -> Iterator[tuple[int, Packet]]:
        """The answers to posted packets that have arrived by now."""


@dataclass
class Traffic:
    """Vectors that arrived: masked ones that were verified, others (there is no message that carries one), and bytes.

    bytes: of all answers, bodies and vectors.
    """

    masked: int = 0
    clear: int = 0
    bytes: int = 0


@dataclass
class Parties:
    """Who is who, who still answers, and how to ask them.

    nodes: Shamir index -> Flower node id. active: indices that are expected to answer the next stage. declined: those
    that said no to the run. clock, pause: monotonic seconds, and waiting some. head_file: where the heads of ledgers
    that hospitals told are kept over runs; None: only in `heads`. former: site name -> identities (hex) that a hospital
    of that name had before.
    """

    plan: RunPlan
    nodes: Mapping[int, int]
    exchange: Exchange
    store: RunStore
    clock: Callable[[], float]
    pause: Callable[[float], None]
    active: set[int] = field(default_factory=set)
    declined: set[int] = field(default_factory=set)
    traffic: Traffic = field(default_factory=Traffic)
    heads: Heads = field(init=False)
    head_file: Path | None = None
    former: Mapping[str, Iterable[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.heads = Heads(self.plan, self.head_file, self.former)

    @property
    def least(self) -> int:
        """How many hospitals a round needs: max(t, 3)."""
        return max(self.plan.cohort.threshold, LEAST_SURVIVORS)

    def names(self, indices: Iterable[int]) -> list[str]:
        """Site names in index order, for events."""
        by_index = {site.index: site.name for site in self.plan.cohort.sites}
        return [by_index[index] for index in sorted(indices)]

    def identity(self, index: int) -> bytes:
        """A site's 32-byte identity key."""
        for site in self.plan.cohort.sites:
            if site.index == index:
                return bytes.fromhex(site.identity)
        raise KeyError(index)

    def ask(
        self,
        stage: str,
        requests: Mapping[int, Packet],
        deadline: float,
        *,
        drop_silent: bool = True,
        counted_on: Collection[int] | None = None,
        enough: Callable[[], bool] = lambda: True,
    ) -> Iterator[tuple[int, Packet]]:
        """Ask the parties of `requests` (by index); yields answers, and drops who is late or answers with an error.

        It ends when all of `counted_on` (None: everybody) have answered and it is `enough`, at the latest at the
        deadline. A party that does not answer (unless drop_silent is off), or refuses, leaves `active`; an event says
        so.
        """
        by_node = {self.nodes[index]: index for index in requests}
        missing = set(requests)
        due = set(requests if counted_on is None else counted_on)
        for node, packet in self.exchange.ask({self.nodes[i]: p for i, p in requests.items()}, deadline):
            index = by_node[node]
            missing.discard(index)
            self.traffic.bytes += len(packet.body) + len(packet.vector)
            if packet.vector and stage != UPLOAD:
                self.traffic.clear += 1
            if packet.kind == stage:
                yield index, packet
            else:
                self.drop(index, stage, error_code(packet.body) if packet.kind == ERROR else "wrong-answer")
            due.discard(index)
            if not due and enough():
                break
        for index in missing if drop_silent else ():
            self.drop(index, stage, "no-answer")

    def post(self, requests: Mapping[int, Packet]) -> None:
        """Leave packets (by index) without waiting."""
        if requests:
            self.exchange.post({self.nodes[index]: packet for index, packet in requests.items()})

    def collect(self) -> Iterator[tuple[int, Packet]]:
        """Answers to posted packets, by index."""
        by_node = {node: index for index, node in self.nodes.items()}
        for node, packet in self.exchange.collect():
            yield by_node[node], packet

    def take_heads(self, told: Mapping[int, bytes], passed_on: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Keep the signed heads that hospitals just told of themselves, and those of others that they passed on.

        told: by index. passed_on: (identity, head).

        A hospital whose audit log has lost what it once told is named in an event; it stays in the run.
        """
        cut = [index for index, head in told.items() if self.heads.cut(index, head)]
        for name in self.names(cut):
            self.store.event("audit-log-cut", site=name)
        self.heads.take(told, passed_on)

    def drop(self, index: int, stage: str, code: str, **detail: Any) -> None:
        """Take a party out of the active ones and say why; one that is out already changes nothing."""
        if index not in self.active:
            return
        self.active.discard(index)
        self.store.event("lost", site=self.names([index])[0], stage=stage, code=code, **detail)
