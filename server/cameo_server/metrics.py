"""What a monitoring system on the coordinator's machine may scrape. Read from the runs' events: a restart loses none.

Everything here is what the coordinator may see anyway: rounds, stage times, who is connected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from cameo_protocol.web.scrape import serve_metrics
from cameo_server.api.services import Coordinator
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import PLAN, RunStore

RESULTS = {"round": "opened", "void": "void"}


def coordinator_registry(home: CoordinatorHome, contacts: Callable[[], dict[str, bool]]) -> CollectorRegistry:
    """contacts: hospital -> whether it is connected now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Runs(home))
    registry.register(_Contacts(contacts))
    return registry


@contextmanager
def serve_numbers(coordinator: Coordinator, port: int) -> Iterator[None]:
    """Answer on a loopback port until the block ends."""
    registry = coordinator_registry(coordinator.home, coordinator.contacts)
    with serve_metrics(registry, port):
        yield


class _Runs(Collector):
    """Totals over all runs of the home; a run's events are read once, as they grow."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._home = home
        self._read: Counter[str] = Counter()
        self._rounds: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._stages: dict[str, list[float]] = {}
        self._last = 0.0

    def describe(self) -> list[Metric]:
        """No series before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Rounds by result, seconds by stage, runs by their end, and when anything last happened."""
        self._catch_up()
        rounds = CounterMetricFamily("cameo_rounds", "Rounds of all runs.", labels=["result"])
        for result in RESULTS.values():
            rounds.add_metric([result], self._rounds[result])
        yield rounds
        ended = CounterMetricFamily("cameo_runs", "Runs that ended.", labels=["result"])
        for result in ("published", "stopped"):
            ended.add_metric([result], self._ended[result])
        yield ended
        stages = SummaryMetricFamily("cameo_stage_seconds", "Time of a stage of a round.", labels=["stage"])
        for stage, (count, total) in sorted(self._stages.items()):
            stages.add_metric([stage], count_value=int(count), sum_value=total)
        yield stages
        last = "cameo_last_event_timestamp_seconds"
        yield GaugeMetricFamily(last, "When something last happened in a run.", value=self._last)

    def _catch_up(self) -> None:
        folders = sorted(self._home.runs.iterdir()) if self._home.runs.is_dir() else []
        for folder in folders:
            if not (folder / PLAN).is_file():
                continue
            events = list(RunStore(folder).events())
            for event in events[self._read[folder.name] :]:
                self._take(event)
            self._read[folder.name] = len(events)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self._last = max(self._last, float(event["time"]))
        if kind in RESULTS:
            self._rounds[RESULTS[kind]] += 1
            for stage, seconds in event["seconds"].items():
                before = self._stages.setdefault(stage, [0.0, 0.0])
                self._stages[stage] = [before[0] + 1, before[1] + seconds]
        elif kind in ("published", "stopped"):
            self._ended[kind] += 1


class _Contacts(Collector):
    def __init__(self, contacts: Callable[[], dict[str, bool]]) -> None:
        self._contacts = contacts

    def describe(self) -> list[Metric]:
        """No series before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """1 for a hospital that is connected, 0 for one that is not."""
        online = GaugeMetricFamily("cameo_site_online", "Whether a hospital is connected.", labels=["site"])
        for name, yes in sorted(self._contacts().items()):
            online.add_metric([name], float(yes))
        yield online
