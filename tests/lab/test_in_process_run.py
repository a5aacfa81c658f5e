"""Whole runs in this process: real homes, keys, ledgers, data and secure sums; only the network is a function call."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cameo_client.consent.exchange import read_csv
from cameo_client.consent.store import ConsentStore
from cameo_client.home import DataConfig, NodeHome, load_pseudonym_key
from cameo_client.membership import accept, init_node, review
from cameo_client.node.contribution import Contributor
from cameo_client.node.service import LEDGER_DELTA, Node, open_node
from cameo_lab.generate.generator import generate
from cameo_lab.in_process import DirectExchange, Gone
from cameo_protocol.errors import OperatorError
from cameo_protocol.layout import RoundKind
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import round_releases
from cameo_protocol.stages import ACK, ADMIT, REVEAL, UPLOAD, RoundCall
from cameo_server.app import drive
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.membership import add_site, init_coordinator, issue_federation
from cameo_server.run.store import RunStore
from passed_audit import keep_passed_audit

SITES = (1, 2, 3, 4)
ROUNDS, SPARE = 3, 2
OVERRIDES = (f"training.rounds={ROUNDS}", f"training.spare={SPARE}", "data.population=600", "deadlines.regroup=0")
AFTER: tuple[RoundKind, ...] = ("recalibrate", "evaluate")
CUTS = [(stage, when) for stage in (UPLOAD, ACK, REVEAL) for when in ("before", "after")]


@dataclass(frozen=True)
class Cut:
    """Hospital `site` is lost at its nth message of a stage, before or after handling it; back: it returns at once."""

    site: int
    stage: str
    nth: int = 1
    when: str = "before"
    back: bool = False


@dataclass
class Wire:
    """What lies between coordinator and hospitals: it loses messages as told, and notes vectors by round."""

    nodes: Mapping[int, Node]
    cuts: tuple[Cut, ...]
    seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    dead: set[int] = field(default_factory=set)
    current: tuple[int, tuple[int, int]] = (0, (0, 0))
    vectors: dict[tuple[int, int], dict[int, Any]] = field(default_factory=dict)

    def handle(self, site: int, packet: Packet) -> Packet:
        if site in self.dead:
            raise Gone
        self.seen[site, packet.kind] += 1
        now = (site, packet.kind, self.seen[site, packet.kind])
        cut = next((c for c in self.cuts if (c.site, c.stage, c.nth) == now), None)
        if cut is not None and not cut.back:
            self.dead.add(site)
        if cut is not None and cut.when == "before":
            raise Gone
        if packet.kind == UPLOAD:
            call = RoundCall.decode(packet.body)
            self.current = (site, (call.epoch, call.round_no))
        answer = self.nodes[site].hospital.handle(packet)
        if cut is not None:
            raise Gone
        return answer

    def note(self, vector: Any) -> None:
        site, round_ = self.current
        self.vectors.setdefault(round_, {})[site] = vector.copy()


@dataclass
class World:
    """A federation on disk with its hospitals open."""

    coordinator: CoordinatorHome
    nodes: Mapping[int, Node]
    plan: RunPlan
    monkeypatch: pytest.MonkeyPatch

    def run(self, *cuts: Cut, name: str = "r1") -> tuple[Wire, RunStore]:
        """Drive a run to its end, well or stopped."""
        wire = Wire(self.nodes, cuts)
        honest = Contributor.noisy_vector

        def noisy_vector(this: Contributor, *args: Any) -> Any:
            vector = honest(this, *args)
            wire.note(vector)
            return vector

        store = RunStore(self.coordinator.runs / name)
        store.create(self.plan.canonical())
        with self.monkeypatch.context() as patch:
            patch.setattr(Contributor, "noisy_vector", noisy_vector)
            exchange = DirectExchange({100 + site: _handler(wire, site) for site in self.nodes})
            drive(exchange, self.coordinator, store, name, self.plan, {site: 100 + site for site in self.nodes})
        return wire, store

    @property
    def after(self) -> int:
        """How many rounds the plan has after training."""
        return sum(self.plan.rounds_of(kind) for kind in AFTER)

    def spend(self, train: int, evaluate: int = 0) -> float:
        """Epsilon of so many rounds, from the plan and the accountant alone; evaluate=1: all after training."""
        kinds = ["train"] * train + [kind for kind in AFTER for _ in range(evaluate * self.plan.rounds_of(kind))]
        return epsilon([r for kind in kinds for _, r in round_releases(self.plan, kind)], LEDGER_DELTA)  # type: ignore[arg-type]


def _handler(wire: Wire, site: int) -> Any:
    return lambda packet: wire.handle(site, packet)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hospitals of 150 patients that have joined a federation; copied for every test."""
    root, now = tmp_path_factory.mktemp("federation"), datetime.now(UTC)
    generated = generate(root / "data", len(SITES), 150, 7)
    coordinator = CoordinatorHome(root / "homes" / "coordinator")
    init_coordinator(coordinator, federation="demo", host="localhost", fleet_port=9999, now=now)
    homes = []
    for index, site in zip(SITES, generated.sites, strict=True):
        home = NodeHome(root / "homes" / f"h{index}")
        data = DataConfig(kind="table", path=str(site.facts), mapping="cardiometabolic")
        init_node(home, site=f"hospital-{index}", data=data, now=now)
        add_site(coordinator, home.card.read_bytes(), now)
        homes.append((home, site))
    federation = issue_federation(coordinator, now)
    for home, site in homes:
        accept(home, review(home, federation))
        with ConsentStore.open(home.consent) as consents:
            consents.add(read_csv(site.consents, load_pseudonym_key(home.pseudonym_key)), now=now)
    return root / "homes"


