"""The numbers that a monitoring system on the machine may scrape."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from cameo_client.ledger import Caps as LedgerCaps
from cameo_client.ledger import Ledger
from cameo_client.metrics import NodeMetrics
from cameo_lab.bench.local import free_port
from cameo_protocol.errors import OperatorError
from cameo_protocol.packet import Packet
from cameo_protocol.policy import Caps
from cameo_protocol.privacy.releases import Release
from cameo_protocol.stages import ACK, UPLOAD, error_packet
from cameo_protocol.web.scrape import serve_metrics
from cameo_server.home import CoordinatorHome
from cameo_server.metrics import coordinator_registry
from cameo_server.run.store import RunStore

Numbers = dict[tuple[str, str], float]


def scrape(registry: CollectorRegistry) -> Numbers:
    """Over HTTP, as Prometheus does: (name, first label) -> value."""
    port = free_port()
    with serve_metrics(registry, port), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name, next(iter(s.labels.values()), "")): s.value for s in samples if not s.name.endswith("_bucket")}


def test_a_node_counts_rounds_and_times_stages() -> None:
    ticks = iter(range(100))
    metrics = NodeMetrics(clock=lambda: 1_700_000_000.0, stopwatch=lambda: next(ticks) / 10)
    answers = {UPLOAD: Packet(UPLOAD, b"x"), ACK: Packet(ACK, b"x"), "made-up": error_packet("unknown-stage")}
    handle = metrics.watching(lambda packet: answers[packet.kind])
    for kind in (UPLOAD, UPLOAD, ACK, "made-up"):
        assert handle(Packet(kind, b"")) is answers[kind]
    answers[UPLOAD] = error_packet("failed-local")
    handle(Packet(UPLOAD, b""))
    found = scrape(metrics.registry)
    assert found["cameo_rounds_total", "released"] == 2
    assert found["cameo_rounds_total", "refused"] == 1
    assert found["cameo_stage_seconds_count", UPLOAD] == 2
    assert found["cameo_stage_seconds_sum", ACK] == pytest.approx(0.1)
    assert found["cameo_last_contact_timestamp_seconds", ""] == 1_700_000_000
    assert not [key for key in found if "made-up" in key]


def test_a_node_shows_its_budget_and_quality(tmp_path: Path) -> None:
    options = {"dataset": "patients", "delta": 1e-5, "clock": time.time}
    path = tmp_path / "ledger.sqlite"
    quality: list[float | None] = [None]
    with Ledger.create(path, random=bytes, **options) as ledger:  # type: ignore[arg-type]
        metrics = NodeMetrics()
        metrics.add_budget(ledger, lambda: Caps(epsilon_per_data_set=8, epsilon_per_year=3))
        metrics.add_quality(lambda: quality[0])
        before = scrape(metrics.registry)
        assert before["cameo_epsilon_spent", ""] == 0
        assert ("cameo_quality_score", "") not in before, "nothing has been read yet"
        ledger.reserve("r1", "p" * 64, (("risk", Release(sigma=5.0, q=1.0, count=4)),), LedgerCaps(dataset=8, year=8))
        ledger.commit("r1", 0, "train", (("risk", Release(sigma=5.0, q=1.0, count=1)),))
        quality[0] = 97.5
        after = scrape(metrics.registry)
        assert after["cameo_epsilon_spent", ""] == pytest.approx(ledger.spent())
        assert after["cameo_epsilon_held", ""] == pytest.approx(ledger.held())
    assert 0 < after["cameo_epsilon_spent", ""] < after["cameo_epsilon_held", ""]
    assert (after["cameo_epsilon_cap", "data_set"], after["cameo_epsilon_cap", "year"]) == (8, 3)
    assert after["cameo_quality_score", ""] == 97.5


def test_the_coordinator_counts_what_its_runs_say_and_again_after_a_restart(tmp_path: Path) -> None:
    home = CoordinatorHome(tmp_path)
    store = RunStore(home.runs / "r1", clock=lambda: 5.0)
    store.create(b"{}")
    store.event("round", seconds={"upload": 0.5, "ack": 0.25})
    registry = coordinator_registry(home, lambda: {"a": True, "b": False})
    scrape(registry)
    store.event("round", seconds={"upload": 1.5})
    store.event("void", seconds={"upload": 1.0})
    store.event("published", stored=[])
    expected = {
        ("cameo_rounds_total", "opened"): 2.0,
        ("cameo_rounds_total", "void"): 1.0,
        ("cameo_runs_total", "published"): 1.0,
        ("cameo_runs_total", "stopped"): 0.0,
        ("cameo_stage_seconds_count", "upload"): 3.0,
        ("cameo_stage_seconds_sum", "upload"): 3.0,
        ("cameo_site_online", "a"): 1.0,
        ("cameo_site_online", "b"): 0.0,
        ("cameo_last_event_timestamp_seconds", ""): 5.0,
    }
    for numbers in (scrape(registry), scrape(coordinator_registry(home, lambda: {"a": True, "b": False}))):
        assert expected.items() <= numbers.items()
    assert "quality" not in json.dumps([name for name, _ in expected])


def test_only_this_machine_and_only_by_its_own_name() -> None:
    registry, port = CollectorRegistry(), free_port()
    Gauge("cameo_quality_score", "x", registry=registry).set(91.25)
    with serve_metrics(registry, port):
        listening = [c.laddr for c in psutil.Process().net_connections("inet") if c.laddr.port == port and not c.raddr]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        for host, path, status in (
            ("localhost", "/metrics", 200),
            ("localhost", "/", 404),
            ("evil.example", "/metrics", 404),
        ):
            connection = HTTPConnection("127.0.0.1", port)
            connection.request("GET", path, headers={"Host": f"{host}:{port}"})
            answer = connection.getresponse()
            assert (answer.status, b"91.25" in answer.read()) == (status, status == 200)
            connection.close()
        with pytest.raises(OperatorError, match="port-taken"), serve_metrics(registry, port):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


def test_a_scrape_that_fails_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    metrics, port = NodeMetrics(), free_port()
    broken: dict[str, float] = {}
    metrics.add_quality(lambda: broken["Zhang Wei"])
    with serve_metrics(metrics.registry, port), pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
    assert failed.value.code == 500
    assert "Zhang" not in failed.value.read().decode() + "".join(capfd.readouterr())
