"""Four hospitals of a federation, open in this process, and a coordinator that stops where a test wants it to."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cameo_client.consent.exchange import read_csv
from cameo_client.consent.store import ConsentStore
from cameo_client.home import DataConfig, NodeHome, load_pseudonym_key
from cameo_client.membership import accept, init_node, review
from cameo_client.node.service import Node, open_node
from cameo_lab.generate.generator import generate
from cameo_lab.in_process import DirectExchange
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_server.app import drive
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.membership import add_site, init_coordinator, issue_federation
from cameo_server.run.store import RunStore
from passed_audit import keep_passed_audit

SITES = (1, 2, 3, 4)
OVERRIDES = ("training.rounds=2", "training.spare=2", "data.population=600", "deadlines.regroup=0")


class Halted(BaseException):
    """The coordinator is gone; nothing more is delivered."""


@dataclass
class World:
    """A federation on disk with its hospitals open. asked: what hospital 1 was asked, in order, the last unanswered."""

    homes: Path
    coordinator: CoordinatorHome
    nodes: dict[int, Node]
    plan: RunPlan
    asked: list[Packet] = field(default_factory=list)

    @property
    def first(self) -> Node:
        """Hospital 1."""
        return self.nodes[1]

    def run_until(self, stage: str, nth: int = 1) -> Packet:
        """Drive a run until hospital 1 would get its nth message of a stage; returns that message, undelivered."""
        seen: Counter[str] = Counter()
        halted: list[Packet] = []

        def handler(site: int) -> Callable[[Packet], Packet]:
            def handle(packet: Packet) -> Packet:
                if halted:
                    raise Halted
                if site == 1:
                    seen[packet.kind] += 1
                    self.asked.append(packet)
                    if packet.kind == stage and seen[stage] == nth:
                        halted.append(packet)
                        raise Halted
                return self.nodes[site].hospital.handle(packet)

            return handle

        store = RunStore(self.coordinator.runs / "r1")
        store.create(self.plan.canonical())
        exchange = DirectExchange({100 + site: handler(site) for site in self.nodes})
        with pytest.raises(Halted):
            drive(exchange, self.coordinator, store, "r1", self.plan, {site: 100 + site for site in self.nodes})
        return halted[0]


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes of four hospitals of 60 patients that have joined; copied for every test."""
    root, now = tmp_path_factory.mktemp("nodes"), datetime.now(UTC)
    generated = generate(root / "data", len(SITES), 60, 7)
    coordinator = CoordinatorHome(root / "homes" / "coordinator")
    init_coordinator(coordinator, federation="demo", host="localhost", fleet_port=9999, now=now)
    homes = []
    for index, site in zip(SITES, generated.sites, strict=True):
        home = NodeHome(root / "homes" / f"h{index}")
        data = DataConfig(kind="table", path=str(site.facts), mapping="cardiometabolic")
        init_node(home, site=f"hospital-{index}", data=data, now=now)
        add_site(coordinator, home.card.read_bytes(), now)
        homes.append((home, site))
    document = issue_federation(coordinator, now)
    for home, site in homes:
        accept(home, review(home, document))
        with ConsentStore.open(home.consent) as consents:
            consents.add(read_csv(site.consents, load_pseudonym_key(home.pseudonym_key)), now=now)
    return root / "homes"


@pytest.fixture(scope="session")
def plan(federation: Path) -> RunPlan:
    """One plan for all tests; it binds the keys of the federation, which every copy shares."""
    home = CoordinatorHome(federation / "coordinator")
    return keep_passed_audit(home, make_plan(home, OVERRIDES))


@pytest.fixture
def homes(federation: Path, tmp_path: Path) -> Path:
    """A fresh copy of all homes."""
    return Path(shutil.copytree(federation, tmp_path / "homes"))


@pytest.fixture
def world(homes: Path, plan: RunPlan) -> Iterator[World]:
    """All hospitals open."""
    with ExitStack() as stack:
        nodes = {site: open_node(NodeHome(homes / f"h{site}"), stack) for site in SITES}
        yield World(homes, CoordinatorHome(homes / "coordinator"), nodes, plan)