@pytest.fixture
def homes(template: Path, tmp_path: Path) -> Path:
    """A fresh copy of all homes."""
    return Path(shutil.copytree(template, tmp_path / "homes"))


@pytest.fixture
def world(homes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """All hospitals open, and a plan for them."""
    coordinator = CoordinatorHome(homes / "coordinator")
    plan = keep_passed_audit(coordinator, make_plan(coordinator, OVERRIDES))
    with ExitStack() as stack:
        nodes = {site: open_node(NodeHome(homes / f"h{site}"), stack) for site in SITES}
        yield World(coordinator, nodes, plan, monkeypatch)


def events(store: RunStore, kind: str) -> list[dict[str, Any]]:
    return [event for event in store.events() if event["event"] == kind]


def index_of(name: str) -> int:
    return int(name.removeprefix("hospital-"))


def check_openings(wire: Wire, store: RunStore) -> int:
    """Every opened sum is the sum modulo 2^32 of its survivors' noisy vectors; returns how many of them train."""
    carried = [event for event in store.events() if event["event"] in ("round", "void")]
    compared = 0
    for event, vectors in zip(carried, wire.vectors.values(), strict=True):
        path = store.folder / f"opening-{event['round']:04d}.npz"
        if event["event"] == "void":
            assert not path.exists()
            continue
        survivors = [vectors[index_of(name)] for name in event["survivors"]]
        plain = np.sum(np.stack(survivors).astype(np.uint64), axis=0) % 2**32
        assert np.array_equal(store.load_arrays(path.name)["total"], plain.astype(np.uint32))
        compared += event["kind"] == "train"
    return compared


def test_a_whole_run_publishes_and_every_ledger_agrees_with_the_accountant(world: World) -> None:
    wire, store = world.run()

    assert check_openings(wire, store) == ROUNDS
    (published,) = events(store, "published")
    assert published["stored"] == [f"hospital-{site}" for site in SITES]
    assert published["traffic"]["clear"] == 0
    assert published["traffic"]["masked"] == len(SITES) * (ROUNDS + world.after)
    expected = world.spend(train=ROUNDS, evaluate=1)
    assert 0 < expected <= world.plan.privacy.epsilon
    for node in world.nodes.values():
        assert node.ledger.spent() == pytest.approx(expected, rel=1e-9)
        assert node.ledger.reserved() == 0
        assert node.published.get_nowait() == "r1"
    card = json.loads((store.folder / "card.json").read_bytes())
    assert card["plan_id"] == world.plan.plan_id()
    assert set(card["models"]) == {task.name for task in world.plan.trained()}
    for name, digest in card["models"].items():
        assert hashlib.sha256((store.folder / f"{name}.safetensors").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(("stage", "when"), CUTS)
def test_one_lost_hospital_leaves_the_exact_sum_of_those_that_remain(world: World, stage: str, when: str) -> None:
    wire, store = world.run(Cut(2, stage, nth=2, when=when))

    assert check_openings(wire, store) == ROUNDS
    assert [(e["site"], e["stage"], e["code"]) for e in events(store, "lost")] == [("hospital-2", stage, "no-answer")]
    second = events(store, "round")[1]
    assert ("hospital-2" in second["survivors"]) == (stage != UPLOAD)
    later = [event["invited"] for event in events(store, "round")[2:]]
    assert all("hospital-2" not in invited for invited in later)
    assert events(store, "published")[0]["stored"] == ["hospital-1", "hospital-3", "hospital-4"]
    charged = 1 if (stage, when) == (UPLOAD, "before") else 2
    assert world.nodes[2].ledger.spent() == pytest.approx(world.spend(train=charged), rel=1e-9)
    assert world.nodes[1].ledger.spent() == pytest.approx(world.spend(train=ROUNDS, evaluate=1), rel=1e-9)


@pytest.mark.parametrize(("stage", "when"), CUTS)
def test_two_lost_hospitals_stop_the_run_and_the_spend_is_kept(world: World, stage: str, when: str) -> None:
    with pytest.raises(OperatorError) as stopped:
        world.run(Cut(2, stage, nth=2, when=when), Cut(3, stage, nth=2, when=when))
    assert stopped.value.code == "cohort-incomplete"
    store = RunStore(world.coordinator.runs / "r1")
    told = [event["event"] for event in store.events()]
    assert told[-2:] == ["stopped", "finished"]
    assert events(store, "stopped")[0]["code"] == "cohort-incomplete"
    assert len(events(store, "void")) == 1
    assert sorted(path.name for path in store.folder.glob("opening-*.npz")) == ["opening-0001.npz"]
    assert not list(store.folder.glob("*.safetensors"))
    for site in (1, 4):
        assert world.nodes[site].ledger.spent() == pytest.approx(world.spend(train=2), rel=1e-9)
        assert world.nodes[site].ledger.reserved() == 0
    lost = 1 if (stage, when) == (UPLOAD, "before") else 2
    assert world.nodes[2].ledger.spent() == pytest.approx(world.spend(train=lost), rel=1e-9)


def test_a_void_round_is_charged_and_never_asked_for_again(world: World) -> None:
    cuts = [Cut(site, ACK, when="after", back=True) for site in (2, 3)]
    wire, store = world.run(*cuts)

    (void,) = events(store, "void")
    assert void["step"] == 0
    assert [event["step"] for event in events(store, "round")] == [0, 1, 2] + [ROUNDS] * world.after
    assert len(wire.vectors) == ROUNDS + 1 + world.after  # every (epoch, round) pair is fresh
    assert check_openings(wire, store) == ROUNDS
    for node in world.nodes.values():
        assert node.ledger.spent() == pytest.approx(world.spend(train=ROUNDS + 1, evaluate=1), rel=1e-9)
    first, second = list(wire.vectors.values())[:2]
    assert all(not np.array_equal(first[site], second[site]) for site in SITES)  # same model, fresh noise


def test_a_hospital_that_comes_back_is_taken_in_at_a_new_epoch(world: World) -> None:
    wire, store = world.run(Cut(2, UPLOAD, back=True))

    assert events(store, "returned")[0]["sites"] == ["hospital-2"]
    first, second = events(store, "epoch")
    assert second["epoch"] > first["epoch"]
    assert second["sites"] == [f"hospital-{site}" for site in SITES]
    assert [len(event["survivors"]) for event in events(store, "round")] == [3, 4, 4] + [4] * world.after
    assert check_openings(wire, store) == ROUNDS
    assert events(store, "published")[0]["stored"] == [f"hospital-{site}" for site in SITES]
    assert world.nodes[2].ledger.spent() == pytest.approx(world.spend(train=ROUNDS - 1, evaluate=1), rel=1e-9)


def test_too_late_to_come_back_when_few_rounds_remain(world: World) -> None:
    _, store = world.run(Cut(2, UPLOAD, nth=ROUNDS, back=True))

    assert not events(store, "returned")
    assert [len(event["survivors"]) for event in events(store, "round")] == [4, 4, 3] + [3] * world.after


@pytest.mark.parametrize(
    ("line", "stricter"),
    [("  sigma: 0.5 ", "  sigma: 50 "), ("  epsilon_per_data_set: 8 ", "  epsilon_per_data_set: 1 ")],
)
def test_a_policy_that_says_no_declines_and_reserves_nothing(
    world: World, homes: Path, line: str, stricter: str
) -> None:
    policy = NodeHome(homes / "h2").policy
    text = policy.read_text()
    assert text.count(line) == 1
    policy.write_text(text.replace(line, stricter))

    wire, store = world.run()

    answers = {event["site"]: event["answer"] for event in events(store, "admission")}
    assert answers == {f"hospital-{site}": "declined-policy" if site == 2 else "accept" for site in SITES}
    assert (world.nodes[2].ledger.spent(), world.nodes[2].ledger.reserved()) == (0, 0)
    assert wire.seen[2, UPLOAD] == 0
    assert check_openings(wire, store) == ROUNDS


def test_a_second_run_over_the_cap_is_declined_locally_and_reserves_nothing(world: World) -> None:
    world.run()
    before = [node.ledger.spent() for node in world.nodes.values()]

    with pytest.raises(OperatorError) as stopped:
        world.run(name="r2")

    assert stopped.value.code == "cohort-incomplete"
    store = RunStore(world.coordinator.runs / "r2")
    assert [event["answer"] for event in events(store, "admission")] == ["declined-local"] * len(SITES)
    assert [node.ledger.spent() for node in world.nodes.values()] == before
    assert all(node.ledger.reserved() == 0 for node in world.nodes.values())


def test_garbage_gets_only_a_code_and_changes_nothing(world: World) -> None:
    hospital = world.nodes[1].hospital
    for kind in (ADMIT, "adv", "shr", "rdy", UPLOAD, ACK, REVEAL, "publish", "finish", "nonsense"):
        for body in (b"", b"\xff", b"\xa0", b"\x82\x40\x40"):
            assert hospital.handle(Packet(kind, body)).kind == "error"
    assert world.nodes[1].ledger.spent() == 0
    _, store = world.run()
    assert events(store, "published")
