"""The hospital's page in a real browser: every page opens clean, the chart is drawn, the keyboard is enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from first_paint import first_paint
from page_checks import faults

from .conftest import HOSTILE, NURSE, RUN, Served, put_waiting

PATHS = (
    "/overview", "/budget", "/quality", "/tags", "/queue", "/consents", "/chains", "/runs", f"/runs/{RUN}",
    f"/runs/{RUN}/report", "/runs/none", "/login",
)  # fmt: skip


class Tab:
    """A logged-in tab, with what it did that it should not."""

    def __init__(self, context: Any, page: Served, name: str = NURSE) -> None:
        self.tab, self.url = context.new_page(), page.url
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.tab.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.tab.on("pageerror", lambda e: self.errors.append(str(e)))
        self.tab.on("request", lambda r: None if r.url.startswith((page.url, "data:")) else self.foreign.append(r.url))
        self.tab.goto(page.link("care", name))

    def open(self, path: str) -> int:
        answer = self.tab.goto(self.url + path)
        return int(answer.status)

    def focused(self) -> str:
        text: str = self.tab.evaluate("document.activeElement.textContent.trim()")
        return text


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    opened = browser.new_context()
    yield opened
    opened.close()


@pytest.fixture
def tab(context: Any, page: Served) -> Tab:
    return Tab(context, page)


def test_every_page_opens_clean_and_says_what_everything_is(tab: Tab) -> None:
    for path in PATHS:
        tab.errors.clear()
        status = tab.open(path)
        tab.tab.wait_for_load_state("load")
        assert status == (404 if path == "/runs/none" else 200)
        assert [e for e in tab.errors if "404" not in e or status == 200] == [], path
        assert tab.foreign == [], path
        assert "Cameo" in tab.tab.title()
        assert tab.tab.locator("h1").count() == 1, path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (640, "dark")], ids=str)
def test_everybody_can_read_and_reach_everything(context: Any, page: Served, width: int, scheme: str) -> None:
    """On a desk, by night, on a phone, and at 200 % (half the width)."""
    tab = Tab(context, page)
    tab.tab.emulate_media(color_scheme=scheme)
    tab.tab.set_viewport_size({"width": width, "height": 800})
    for path in PATHS:
        tab.open(path)
        assert faults(tab.tab) == [], path


def test_an_officer_finds_what_was_spent_why_what_is_left_and_what_left_here(tab: Tab) -> None:
    tab.open("/overview")
    text = tab.tab.locator("main").inner_text()
    for words in ("ε spent for ever", "left of 8", "left of 3", "How to read ε", "What left this hospital", "Never:"):
        assert words in text
    assert "At most 5 vectors of sums, in 1 run" in text
    assert tab.tab.get_by_role("table", name="Runs of this hospital").get_by_role("link", name=RUN).is_visible()
    assert [bar.get_attribute("max") for bar in tab.tab.get_by_role("progressbar").all()] == ["8.0", "3.0"]


def test_on_paper_there_is_no_button_and_no_dark(tab: Tab) -> None:
    tab.open(f"/runs/{RUN}")
    tab.tab.emulate_media(media="print", color_scheme="dark")
    assert not tab.tab.locator("nav").is_visible()
    assert tab.tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert faults(tab.tab) == []


def test_the_budget_is_drawn(tab: Tab) -> None:
    tab.open("/budget")
    tab.tab.locator("[data-chart=budget][data-points='6']").wait_for()
    assert tab.tab.locator("[data-chart=budget] canvas").count() == 1
    assert tab.errors == []


def test_what_refreshes_itself_arrives(tab: Tab) -> None:
    tab.open("/quality")
    tab.tab.locator("#panel", has_text="97.3").wait_for()
    assert tab.errors == []


def test_the_figures_go_when_the_session_has_ended(tab: Tab, page: Served) -> None:
    tab.open("/quality")
    page.app.state.sessions._open.clear()
    tab.tab.wait_for_url("**/login")
    assert "97.3" not in tab.tab.content()


def test_hostile_names_run_nothing(context: Any, page: Served) -> None:
    tab = Tab(context, page, HOSTILE)
    for path, text in (("/queue", f"{HOSTILE}-tag"), ("/quality", f"missing:{HOSTILE}")):
        tab.open(path)
        tab.tab.get_by_text(text, exact=True).wait_for()
        assert "taken" not in tab.tab.title()
    assert tab.errors == []


def test_a_person_reviews_with_the_keyboard_alone(tab: Tab, page: Served) -> None:
    pseudonym, tag = put_waiting(page.home, pseudonym="0123456789abcdef", tag="aa-check")
    tab.open("/overview")
    tab.tab.keyboard.press("Tab")
    assert tab.focused() == "Skip to the content"
    for name, leads in (("Review queue", "**/queue"), ("Reject", "**/queue?done=1")):
        for _ in range(60):
            tab.tab.keyboard.press("Tab")
            if tab.focused() == name and (name != "Reject" or _of(tab, tag)):
                break
        else:
            pytest.fail(f"{name} cannot be reached")
        tab.tab.keyboard.press("Enter")
        tab.tab.wait_for_url(leads)
    tab.tab.get_by_text("Noted under your name").wait_for()
    assert tab.tab.get_by_text(tag, exact=True).count() == 0
    assert pseudonym[:12] not in tab.tab.content()
    assert tab.errors == []


def _of(tab: Tab, tag: str) -> bool:
    return tag in (tab.tab.evaluate("document.activeElement.getAttribute('aria-label')") or "")


def test_the_first_paint_is_quick(tab: Tab) -> None:
    tab.open("/overview")
    paint = first_paint(tab.tab)
    print(f"first paint {paint:.0f} ms")
    assert 0 < paint < 5000  # the goal is 500 ms on a quiet machine; this only catches a page that waits for data
