"""The report: says what happened, loads nothing, hides small counts, stays text whatever the names are."""

from __future__ import annotations

import base64
import doctest
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cameo_lab.report import ReportRecord, charts, model_charts, render, svg, tags_view, wording
from page_checks import faults

Make = Callable[..., ReportRecord]
VOID = {"meta", "br", "hr", "img", "input", "link"}
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order. Collects elements, attributes and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        """Every value of an attribute."""
        return [value for name, value in self.attributes if name == attribute]

    @property
    def text(self) -> str:
        """The visible text, spaces made single."""
        return " ".join(" ".join(self.texts).split())


def test_it_says_what_happened(make: Make) -> None:
    text = Page(render(make())).text
    for said in (
        "Four hospitals trained one risk model and one segment model together.",
        "No patient record left a hospital. 147 vectors were sent, each one masked",
        "West Bay was lost in round 26",
        "One round could not be opened and gave no result.",
        "Synthetic patients. Nobody in this report exists.",
        "Fictional consents.",
        "even together with one dishonest hospital",
        "by at most a factor of 2.8",
        "0.85 (0.80–0.90)",
        "Not private: only the demo can see this",
        "It is never available to a real coordinator.",
        "A real coordinator never gets these",
        "over at least 3 hospitals",
        "Hypertension, rarely seen",
        "158 mmHg",
        "no formal proof",
        "flwr 1.41.0",
        "lost in round 26",
    ):
        assert said in text, said


def test_it_says_what_the_model_is_worth_for_each_group_and_what_that_cost(make: Make) -> None:
    text = Page(render(make())).text
    for said in (
        "by sex 4.5 % of the privacy loss, noise σ 14.5",
        "female 500 to 1,000 7.8 % 5.4–10.2 % −1.2 −4.2 to +1.8 0.07 0.05–0.09 too noisy",
        "below 45 fewer than 11 fewer than 11 patients: no figures",
        "Planted patients show an ε of at least 0.57; the plan claims at most 1.00.",
        "3 checks of the plan, 2 held.",
        "gradient inversion 0 of 5 reconstructed yes broken, as it must",
        "membership inference AUC <= 0.583 no",
        "everybody held out 9.1 % 7.5–10.7 %",
        "multiplied by 0.93 (0.83–1.03) and then raised by 0.42 (+0.17 to +0.67)",
        "0.036 before, 0.010 after",
        "evaluation by sex 4.5 %",
        "How each ledger filled",
        "North General, Riverside Clinic",
    ):
        assert said in text, said


def test_a_recalibration_that_was_not_applied_says_why(make: Make) -> None:
    quality = make().model_dump()["quality"]
    none = {"value": 1.0, "low": 1.0, "high": 1.0}
    note = "not applied: the noise leaves slope and intercept too uncertain"
    quality["recalibration"] |= {"applied": False, "slope": none, "intercept": none, "note": note}
    text = Page(render(make(quality=quality))).text
    assert "as training left them: the noise leaves slope and intercept too uncertain." in text
    assert "after lab only" not in text


def test_what_is_not_known_is_left_out(make: Make) -> None:
    quality = make().model_dump()["quality"] | {"groups": (), "recalibration": None}
    tasks = [task | {"share": None} for task in make().model_dump()["tasks"]]
    hospitals = [one | {"account": None} for one in make().model_dump()["hospitals"]]
    text = Page(render(make(quality=quality, tasks=tasks, hospitals=hospitals))).text
    for gone in ("for different groups", "Recalibration", "What the privacy budget bought", "How each ledger filled"):
        assert gone not in text, gone


def test_it_loads_nothing_and_runs_nothing(make: Make) -> None:
    html = render(make())
    page = Page(html)
    assert page.tags["style"] == 1
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    names = {name for name, _ in page.attributes}
    assert not [name for name in names if name.startswith("on") or name in {"style", "src", "srcset", "action"}]
    assert all(value.startswith("#") for value in page.values("href"))
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"(https?:)?//[a-z]", html)


