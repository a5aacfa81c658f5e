"""What a monitoring system on this machine may scrape of a hospital's node. Loopback only; nothing here leaves.

The data quality score is derived from patients, so these numbers are for the hospital alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cameo_client.ledger import Ledger
from cameo_protocol.packet import Packet
from cameo_protocol.policy import Caps
from cameo_protocol.stages import ERROR, UPLOAD

BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass
class NodeMetrics:
    """One node's numbers. clock: seconds since 1970; stopwatch: monotonic seconds."""

    clock: Callable[[], float] = time.time
    stopwatch: Callable[[], float] = time.monotonic
    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=True))

    def __post_init__(self) -> None:
        self._rounds = Counter("cameo_rounds", "Rounds, by how they went here.", ["result"], registry=self.registry)
        for result in ("released", "refused"):
            self._rounds.labels(result)
        self._stages = Histogram(
            "cameo_stage_seconds", "Time to answer.", ["stage"], buckets=BUCKETS, registry=self.registry
        )
        self._contact = Gauge(
            "cameo_last_contact_timestamp_seconds", "When the coordinator last asked something.", registry=self.registry
        )

    def watching(self, handle: Callable[[Packet], Packet]) -> Callable[[Packet], Packet]:
        """A hospital's handler that is counted and timed. known stages only: a made-up name makes no label."""

        def watched(packet: Packet) -> Packet:
            begun = self.stopwatch()
            self._contact.set(self.clock())
            answer = handle(packet)
            if answer.kind == packet.kind:
                self._stages.labels(packet.kind).observe(self.stopwatch() - begun)
            if packet.kind == UPLOAD:
                self._rounds.labels("refused" if answer.kind == ERROR else "released").inc()
            return answer

        return watched

    def add_budget(self, ledger: Ledger, caps: Callable[[], Caps]) -> None:
        """Show what is spent and capped. ledger: a handle of its own, so that a scrape never holds up a round."""
        self.registry.register(_Budget(ledger, caps))

    def add_quality(self, score: Callable[[], float | None]) -> None:
        """Show the quality score of the data as last read; nothing before that."""
        self.registry.register(_Quality(score))


class _Budget(Collector):
    """Composed anew only when the ledger has grown."""

    def __init__(self, ledger: Ledger, caps: Callable[[], Caps]) -> None:
        self._ledger, self._caps = ledger, caps
        self._seen: object = None
        self._values: tuple[float, float] = (0.0, 0.0)

    def describe(self) -> list[Metric]:
        """No series before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Spent for ever, held with what open runs reserve, and the officer's caps."""
        head = self._ledger.head()
        if head != self._seen:
            self._values, self._seen = (self._ledger.spent(), self._ledger.held()), head
        caps = self._caps()
        yield _gauge("cameo_epsilon_spent", "Epsilon of everything released.", self._values[0])
        yield _gauge("cameo_epsilon_held", "Epsilon of everything released or reserved.", self._values[1])
        family = GaugeMetricFamily("cameo_epsilon_cap", "The officer's caps.", labels=["span"])
        family.add_metric(["data_set"], caps.epsilon_per_data_set)
        family.add_metric(["year"], caps.epsilon_per_year)
        yield family


class _Quality(Collector):
    def __init__(self, score: Callable[[], float | None]) -> None:
        self._score = score

    def describe(self) -> list[Metric]:
        """No series before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """0 to 100."""
        score = self._score()
        if score is not None:
            yield _gauge("cameo_quality_score", "Data quality when the data were last read, 0 to 100.", score)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
