"""A dashboard on a free port over a home with a run and some hospitals, and a real browser where there is one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cameo_lab.bench.local import free_port
from cameo_protocol.web.links import Visitor, make_link
from cameo_server.api.services import Coordinator
from cameo_server.dashboard.keys import page_key
from cameo_server.dashboard.server import serve_dashboard
from cameo_server.home import CoordinatorHome
from cameo_server.membership import init_coordinator, open_roster
from cameo_server.run.store import RunStore

ROLES = ("coordinator", "researcher", "auditor")
HOSTILE = "<script>document.title='taken'</script>"


@dataclass
class Page:
    home: CoordinatorHome
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def link(self, role: str = "coordinator", made: float | None = None) -> str:
        made = time.time() if made is None else made
        code = make_link(page_key(self.home), Visitor(role, role), made, os.urandom(16))
        return f"{self.url}/login?link={code}"

    @contextmanager
    def client(self, role: str | None = "coordinator") -> Iterator[httpx.Client]:
        headers = {"Origin": self.url, "Accept": "text/html"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False) as client:
            if role is not None:
                assert client.get(self.link(role)).status_code == 303
            yield client


def round_event(store: RunStore, step: int) -> None:
    store.event(
        "round",
        kind="train",
        step=step,
        epoch=1,
        round=step + 1,
        seconds={"upload": 0.4, "ack": 0.1, "reveal": 0.1},
        total_seconds=0.6,
        invited=["hospital-a"],
        survivors=["hospital-a"],
        norms={"risk": 1.0 / (step + 1), "segment": 2.0},
    )


def make_run(home: CoordinatorHome, plan: bytes, run: str = "r1", rounds: int = 3) -> RunStore:
    store = RunStore(home.runs / run)
    store.create(plan)
    store.event("start", run=run, plan_id="0" * 64, name=json.loads(plan)["name"])
    for site in json.loads(plan)["cohort"]["sites"]:
        store.event("admission", site=site["name"], answer="accept")
    for step in range(rounds):
        round_event(store, step)
    return store


@pytest.fixture(scope="session")
def plan_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from cameo_protocol.plan import Site
    from cameo_server.launch import make_plan_for

    sites = [Site(name=f"hospital-{i}", index=i, identity=f"{i:064x}") for i in range(1, 5)]
    return make_plan_for(sites, ["data=heart"]).canonical()


@pytest.fixture
def page(tmp_path: Path, plan_bytes: bytes) -> Iterator[Page]:
    home, port = CoordinatorHome(tmp_path / "home"), free_port()
    init_coordinator(home, federation="study", host="localhost", fleet_port=9092, page_port=port, now=datetime.now(UTC))
    make_run(home, plan_bytes)
    with open_roster(home) as db:  # a name that the command line refuses: it must stay text all the same
        for index, name in enumerate((HOSTILE, "hospital-b"), 1):
            db.execute(
                "INSERT INTO sites VALUES (?, ?, ?, ?, '2026-01-01T00:00:00Z', NULL)",
                (index, name, f"{index:064x}", f"02{index:096x}"),
            )
    with serve_dashboard(Coordinator(home, contacts=lambda: {"hospital-b": False})):
        yield Page(home, port)
