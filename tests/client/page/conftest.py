"""The page of a hospital that has taken part in a real run, on a free port; and a real browser where there is one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI

from cameo_client.consent.exchange import read_csv
from cameo_client.consent.store import ConsentStore
from cameo_client.home import DataConfig, NodeHome, load_pseudonym_key, write_file
from cameo_client.membership import accept, init_node, review
from cameo_client.node.service import open_node
from cameo_client.page.app import Page, create
from cameo_client.page.look import QualityLook
from cameo_client.page.server import page_key
from cameo_client.source import catalogue_of
from cameo_client.tagging import pack_paths, tag_patients
from cameo_client.tags import desk
from cameo_client.tags.store import TagStore
from cameo_lab.generate.generator import generate
from cameo_lab.in_process import DirectExchange
from cameo_protocol.web.door import serving
from cameo_protocol.web.links import Links, Visitor, make_link
from cameo_protocol.web.sessions import Sessions
from cameo_server.app import drive
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.membership import add_site, init_coordinator, issue_federation
from cameo_server.run.store import RunStore
from passed_audit import keep_passed_audit

ROLES = ("officer", "care", "auditor")
HOSTILE = "<script>document.title='taken'</script>"
RUN = "r1"
SITES = (1, 2, 3)
NURSE = "A. Nurse"
OVERRIDES = ("training.rounds=3", "training.spare=2", "data.population=450", "deadlines.regroup=0")
LOOK = {
    "synthetic": True, "snapshot": "2026-01-01", "catalogue": "cardiometabolic",
    "quality": {
        "score": 97.3, "ready": True, "patients": "150", "cleaned": "no", "left_out": "fewer than 11", "hard": [],
        "rules": [{"id": f"missing:{HOSTILE}", "dimension": "completeness", "rows": "fewer than 11", "cost": 0.3}],
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of hospital 1 after a whole run of three, with its tags written. Copied for every test."""
    root, now = tmp_path_factory.mktemp("page"), datetime.now(UTC)
    generated = generate(root / "data", len(SITES), 150, 7)
    coordinator = CoordinatorHome(root / "coordinator")
    init_coordinator(coordinator, federation="study", host="localhost", fleet_port=9999, now=now)
    homes = {index: NodeHome(root / f"h{index}") for index in SITES}
    for index, site in zip(SITES, generated.sites, strict=True):
        data = DataConfig(kind="table", path=str(site.facts), mapping="cardiometabolic")
        init_node(homes[index], site=f"hospital-{index}", data=data, now=now)
        add_site(coordinator, homes[index].card.read_bytes(), now)
    document = issue_federation(coordinator, now)
    for index, site in zip(SITES, generated.sites, strict=True):
        home = homes[index]
        accept(home, review(home, document))
        with ConsentStore.open(home.consent) as consents:
            consents.add(read_csv(site.consents, load_pseudonym_key(home.pseudonym_key)), now=now)
    plan = keep_passed_audit(coordinator, make_plan(coordinator, OVERRIDES))
    store = RunStore(coordinator.runs / RUN)
    store.create(plan.canonical())
    with ExitStack() as stack:
        nodes = {100 + index: open_node(home, stack) for index, home in homes.items()}
        exchange = DirectExchange({number: node.hospital.handle for number, node in nodes.items()})
        drive(exchange, coordinator, store, RUN, plan, {index: 100 + index for index in SITES})
        first, home = nodes[101], homes[1]
        with TagStore(home.tags) as tags:
            for path in pack_paths(home, catalogue_of(home).id):
                desk.approve_pack(tags, path, catalogue_of(home), "C. Officer", now)
        tag_patients(home, first.local(), first.consents, RUN, now)
    return homes[1].root


@dataclass
class Served:
    """A page that answers. look: what the next reading of the data finds."""

    home: NodeHome
    port: int
    app: FastAPI

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def link(self, role: str = "officer", name: str = NURSE) -> str:
        code = make_link(page_key(self.home), Visitor(name, role), time.time(), os.urandom(16))
        return f"{self.url}/login?link={code}"

    @contextmanager
    def client(self, role: str | None = "officer", name: str = NURSE) -> Iterator[httpx.Client]:
        headers = {"Origin": self.url, "Accept": "text/html"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False) as client:
            if role is not None:
                assert client.get(self.link(role, name)).status_code == 303
            yield client


def put_waiting(home: NodeHome, **changes: Any) -> tuple[str, str]:
    """Add a tag that waits, like one that is there but for the changes: (pseudonym, tag)."""
    with TagStore(home.tags) as store:
        now = datetime.now(UTC)
        like = store.tags(now)[0]
        expires = (now + timedelta(days=9)).isoformat(timespec="microseconds")
        since = (now - timedelta(days=900)).isoformat(timespec="microseconds")
        row = replace(like, state="waiting", reason="review-always", expires=expires, since=since, **changes)
        with store.transaction() as db:
            store.put(db, row)
    return row.pseudonym, row.tag


def let_review(home: NodeHome, owns: tuple[str, ...] = ()) -> None:
    """roles.yaml: two people may review; the nurse stands for the owners in `owns`."""
    people = [{"name": name, "roles": ["reviewer"], "owns": list(owns)} for name in (NURSE, HOSTILE)]
    write_file(home.roles, yaml.safe_dump({"version": 1, "people": people}).encode())


@pytest.fixture
def home(hospital: Path, tmp_path: Path) -> NodeHome:
    copy = NodeHome(Path(shutil.copytree(hospital, tmp_path / "h1")))
    let_review(copy)
    put_waiting(copy, pseudonym=f"{HOSTILE}-patient", tag=f"{HOSTILE}-tag", because=(f"sbp >= {HOSTILE}",))
    return copy


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(home: NodeHome, look: Callable[[], tuple[int, str, str]] | None = None) -> Served:
            listener = socket.create_server(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
            links = Links(page_key(home), time.time, time.time())
            quality = QualityLook(look or (lambda: (0, json.dumps(LOOK), "")))
            app = create(Page(home, links, Sessions(os.urandom, time.time), port, time.time, quality))
            stack.enter_context(serving(app, listener, "page"))
            return Served(home, port, app)

        yield start


@pytest.fixture
def page(home: NodeHome, serve: Callable[..., Served]) -> Served:
    return serve(home)
