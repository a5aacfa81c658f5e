"""The hospital's page over HTTP: who gets in, what each role sees and may do, what is refused, what stays hidden."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from cameo_client.audit import open_audit
from cameo_client.data.catalogue import load_catalogue
from cameo_client.home import NodeHome
from cameo_client.ledger import Caps
from cameo_client.node.service import open_ledger
from cameo_client.page.views import KEPT_S, Views
from cameo_client.page.words import count_text
from cameo_client.tags.store import TagStore
from cameo_protocol.privacy.releases import Release

from .conftest import HOSTILE, NURSE, ROLES, RUN, Served, let_review, put_waiting

# path -> status by role; None = nobody is logged in (a reader is sent to the log-in page).
GET = {
    "/": (303, 303, 303, 303),
    "/overview": (200, 200, 200, 303),
    "/overview/panel": (200, 200, 200, 303),
    "/budget": (200, 200, 200, 303),
    "/budget/points": (200, 200, 200, 303),
    "/quality": (200, 200, 200, 303),
    "/quality/panel": (200, 200, 200, 303),
    "/tags": (200, 200, 200, 303),
    "/queue": (403, 200, 403, 303),
    "/consents": (200, 200, 200, 303),
    "/chains": (200, 200, 200, 303),
    "/runs": (200, 200, 200, 303),
    "/runs/r1": (200, 200, 200, 303),
    "/runs/r1/report": (200, 200, 200, 303),
    "/runs/none": (404, 404, 404, 303),
    "/runs/none/report": (404, 404, 404, 303),
    "/runs/..%2f..%2fetc": (404, 404, 404, 404),
    "/login": (200, 200, 200, 200),
    "/static/cameo.css": (200, 200, 200, 200),
    "/docs": (404, 404, 404, 404),
    "/openapi.json": (404, 404, 404, 404),
}
POST = {
    "/quality/look": (303, 303, 403, 401),
    "/queue/decide": (403, 409, 403, 401),
    "/logout": (303, 303, 303, 303),
}
WHO = (*ROLES, None)


@pytest.mark.parametrize(("place", "role"), list(enumerate(WHO)))
def test_every_role_on_every_page(page: Served, place: int, role: str | None) -> None:
    with page.client(role) as client:
        for path, expected in GET.items():
            answer = client.get(path)
            assert answer.status_code == expected[place], (path, role, answer.text[:300])
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy, path
            assert "unsafe" not in policy, path
        for path, expected in POST.items():
            answer = client.post(path, data={"pseudonym": "x", "tag": "y", "verdict": "approved"})
            assert answer.status_code == expected[place], (path, role)


def test_the_matrix_has_every_route(page: Served) -> None:
    routes = {(method, route.path) for route in page.app.routes for method in getattr(route, "methods", None) or ()}
    tried = {("GET", path) for path in GET} | {("POST", path) for path in POST}
    named = {(method, path.replace("r1", "{run}")) for method, path in tried}
    assert {(method, path) for method, path in routes if method != "HEAD"} <= named


def test_another_host_name_and_a_form_of_another_page_are_refused(page: Served) -> None:
    with page.client() as client:
        assert client.get("/overview", headers={"Host": "evil.example"}).status_code == 421
        assert client.post("/quality/look", headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_link_of_another_hospital_does_not_open_this_one(page: Served, home: NodeHome) -> None:
    link = page.link()
    home.page_key.unlink()
    with httpx.Client(trust_env=False) as client:
        assert client.get(page.link()).status_code == 401, "made with another key"
        assert client.get(link).status_code == 303


def test_a_person_without_the_role_in_roles_yaml_neither_sees_nor_decides(page: Served) -> None:
    with page.client("care", "D. Visitor") as client:
        for answer in (client.get("/queue"), client.post("/queue/decide", data=_form("x", "y"))):
            assert answer.status_code == 409
            assert "role-lacking" in answer.text


def test_a_verdict_is_the_persons_and_is_logged_everywhere(page: Served, home: NodeHome) -> None:
    pseudonym, tag = put_waiting(home, pseudonym="p-0123456789ab", tag="bp-check")
    with page.client("care") as client:
        assert "p-0123456789" in client.get("/queue").text
        answer = client.post("/queue/decide", data=_form(pseudonym, tag, "rejected"))
        assert (answer.status_code, answer.headers["location"]) == (303, "/queue?done=1")
        assert "p-0123456789" not in client.get("/queue?done=1").text
    with TagStore(home.tags) as store:
        assert [row["person"] for row in store.accesses(pseudonym)] == [NURSE], "that it was seen"
        assert store.history(pseudonym)[-1]["why"] == "review-rejected"
        assert store.verify()[0] > 0
    with open_audit(home) as log:
        last = [entry for entry, _ in log.entries()][-1]
    assert (last.kind, last.who, dict(last.facts)) == ("tag-reviewed", NURSE, {"verdict": "rejected"})


def test_an_approval_waits_for_the_next_evaluation(page: Served, home: NodeHome) -> None:
    pseudonym, tag = put_waiting(home, pseudonym="p-0123456789ab", tag="bp-check")
    with page.client("care") as client:
        client.post("/queue/decide", data=_form(pseudonym, tag))
        assert "1 approved so far" in client.get("/queue").text


def test_nobody_decides_on_a_rule_of_their_own(page: Served, home: NodeHome) -> None:
    with TagStore(home.tags) as store:
        row = next(row for row in store.tags(datetime.now(UTC)) if store.rule(row.pack_sha256, row.rule))
        rule = store.rule(row.pack_sha256, row.rule)
        assert rule is not None
    pseudonym, tag = put_waiting(home, pseudonym="p-own", tag="own", rule=row.rule, pack_sha256=row.pack_sha256)
    let_review(home, owns=(rule.owner,))
    with page.client("care") as client:
        answer = client.post("/queue/decide", data=_form(pseudonym, tag))
    assert answer.status_code == 409
    assert "self-review" in answer.text


def _form(pseudonym: str, tag: str, verdict: str = "approved") -> dict[str, str]:
    return {"pseudonym": pseudonym, "tag": tag, "verdict": verdict}


def test_names_with_markup_stay_text(page: Served) -> None:
    with page.client("care", HOSTILE) as client:
        for path in (path for path, expected in GET.items() if expected[1] == 200):
            text = client.get(path).text
            assert HOSTILE not in text, path
        assert "&lt;script&gt;" in client.get("/queue").text


def test_small_counts_never_show(page: Served, home: NodeHome) -> None:
    """Every number beside a tag or a consent is hidden or a multiple of 5, on the pages and in the report."""
    seen = 0
    with page.client() as client:
        for path in ("/tags", "/consents", "/overview", f"/runs/{RUN}/report"):
            tables = re.findall(r"<table>\s*<caption[^>]*>(?:Tags|Consents).*?</table>", client.get(path).text, re.S)
            cells = [cell for table in tables for cell in re.findall(r'<td class="number">([^<]*)</td>', table)]
            seen += len(cells)
            for cell in cells:
                assert cell == "&lt;11" or (int(cell.replace("\u202f", "")) % 5 == 0 and int(cell) >= 10), (path, cell)
    assert seen > 60


def test_the_counts_are_those_of_the_store(page: Served, home: NodeHome) -> None:
    with TagStore(home.tags) as store:
        last = store.last_run()
    assert last is not None
    table = Views(home, time.time).tags()
    assert table is not None
    assert [(row.tag, row.stored) for row in table.rows] == [
        (c["tag"], count_text(c["stored"])) for c in last["counts"]
    ]  # type: ignore[index]


def test_the_budget_is_the_ledgers(page: Served, home: NodeHome) -> None:
    with page.client() as client:
        points = client.get("/budget/points").json()
        text = client.get("/budget").text
    chart = points["charts"]["budget"]
    assert points["live"] is False
    assert chart["at"] == [0, 1, 2, 3, 4, 5]
    assert chart["values"][0] == sorted(chart["values"][0])
    assert f"{-(-chart['values'][0][-1] * 100 // 1) / 100:.2f}" in text


def test_the_budget_moves_while_a_run_is_open_but_is_not_read_at_every_look(home: NodeHome) -> None:
    now = [time.time()]
    views = Views(home, lambda: now[0])
    assert views.budget_chart()["live"] is False
    with open_ledger(home) as ledger:
        ledger.reserve("r2", "1" * 64, (("risk", Release(sigma=50.0, q=1.0, count=2)),), Caps(dataset=8, year=3))
        ledger.commit("r2", 1, "train", (("risk", Release(sigma=50.0, q=1.0, count=1)),))
    assert views.budget_chart()["live"] is False, "kept for some seconds"
    now[0] += KEPT_S + 1
    after = views.budget_chart()
    assert after["live"] is True
    assert after["charts"]["budget"]["at"][-1] == 6
    assert [(row.run, row.state, row.rounds) for row in views.runs()] == [("r2", "open", 1), (RUN, "closed", 5)]
    now[0] -= 3600
    assert views.budget_chart()["live"] is True, "a clock that was set back keeps nothing for an hour"


def test_the_report_is_one_file_that_loads_nothing(page: Served) -> None:
    with page.client() as client:
        text = client.get(f"/runs/{RUN}/report").text
    assert "<script" not in text
    assert not re.findall(r"(?:src|href)=", text)
    assert "style=" not in text
    assert "hospital-1" in text
    assert "For this hospital only" in text
    assert len(text) < 60_000


def test_the_segments_are_drawn_in_clinical_units(page: Served) -> None:
    with page.client() as client:
        for path in (f"/runs/{RUN}", f"/runs/{RUN}/report"):
            text = client.get(path).text
            assert text.count("<h3>Segment") == text.count("This run gave it its number.") == 4
            assert re.search(r"<b>[\d.,\u202f]+(%| (mmHg|mmol/L|kg/m|/min|steps))", text), (
                "which facts differ is noise's choice"
            )
            places = [float(x) for x in re.findall(r'circle cx="([0-9.]+)"', text)]
            assert len(places) > 12
            assert all(5 <= place <= 195 for place in places)


def test_a_rule_and_a_reason_are_told_in_clinical_words(page: Served, home: NodeHome) -> None:
    put_waiting(home, pseudonym="p-1", tag="words", because=("sbp >= 140", "NOT dx_t2d", "risk_t2d_12m >= 0.3"))
    with page.client("care") as client:
        tags, queue = client.get("/tags").text, client.get("/queue").text
    assert "when: systolic blood pressure, the last office value ≥ 140 mmHg and diastolic" in tags
    assert "Systolic blood pressure, the last office value ≥ 140 mmHg<br>" in queue
    assert "Not: type 2 diabetes on the problem list" in queue
    assert "Predicted risk (first diagnosis of type 2 diabetes within 12 months after the index date) ≥ 30 %" in queue


def test_a_pack_that_is_being_edited_takes_no_page_away(page: Served, home: NodeHome) -> None:
    (home.root / "packs").mkdir(exist_ok=True)
    (home.root / "packs" / "own.yaml").write_text("pack: [")
    with page.client() as client:
        answer = client.get("/tags")
    assert (answer.status_code, "when: systolic" in answer.text) == (200, False)


def test_the_report_draws_the_ledger_with_its_scale_and_limits(page: Served) -> None:
    with page.client() as client:
        text = client.get(f"/runs/{RUN}/report").text
    drawing = text[text.index('<svg class="curve"') : text.index("</svg>")]
    assert "5 releases" in drawing
    assert ">0</text>" in drawing
    assert re.search(r"limit in 365 days: 3|limit for ever: 8", drawing) or "limit" not in drawing


def test_models_on_another_catalogue_have_a_card_and_no_segments(home: NodeHome) -> None:
    views = Views(home, time.time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cameo_client.node.publication.load_catalogue", lambda _id: load_catalogue("heart"))
        assert views.segments(RUN) == ()
        assert views.card(RUN)["run"] == RUN
    assert len(views.segments(RUN)) == 4


def test_a_changed_card_is_not_shown(page: Served, home: NodeHome) -> None:
    path = home.models / RUN / "publication.cbor"
    path.write_bytes(path.read_bytes().replace(b"cardiometabolic", b"cardiometabolix", 1))
    with page.client() as client:
        assert client.get(f"/runs/{RUN}").status_code == 409


def test_the_data_are_read_when_somebody_looks_and_again_on_request(
    home: NodeHome, serve: Callable[..., Served]
) -> None:
    calls = []

    def look() -> tuple[int, str, str]:
        calls.append(1)
        return 3, "", "error data-file-missing: it is not there"

    served = serve(home, look)
    with served.client() as client:
        assert calls == []
        client.get("/quality")
        _eventually(lambda: "data-file-missing" in client.get("/quality/panel").text)
        assert len(calls) == 1
        client.post("/quality/look")
        _eventually(lambda: len(calls) == 2)


def _eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_home_in_which_nothing_has_happened_yet(home: NodeHome, serve: Callable[..., Served]) -> None:
    for path in (home.ledger, home.tags, home.consent, home.audit):
        path.unlink()
    for folder in home.models.glob("*"):
        (folder / "publication.cbor").unlink()
    with serve(home).client("care") as client:
        for path in ("/overview", "/budget", "/budget/points", "/tags", "/queue", "/consents", "/chains", "/runs"):
            assert client.get(path).status_code == 200, path
    assert not home.tags.exists(), "looking makes nothing"


def test_a_damaged_ledger_is_an_answer_and_no_crash(home: NodeHome, serve: Callable[..., Served]) -> None:
    home.ledger.write_bytes(b"no ledger")
    with serve(home).client() as client:
        answer = client.get("/budget")
    assert answer.status_code == 409
    assert "ledger-corrupt" in answer.text


def test_a_chain_that_is_broken_is_named_beside_the_others(home: NodeHome, serve: Callable[..., Served]) -> None:
    db = sqlite3.connect(home.tags)
    db.execute("UPDATE log SET body = zeroblob(40) WHERE seq = 2")
    db.commit()
    db.close()
    with serve(home).client("auditor") as client:
        answer = client.get("/chains")
    assert answer.status_code == 200
    rows = dict(re.findall(r'<th scope="row">([a-z ]+)</th>(.*?)</tr>', answer.text, re.S))
    assert [name for name, row in rows.items() if "not sound" in row] == ["tag log"]
    assert len(rows) == 3


def test_pages_are_light(page: Served) -> None:
    scripts = ("cameo.css", "live.js", "htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css")
    with page.client("care") as client:
        shared = sum(len(client.get(f"/static/{name}").content) for name in scripts)
        for path in (path for path, expected in GET.items() if expected[1] == 200):
            assert shared + len(client.get(path).content) < 150_000, path


def test_an_unexpected_fault_shows_nothing_of_its_text(
    page: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_views: Views) -> None:
        raise ValueError("Jane Doe, sbp 190")

    monkeypatch.setattr(Views, "tags", broken)
    with page.client() as client:
        answer = client.get("/tags")
    assert answer.status_code == 500
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "call-failed" in caplog.text
    assert "ValueError" in caplog.text
    assert "Jane Doe" not in answer.text + caplog.text
