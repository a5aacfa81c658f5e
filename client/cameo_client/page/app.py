"""The page's routes. Every one needs a session, and says which roles may use it.

Officer, care and auditor see the same figures; only care sees patients' rows, the review queue, and decides on them,
as far as roles.yaml gives that person the role. An auditor changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Form, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment

from cameo_client.audit import note
from cameo_client.home import NodeHome, load_config
from cameo_client.page.clinical import in_words
from cameo_client.page.look import QualityLook
from cameo_client.page.report import CSP, hospital_report
from cameo_client.page.views import Views
from cameo_client.page.words import FILTERS
from cameo_client.tags import desk, roles
from cameo_client.tags.store import TagStore
from cameo_protocol.web.door import Door, Tab, allowed
from cameo_protocol.web.links import Links, Visitor
from cameo_protocol.web.sessions import Sessions
from cameo_protocol.web.words import TOWARD

Role = Literal["officer", "care", "auditor"]
EVERYBODY = frozenset({"officer", "care", "auditor"})
TABS = (
    Tab("/overview", "Overview", EVERYBODY),
    Tab("/budget", "Budget", EVERYBODY),
    Tab("/quality", "Data quality", EVERYBODY),
    Tab("/tags", "Tags", EVERYBODY),
    Tab("/queue", "Review queue", frozenset({"care"})),
    Tab("/consents", "Consents", EVERYBODY),
    Tab("/chains", "Audit", EVERYBODY),
    Tab("/runs", "Runs", EVERYBODY),
)
READER = Depends(allowed(*EVERYBODY))
LOOKER = Depends(allowed("officer", "care"))
Reader = Annotated[Visitor, READER]
Carer = Annotated[Visitor, Depends(allowed("care"))]
MOST_ROWS = 50


@dataclass(frozen=True)
class Page:
    """What the routes act on. port: of this page, for the check of the Host header. clock: unix seconds."""

    home: NodeHome
    links: Links
    sessions: Sessions
    port: int
    clock: Callable[[], float]
    quality: QualityLook


def create(at: Page) -> FastAPI:
    """The application."""
    door = Door(
        links=at.links,
        sessions=at.sessions,
        port=at.port,
        start="/overview",
        templates=Path(__file__).parent / "templates",
        tabs=TABS,
        brand=f"Cameo · {load_config(at.home).site}",
        unknown=frozenset({"model-missing"}),
    )
    app, pages = door.open(FILTERS)
    routes = _Routes(at, pages)
    pages.filters["in_words"] = routes.in_words
    routes.add_figures(app)
    routes.add_queue(app)
    routes.add_runs(app)
    return app


class _Routes:
    """The pages behind the door."""

    def __init__(self, at: Page, pages: Environment) -> None:
        self._at, self._pages = at, pages
        self._views = Views(at.home, at.clock)

    def _page(self, name: str, who: Visitor, here: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._pages.get_template(name).render(who=who, here=here, toward=TOWARD, **values))

    def in_words(self, condition: str) -> str:
        """A comparison of a rule as a clinician says it."""
        return in_words(condition, self._views.names())

    def add_figures(self, app: FastAPI) -> None:
        """Overview, budget, quality, tags, consents, heads."""
        views, quality = self._views, self._at.quality

        def state() -> dict[str, Any]:
            found = {"node": views.node(), "budget": views.budget(), "quality": quality.seen()}
            return {**found, "tags": views.tags(), "runs": views.runs()[:5], "consents": views.consents()}

        @app.get("/overview")
        def overview(who: Reader) -> Response:
            return self._page("overview.html", who, "overview", **state())

        @app.get("/overview/panel")
        def overview_panel(who: Reader) -> Response:
            return self._page("overview_panel.html", who, "", **state())

        @app.get("/budget")
        def budget(who: Reader) -> Response:
            return self._page("budget.html", who, "budget", budget=views.budget(), runs=views.runs())

        @app.get("/budget/points", dependencies=[READER])
        def budget_points() -> Response:
            return JSONResponse(views.budget_chart())

        @app.get("/quality")
        def data_quality(who: Reader) -> Response:
            return self._page("quality.html", who, "quality", quality=quality.seen(), names=views.names())

        @app.get("/quality/panel")
        def quality_panel(who: Reader) -> Response:
            return self._page("quality_panel.html", who, "", quality=quality.seen(), names=views.names())

        @app.post("/quality/look", dependencies=[LOOKER])
        def look() -> Response:
            quality.begin()
            return RedirectResponse("/quality", 303)

        @app.get("/tags")
        def tags(who: Reader) -> Response:
            return self._page("tags.html", who, "tags", table=views.tags(), conditions=views.conditions())

        @app.get("/consents")
        def consents(who: Reader) -> Response:
            return self._page("consents.html", who, "consents", consents=views.consents())

        @app.get("/chains")
        def chains(who: Reader) -> Response:
            return self._page("chains.html", who, "chains", chains=views.chains())

    def add_queue(self, app: FastAPI) -> None:
        """What waits for a person, and the person's verdict."""
        home, views = self._at.home, self._views

        @app.get("/queue")
        def queue(who: Carer, done: bool = False) -> Response:
            roles.require(roles.load_roles(home.roles), who.name, "queue")
            rows: list[dict[str, Any]] = []
            if home.tags.exists():
                with TagStore(home.tags) as store:
                    rows = desk.queue(store, views.now())["waiting"]
                    seen = [(row["pseudonym"], row["tag"]) for row in rows[:MOST_ROWS]]
                    if seen:
                        store.log_access(who.name, "queue", seen, views.now())
            return self._page("queue.html", who, "queue", rows=rows[:MOST_ROWS], waiting=len(rows), done=done)

        @app.post("/queue/decide")
        def decide(
            who: Carer,
            pseudonym: Annotated[str, Form(max_length=200)],
            tag: Annotated[str, Form(max_length=200)],
            verdict: Annotated[Literal["approved", "rejected"], Form()],
        ) -> Response:
            owns = roles.require(roles.load_roles(home.roles), who.name, "approve").owns
            with TagStore(home.tags) as store:
                reject = verdict == "rejected"
                desk.approve(store, pseudonym, tag, who.name, views.now(), reject=reject, owns=owns)
            note(home, "tag-reviewed", who=who.name, about=tag, verdict=verdict)
            return RedirectResponse("/queue?done=1", 303)

    def add_runs(self, app: FastAPI) -> None:
        """Runs, model cards, this hospital's own report of one."""
        views = self._views

        @app.get("/runs")
        def runs(who: Reader) -> Response:
            return self._page("runs.html", who, "runs", runs=views.runs())

        @app.get("/runs/{run}")
        def one_run(run: str, who: Reader) -> Response:
            card = views.card(run)
            row = next((row for row in views.runs() if row.run == run), None)
            shown = {"card": card, "row": row, "segments": views.segments(run), "labels": views.labels()}
            return self._page("run.html", who, "runs", **shown)

        @app.get("/runs/{run}/report", dependencies=[READER])
        def report(run: str) -> Response:
            text = hospital_report(views, run)
            return HTMLResponse(text, headers={"Content-Security-Policy": CSP})
