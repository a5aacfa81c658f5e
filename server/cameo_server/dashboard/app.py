"""The dashboard's routes. Every one needs a session, and says which roles may use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment

from cameo_protocol.web import words
from cameo_protocol.web.door import Door, Tab, allowed
from cameo_protocol.web.links import Links, Visitor
from cameo_protocol.web.sessions import Sessions
from cameo_server import enrolment
from cameo_server.api.services import Coordinator
from cameo_server.audit import note
from cameo_server.dashboard.plan_view import plan_view
from cameo_server.dashboard.views import RunTable, RunView, charts, presence, run_view
from cameo_server.launch import stop_run
from cameo_server.run.summary import REPORT, open_store

ROLES = frozenset({"coordinator", "researcher", "auditor"})
TABS = (Tab("/runs", "Runs", ROLES), Tab("/sites", "Sites", ROLES))
FILTERS: Mapping[str, Callable[..., Any]] = {
    "decimal_estimate": words.decimal_estimate,
    "moment": words.moment,
    "percent": words.percent_text,
    "percent_estimate": words.percent_estimate,
    "points_estimate": words.points_estimate,
    "thousands": words.thousands,
}
READER = Depends(allowed(*ROLES))
LAUNCHER = Depends(allowed("coordinator", "researcher"))
Reader = Annotated[Visitor, READER]
Owner = Annotated[Visitor, Depends(allowed("coordinator"))]


@dataclass(frozen=True)
class Dashboard:
    """What the routes act on. port: of this page, for the check of the Host header."""

    coordinator: Coordinator
    links: Links
    sessions: Sessions
    port: int


def create(at: Dashboard) -> FastAPI:
    """The application."""
    door = Door(
        links=at.links,
        sessions=at.sessions,
        port=at.port,
        start="/runs",
        templates=Path(__file__).parent / "templates",
        tabs=TABS,
        unknown=frozenset({"run-unknown"}),
    )
    app, pages = door.open(FILTERS)
    routes = _Routes(at, pages)
    routes.add_runs(app)
    routes.add_sites(app)
    return app


class _Routes:
    """The pages behind the door."""

    def __init__(self, at: Dashboard, pages: Environment) -> None:
        self._at, self._pages = at, pages

    def _page(self, name: str, who: Visitor, here: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._pages.get_template(name).render(who=who, here=here, **values))

    def add_runs(self, app: FastAPI) -> None:
        """Runs, one run, its live parts, its report, its end."""
        home, table = self._at.coordinator.home, RunTable(self._at.coordinator.home)

        def view(run: str) -> RunView:
            return run_view(open_store(home, run), self._at.coordinator.now().timestamp())

        @app.get("/runs")
        def runs(who: Reader) -> Response:
            return self._page("runs.html", who, "runs", runs=table.rows())

        @app.get("/runs/table")
        def runs_table(who: Reader) -> Response:
            return self._page("runs_table.html", who, "", runs=table.rows())

        @app.get("/runs/{run}")
        def one_run(run: str, who: Reader) -> Response:
            store = open_store(home, run)
            report = (store.folder / REPORT).is_file()
            plan = plan_view(store.plan())
            return self._page("run.html", who, "runs", view=view(run), plan=plan, report=report)

        @app.get("/runs/{run}/panel")
        def panel(run: str, who: Reader) -> Response:
            return self._page("run_panel.html", who, "", view=view(run))

        @app.get("/runs/{run}/points", dependencies=[READER])
        def points(run: str) -> Response:
            return JSONResponse(charts(open_store(home, run)))

        @app.get("/runs/{run}/report", dependencies=[READER])
        def report(run: str) -> Response:
            path = open_store(home, run).folder / REPORT
            if not path.is_file():
                raise HTTPException(404)
            # A report is one file with its own style inside; it runs nothing and loads nothing.
            policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
            return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": policy})

        @app.post("/runs/{run}/stop")
        def stop(run: str, who: Annotated[Visitor, LAUNCHER]) -> Response:
            if stop_run(open_store(home, run)):
                note(home, "run-stop-asked", who=who.name, about=run)
            return RedirectResponse(f"/runs/{run}", 303)

    def add_sites(self, app: FastAPI) -> None:
        """Hospitals: the table, approval, revocation."""
        at = self._at.coordinator

        def listed() -> dict[str, Any]:
            sites, online = enrolment.site_states(at.home, at.now()), at.contacts()
            members = [site.name for site in sites if site.state == "member"]
            return {"sites": sites, "online": online, "presence": presence(members, online)}

        @app.get("/sites")
        def sites(who: Reader) -> Response:
            return self._page("sites.html", who, "sites", **listed())

        @app.get("/sites/table")
        def sites_table(who: Reader) -> Response:
            return self._page("sites_table.html", who, "", **listed())

        @app.post("/sites/{name}/approve")
        def approve(name: str, fingerprint: Annotated[str, Form()], who: Owner) -> Response:
            state = enrolment.approve(at.home, name, fingerprint.strip(), at.now())
            note(at.home, "site-approved", who=who.name, about=name, fingerprint=state.fingerprint)
            return RedirectResponse("/sites", 303)

        @app.post("/sites/{name}/revoke")
        def revoke(name: str, who: Owner) -> Response:
            state = enrolment.revoke(at.home, name, at.now())
            note(at.home, "site-revoked", who=who.name, about=name, fingerprint=state.fingerprint)
            return RedirectResponse("/sites", 303)