def test_its_own_security_policy_allows_its_style_and_nothing_else(make: Make) -> None:
    html = render(make())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_screen_readers_find_names_tables_and_landmarks(make: Make) -> None:
    page = Page(render(make()))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = {one for value in page.values("aria-labelledby") for one in value.split()}
    anchors = {value[1:] for value in page.values("href")}
    assert references | anchors <= set(ids)
    drawings = page.tags["svg"] - 1  # the mark is decoration
    assert page.values("role").count("img") == drawings == page.tags["desc"]
    assert page.tags["table"] == page.tags["caption"]
    assert page.tags["table"] >= drawings, "every chart has the table behind it"
    assert page.tags["main"] == page.tags["h1"] == page.tags["nav"] == 1


NASTY = "<script>alert('x')</script>&\"' onload=x {{ 7*7 }}"


def test_names_stay_text(make: Make) -> None:
    content = make().model_dump()
    content["hospitals"][0]["name"] = NASTY
    for cell in content["tags"]:
        if cell["hospital"] == "North General":
            cell["hospital"] = NASTY
        cell["purpose"] = cell["blocked"][0]["reason"] = NASTY
    content["name"] = content["run_id"] = content["data"] = content["quality"]["label"] = NASTY
    content["segments"]["segments"][0]["name"] = content["segments"]["segments"][0]["traits"][0]["unit"] = NASTY[:32]
    content["segments"]["segments"][0]["traits"][0]["name"] = content["timing"]["stages"][0]["stage"] = NASTY
    content["versions"] = [(NASTY, NASTY)]
    content["tasks"][0]["name"] = content["segments"]["segments"][1]["size_band"] = NASTY
    page = Page(render(ReportRecord.model_validate(content)))
    assert page.tags["script"] == 0
    assert "onload" not in {name for name, _ in page.attributes}
    assert page.texts.count(NASTY) >= 5


def _tag(**counts: Any) -> dict[str, Any]:
    return {"hospital": "West Bay", "tag": "t", "purpose": "care_management"} | counts


def test_a_prototype_is_drawn_where_segments_differ_and_tabled_in_full(make: Make) -> None:
    def traits(smoker: float) -> list[dict[str, Any]]:
        same = [{"name": f"same {place}", "value": 1, "low": 0, "high": 9} for place in range(12)]
        return [*same, {"name": "smoker", "value": smoker, "unit": "share", "low": 0, "high": 1}]

    segments = [{"name": f"S{share}", "traits": traits(share)} for share in (0.02, 0.97)]
    record = make(segments={"segments": segments})
    assert record.segments is not None
    shown = model_charts.distinctive(record.segments.segments)
    assert len(shown) == 8
    assert shown[-1] == "smoker"
    chart = model_charts.prototype(record.segments.segments[1], 1, shown)
    assert "97 %" in chart.svg
    assert chart.svg.count("<circle") == 8
    assert len(chart.rows) == 13


@pytest.mark.parametrize(("count", "shown"), [(0, "<11"), (1, "<11"), (10, "<11"), (11, "10"), (13, "15")])
def test_small_cells_are_hidden_and_others_rounded(make: Make, count: int, shown: str) -> None:
    record = make(tags=[_tag(stored=count)])
    (line,) = tags_view.stored_lines(record)
    assert [cell.text for cell in line.cells] == ["–", "–", "–", shown]
    assert f">{shown}<".replace("<11", "&lt;11") in render(record)


def test_a_reason_of_few_is_not_named(make: Make) -> None:
    reasons = [
        {"reason": "no-consent", "count": 44},
        {"reason": "consent-missing", "count": 20},
        {"reason": "recent-bereavement", "count": 3},
    ]
    for state in ("blocked", "waiting"):
        text = Page(render(make(tags=[_tag(stored=0, **{state: reasons})]))).text
        assert "no consent 45" in text
        assert "no valid consent to this purpose 20" in text
        assert "bereavement" not in text


