"""A browser follows a real run from its start to its end: real processes, the dashboard and a hospital's page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cameo_client.consent.records import made_up
from cameo_client.consent.store import ConsentStore
from cameo_client.home import DataConfig, NodeHome
from cameo_client.membership import accept, init_node, review
from cameo_client.source import read
from cameo_lab.bench.local import free_port
from cameo_lab.demo.processes import Children, call_json
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from cameo_server.membership import add_site, init_coordinator, issue_federation
from passed_audit import keep_passed_audit

# By a thread: the exception of a signal would be raised inside Playwright's own loop, and nothing would end.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600, method="thread")]
ROUNDS = 8
OVERRIDES = ("data=heart", "data.population=180", f"training.rounds={ROUNDS}", "deadlines.regroup=5")


def heart_table(path: Path, number: int) -> None:
    """A table that the mapping `heart` reads, of people who never were."""
    rows = [
        f"{40 + (i + number) % 30},{i % 2},1,{120 + i % 60},{200 + i},0,0,150,0,1.5,2,0,3,{i % 3}\n" for i in range(60)
    ]
    path.write_text("".join(rows))


def set_up(root: Path) -> tuple[CoordinatorHome, list[NodeHome]]:
    """A coordinator and three hospitals that have accepted each other; each has a page on a port of its own."""
    home, now = CoordinatorHome(root / "coordinator"), datetime.now(UTC)
    ports = {f"{name}_port": free_port() for name in ("fleet", "operator", "join", "page")}
    init_coordinator(home, federation="study", host="127.0.0.1", now=now, **ports)
    nodes = [NodeHome(root / f"hospital-{number}") for number in (1, 2, 3)]
    for number, node in enumerate(nodes, 1):
        heart_table(root / f"patients-{number}.csv", number)
        data = DataConfig(kind="table", path=str(root / f"patients-{number}.csv"), mapping="heart")
        port = free_port() if number == 1 else 0
        init_node(node, site=node.root.name, data=data, now=now, page_port=port)
        add_site(home, node.card.read_bytes(), now)
    federation = issue_federation(home, now)
    for node in nodes:
        accept(node, review(node, federation))
        names = read(node)[1].facts["pseudonym"].to_list()
        with ConsentStore.open(node.consent) as consents:
            consents.add(made_up(names, ("model_training",), now), now=now)
    keep_passed_audit(home, make_plan(home, OVERRIDES))
    return home, nodes


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    opened = browser.new_context()
    yield opened
    opened.close()


def watched(context: Any, link: str) -> tuple[Any, list[str], list[str]]:
    """A tab that has opened a link; its console errors, and its requests to anywhere else."""
    tab, errors, foreign = context.new_page(), [], []
    own = link.split("/login", maxsplit=1)[0]
    tab.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.on("request", lambda r: None if r.url.startswith((own, "data:")) else foreign.append(r.url))
    tab.goto(link)
    return tab, errors, foreign


def eventually(found: Callable[[], Any], children: Children, name: str, seconds: float = 90) -> Any:
    until = time.monotonic() + seconds
    while not (value := found()):
        assert name not in children.ended(), children.tail(name)
        assert time.monotonic() < until, children.tail(name)
        time.sleep(0.1)
    return value


def test_a_browser_follows_a_run_from_start_to_end(context: Any, tmp_path: Path) -> None:
    home, nodes = set_up(tmp_path)
    place, own = ["--home", str(home.root)], ["--home", str(nodes[0].root)]
    with Children(tmp_path / "logs") as children:
        children.start("coordinator", ["cameo", "coordinator", "start", "--listen", "127.0.0.1", *place])
        for node in nodes:
            children.start(node.root.name, ["cameo-node", "start", "--home", str(node.root)])
        eventually((home.root / "flower" / "state.json").exists, children, "coordinator")
        eventually((nodes[0].root / "page.json").exists, children, "hospital-1")
        assert not (nodes[1].root / "page.json").exists(), "page_port = 0 is no page"

        tab, errors, foreign = watched(context, call_json(["cameo", "coordinator", "page", *place])["url"])
        run = call_json(["cameo", "run", "--no-follow", *OVERRIDES, *place])["run"]
        _follow(tab, run)
        assert (errors, foreign) == ([], [])

        _report(tab, run, call_json(["cameo", "report", run, *place]))
        assert (errors, foreign) == ([], [])
        link = call_json(["cameo-node", "page", "--role", "officer", "--as", "C. Officer", *own])["url"]
        tab, errors, foreign = watched(context, link)
        _hospital(tab, run)
        assert (errors, foreign) == ([], [])
        with httpx.Client(trust_env=False) as nobody:
            assert nobody.get(link).status_code == 401, "a link opens a page once"


def _follow(tab: Any, run: str) -> None:
    """From the list, where the run comes up by itself, to its page; watch that until it says published."""
    base = tab.url.rsplit("/", 1)[0]
    tab.get_by_role("link", name=run).click()
    tab.wait_for_url(f"**/runs/{run}")
    tab.evaluate("window.stayed = true")
    chart, seen = tab.locator("[data-chart=norms]"), []
    until = time.monotonic() + 400
    while not tab.locator("#panel .tile strong", has_text="published").count():
        assert time.monotonic() < until, "the run did not end in time"
        assert not tab.locator("#panel .banner.bad").count(), tab.locator("#panel .banner.bad").inner_text()
        points = chart.get_attribute("data-points")
        if points is not None and points not in seen:
            seen.append(points)
        time.sleep(0.2)
    tab.locator(f"[data-chart=norms][data-points='{ROUNDS}']").wait_for()
    assert tab.locator("#opened").inner_text() == str(ROUNDS)
    counts = [int(points) for points in seen]
    assert counts == sorted(counts)
    assert len({*counts, ROUNDS}) >= 3, f"the chart moved: {counts}"
    assert tab.evaluate("window.stayed"), "it moved by itself"
    assert tab.url.startswith(base)


def _report(tab: Any, run: str, made: dict[str, str]) -> None:
    tab.reload()
    tab.get_by_role("link", name="report").click()
    tab.wait_for_url(f"**/runs/{run}/report")
    tab.get_by_text("Three hospitals trained one risk model and one segment model together.").wait_for()
    lines = (Path(made["report"]).parent / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["sha256"] == made["sha256"]


def _hospital(tab: Any, run: str) -> None:
    """The hospital's own page: its process, its data read by a process beside it, its ledger, its report."""
    tab.locator("#panel .tile strong", has_text="online").wait_for()
    tab.get_by_role("link", name="Data quality").click()
    tab.locator("#panel dd strong", has_text="60").wait_for()
    # One point a training round, one for the evaluation, and where the curve begins.
    tab.get_by_role("link", name="Budget").click()
    tab.locator(f"[data-chart=budget][data-points='{ROUNDS + 2}']").wait_for()
    tab.get_by_role("link", name="Runs").click()
    tab.get_by_role("link", name=run).click()
    tab.get_by_role("link", name="this hospital's report").click()
    tab.get_by_text("For this hospital only").wait_for()
