"""The dashboard in a real browser: every page opens clean, the chart moves, the keyboard is enough."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cameo_protocol.plan import parse_plan
from cameo_server.membership import open_roster
from cameo_server.run.store import RunStore
from first_paint import first_paint
from page_checks import faults

from .conftest import HOSTILE, Page, make_run, round_event

LONG = "a-hospital-with-the-longest-name-" + "x" * 31
PATHS = ("/runs", "/runs/r1", "/sites", "/runs/none", "/login")


class Seen:
    """What a tab did that it should not."""

    def __init__(self, tab: Any, url: str) -> None:
        self.errors: list[str] = []
        self.foreign: list[str] = []
        tab.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda e: self.errors.append(str(e)))
        tab.on("request", lambda r: None if r.url.startswith((url, "data:")) else self.foreign.append(r.url))


@pytest.fixture
def tab(browser: Any, page: Page) -> Iterator[Any]:
    context = browser.new_context()
    opened = context.new_page()
    opened.seen = Seen(opened, page.url)
    opened.goto(page.link())
    yield opened
    context.close()


@pytest.mark.parametrize("path", PATHS)
def test_every_page_opens_clean(tab: Any, page: Page, path: str) -> None:
    answer = tab.goto(page.url + path)
    tab.wait_for_load_state("networkidle") if path != "/runs/r1" else tab.wait_for_timeout(1500)
    expected = [] if answer.status == 200 else [e for e in tab.seen.errors if "404" in e]
    assert tab.seen.errors == expected
    assert tab.seen.foreign == []
    assert tab.title().endswith("Cameo")
    assert tab.locator("h1").count() == 1


def test_the_chart_moves_while_a_run_goes_on(tab: Any, page: Page) -> None:
    store = RunStore(page.home.runs / "r1")
    tab.goto(page.url + "/runs/r1")
    tab.locator("[data-chart=norms][data-points='3']").wait_for()
    before = tab.locator("[data-chart=norms] canvas").screenshot()

    def go_on() -> None:
        for step in range(3, 6):
            round_event(store, step)
            time.sleep(0.2)

    running = threading.Thread(target=go_on)
    running.start()
    tab.locator("[data-chart=norms][data-points='6']").wait_for()
    running.join()
    assert tab.locator("[data-chart=norms] canvas").screenshot() != before
    tab.locator("#opened", has_text="6").wait_for()
    assert tab.seen.errors == []


def test_a_hostile_name_runs_nothing(tab: Any, page: Page) -> None:
    tab.goto(page.url + "/sites")
    assert tab.get_by_text(HOSTILE, exact=True).count() == 1
    assert tab.title() == "Sites · Cameo"


def test_the_keyboard_is_enough(tab: Any, page: Page) -> None:
    tab.goto(page.url + "/runs")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    names = []
    for _ in range(8):
        tab.keyboard.press("Tab")
        names.append(tab.evaluate("document.activeElement.textContent.trim()"))
    assert {"Cameo", "Runs", "Sites", "Log out", "r1"} <= set(names)
    while tab.evaluate("document.activeElement.textContent.trim()") != "r1":
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/runs/r1")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (640, "dark")], ids=str)
def test_everybody_can_read_and_reach_everything(
    tab: Any, page: Page, plan_bytes: bytes, width: int, scheme: str
) -> None:
    """Also with the longest name there is, lost hospitals, void rounds, and at 200 % (half the width)."""
    _hard_to_show(page, plan_bytes)
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    for path in (*PATHS, "/runs/r2"):
        tab.goto(page.url + path)
        if path.startswith("/runs/r"):
            tab.locator("[data-chart=norms][data-points]").wait_for()
        assert faults(tab) == [], path


def _hard_to_show(page: Page, plan_bytes: bytes) -> None:
    plan = json.loads(plan_bytes)
    plan["cohort"]["sites"][0]["name"] = LONG
    store = make_run(page.home, parse_plan(canonical(plan)).canonical(), "r2")
    store.event("lost", site=LONG, stage="upload", code="no-answer")
    store.event("lost", site="hospital-4", stage="upload", code="no-answer")
    common = {"kind": "train", "step": 3, "epoch": 1, "round": 4, "seconds": {"upload": 15.0}, "total_seconds": 15.0}
    store.event("void", **common, invited=[LONG], reason="too few uploads")
    store.event("waiting", sites=[LONG, "hospital-4"], seconds=120.0, needed=3)
    with open_roster(page.home) as db:
        db.execute("UPDATE sites SET name = ? WHERE idx = 2", (LONG,))


def canonical(plan: dict[str, Any]) -> bytes:
    return json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()


def test_the_first_paint_is_quick(tab: Any, page: Page) -> None:
    tab.goto(page.url + "/runs/r1")
    paint = first_paint(tab)
    assert 0 < paint < 5000  # the goal is 500 ms on a quiet machine; this only catches a page that waits for data


def test_the_pages_own_forms_are_taken(tab: Any, page: Page) -> None:
    """Browsers say where a form comes from, unless a referrer policy keeps them from it."""
    tab.goto(page.url + "/runs/r1")
    tab.get_by_text("Stop before the next round").click()
    tab.wait_for_url("**/runs/r1")
    assert RunStore(page.home.runs / "r1").stop_asked()
    tab.goto(page.url + "/sites")
    assert not tab.get_by_role("button", name="Revoke hospital-b").is_visible(), "one slip of the mouse revokes nobody"
    tab.locator("summary", has_text="Revoke").last.click()
    tab.get_by_role("button", name="Revoke hospital-b").click()
    tab.wait_for_url("**/sites")
    tab.get_by_text("Log out").click()
    tab.wait_for_url("**/login")
    assert tab.seen.errors == []


def test_a_refresh_takes_nothing_from_the_reader(tab: Any, page: Page) -> None:
    """Focus, scroll and what was opened stay while the list and the panel are replaced."""
    store = RunStore(page.home.runs / "r1")
    tab.goto(page.url + "/runs")
    tab.locator("#to-r1").focus()
    round_event(store, 3)
    tab.get_by_text("4 of").first.wait_for()
    assert tab.evaluate("document.activeElement.id") == "to-r1"
    for step in range(4, 40):
        round_event(store, step)
    tab.goto(page.url + "/runs/r1")
    tab.locator("#opened", has_text="40").wait_for()
    tab.evaluate("document.getElementById('events').scrollTop = 200")
    round_event(store, 40)
    tab.locator("#opened", has_text="41").wait_for()
    assert tab.evaluate("document.getElementById('events').scrollTop") == 200
    tab.goto(page.url + "/sites")
    tab.locator("summary", has_text="Revoke").last.click()
    with open_roster(page.home) as db:
        db.execute("UPDATE sites SET added = '2026-02-02T00:00:00Z'")
    tab.get_by_text("2026-02-02").first.wait_for()
    assert tab.get_by_role("button", name="Revoke hospital-b").is_visible()


def test_a_page_that_hears_nothing_says_so(tab: Any, page: Page) -> None:
    tab.goto(page.url + "/runs")
    assert not tab.locator("#stale").is_visible()
    tab.route("**/runs/table", lambda route: route.abort())
    tab.locator("#stale").wait_for(state="visible")
    tab.unroute("**/runs/table")
    tab.locator("#stale").wait_for(state="hidden")


def test_the_chart_has_its_numbers_in_a_table(tab: Any, page: Page) -> None:
    tab.goto(page.url + "/runs/r1")
    tab.locator("[data-chart=seconds][data-points='3']").wait_for()
    tab.locator("summary", has_text="The numbers").last.click()
    rows = tab.get_by_role("table", name="Seconds of each stage").get_by_role("row")
    assert rows.count() == 4
    assert [cell.inner_text() for cell in rows.nth(1).get_by_role("cell").all()] == ["1", "0.40", "0.10", "0.10"]


def test_a_run_that_stopped_before_its_first_round_is_shown(tab: Any, page: Page, plan_bytes: bytes) -> None:
    store = make_run(page.home, plan_bytes, "r2", rounds=0)
    store.event("stopped", code="cohort-incomplete", what="too few", do="call them")
    tab.goto(page.url + "/runs/r2")
    tab.get_by_text("cohort-incomplete").first.wait_for()
    tab.locator("[data-chart=norms][data-points='0']").wait_for()
    tab.wait_for_timeout(1200)
    assert tab.evaluate("1 + 1") == 2
    assert tab.seen.errors == []