def test_a_real_coordinator_gets_no_lab_content(make: Make) -> None:
    content = make().model_dump()
    for hospital in content["hospitals"]:
        hospital["account"] = None
    for row in content["rounds"]:
        row["auc_clear"] = None
    content |= {"tags": (), "segments": None, "synthetic": False, "fictional_consents": False}
    content["quality"] = {"label": "death in hospital", "auc_dp": {"value": 0.8, "low": 0.77, "high": 0.83}}
    text = Page(render(ReportRecord.model_validate(content))).text
    assert "lab only" not in text
    assert "Synthetic" not in text
    assert "Each hospital keeps its own account and does not send it." in text
    assert "What the coordinator saw instead" in text


def test_an_auc_that_is_too_noisy_is_not_a_number(make: Make) -> None:
    text = Page(render(make(quality={"label": "x", "auc_clear": 0.81}))).text
    assert "AUC of the risk model too noisy to say in clear, lab only: 0.81" in text
    assert "no band of scores held enough patients" in text
    text = Page(render(make(quality={"label": "x"}))).text
    assert "too few held-out patients for this budget" in text


def test_a_run_with_an_unmasked_vector_is_not_called_private(make: Make) -> None:
    text = Page(render(make(uploads={"masked": 3, "clear": 1, "total_bytes": 9}))).text
    assert "1 vectors were sent without a mask. This run must not be called private." in text
    assert "No patient record left" not in text


def test_a_run_that_did_not_begin_still_has_a_report(make: Make) -> None:
    content = make().model_dump()
    for hospital in content["hospitals"]:
        hospital |= {"status": "declined", "lost_at_round": None}
    content |= {"rounds": (), "quality": None, "segments": None, "tags": (), "versions": ()}
    content["timing"] = {"setup": 0, "round_median": 0, "total": 3}
    page = Page(render(ReportRecord.model_validate(content)))
    assert "No hospitals trained one risk model" in page.text
    assert "declined to take part." in page.text
    assert "No round was made." in page.text


@pytest.mark.parametrize(
    "change",
    [
        {"hospitals": []},
        {"plan_id": "xyz"},
        {"created": "2026-11-24T08:14:00"},
        {"unknown": 1},
        {"tags": [{"hospital": "Elsewhere", "tag": "t", "purpose": "p", "stored": 1}]},
        {"tags": [_tag(stored=1), _tag(stored=2)]},
        {"tags": [_tag(stored=-1)]},
        {"statements": [{"toward": "model", "epsilon": 1, "delta": 1e-5}] * 2},
        {"statements": [{"toward": "model", "epsilon": float("nan"), "delta": 1e-5}]},
        {"rounds": [{"number": 0, "survivors": 5}]},
        {"rounds": [{"number": 0, "survivors": 4, "norm": float("inf")}]},
        {"quality": {"label": "x", "auc_dp": {"value": 0.9, "low": 0.95, "high": 1}}},
        {"hospitals": [{"name": "A", "status": "lost"}]},
        {"hospitals": [{"name": "A", "status": "took part"}] * 2},
        {"segments": {"segments": [{"name": "s", "traits": [{"name": "t", "value": 1, "low": 2, "high": 2}]}]}},
    ],
)
def test_a_record_that_makes_no_sense_is_refused(make: Make, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**change)


def test_the_same_record_gives_the_same_few_kilobytes(make: Make) -> None:
    html = render(make())
    assert html == render(make())
    assert len(html.encode()) < 100_000


@pytest.mark.parametrize("module", [wording, svg, charts, model_charts], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_hold(module: Any) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_without_a_complaint(make: Make, tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(render(make()), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200"]
    command += [f"--screenshot={tmp_path / 'shot.png'}", (tmp_path / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "CONSOLE" not in done.stderr
    assert (tmp_path / "shot.png").stat().st_size > 20_000


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (640, "dark")], ids=str)
def test_everybody_can_read_and_reach_everything(
    browser: Any, make: Make, tmp_path: Path, width: int, scheme: str
) -> None:
    """Also with the longest name that a hospital may have, and at 200 % (half the width)."""
    plain = make().model_dump(mode="json")
    renamed = json.loads(json.dumps(plain).replace("Riverside Clinic", "hospital-" + "x" * 55))
    (tmp_path / "report.html").write_text(render(ReportRecord.model_validate(renamed)), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.goto((tmp_path / "report.html").as_uri())
    assert faults(tab) == []
    tab.close()
