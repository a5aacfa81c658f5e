"""The dashboard's routes. Every one needs a session, and says which roles may use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cameo_protocol.errors import CameoError
from cameo_protocol.web.headers import COOKIE, HEADERS, STATIC, own_host, own_origin
from cameo_protocol.web.links import Links, Visitor
from cameo_protocol.web.sessions import Sessions
from cameo_server import enrolment
from cameo_server.api.services import Coordinator
from cameo_server.dashboard.views import charts, run_view
from cameo_server.launch import stop_run
from cameo_server.run.summary import list_runs, open_store

REFRESH = "X-Cameo-Refresh"
REPORT = "report.html"


@dataclass(frozen=True)
class Dashboard:
    """What the routes act on. port: of this page, for the check of the Host header."""

    coordinator: Coordinator
    links: Links
    sessions: Sessions
    port: int


def create(at: Dashboard) -> FastAPI:
    """The application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    )
    _Door(app, at, pages).add()
    routes = _Routes(at, pages)
    routes.add_runs(app)
    routes.add_sites(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def visitor(request: Request) -> Visitor:
    """Who asks; without a session: the log-in page for a reader, 401 for a script."""
    at: Dashboard = request.app.state.dashboard
    found = at.sessions.find(request.cookies.get(COOKIE, ""), touch=REFRESH not in request.headers)
    if found is None:
        raise HTTPException(401)
    return found


def allowed(*roles: str) -> Callable[[Request], Visitor]:
    """A dependency that lets only these roles in."""

    def check(request: Request) -> Visitor:
        found = visitor(request)
        if found.role not in roles:
            raise HTTPException(403)
        return found

    return check


READER = Depends(allowed("coordinator", "researcher", "auditor"))
LAUNCHER = Depends(allowed("coordinator", "researcher"))
OWNER = Depends(allowed("coordinator"))
Reader = Annotated[Visitor, READER]


class _Door:
    """What comes before every route: whose request it is, log-in, log-out, the headers, errors."""

    def __init__(self, app: FastAPI, at: Dashboard, pages: Environment) -> None:
        self._app, self._at, self._pages = app, at, pages
        app.state.dashboard = at

    def add(self) -> None:
        """Add the middleware, the error pages and the log-in."""
        self._app.middleware("http")(self._guard)
        self._app.add_exception_handler(HTTPException, self._http_error)
        self._app.add_exception_handler(CameoError, self._our_error)
        self._app.get("/login")(self.login)
        self._app.post("/logout")(self.logout)

    async def _guard(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "")
        if not own_host(host, self._at.port):
            answer: Response = Response("not this page's address", 421, media_type="text/plain")
        elif request.method not in ("GET", "HEAD") and not own_origin(request.headers.get("origin"), host):
            answer = Response("a request from another page", 403, media_type="text/plain")
        else:
            answer = await call_next(request)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if request.url.path.startswith("/static/"):
            answer.headers["Cache-Control"] = "private, max-age=3600"
        return answer

    def login(self, link: str = "") -> Response:
        """Redeem a one-time link; without one, say how to get it."""
        found = self._at.links.redeem(link) if link else None
        if found is None:
            return HTMLResponse(self._pages.get_template("login.html").render(bad=bool(link)), 401 if link else 200)
        answer = RedirectResponse("/runs", 303)
        answer.set_cookie(COOKIE, self._at.sessions.begin(found), httponly=True, samesite="strict", path="/")
        return answer

    def logout(self, request: Request) -> Response:
        """End the session."""
        self._at.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def _http_error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 401 and request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        words = {401: "log in first", 403: "your role may not do this", 404: "there is no such page"}
        return self._told(status, "", words.get(status, "this cannot be done"))

    def _our_error(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, CameoError)
        return self._told(404 if error.code == "run-unknown" else 409, error.code, f"{error.what}. {error.do}")

    def _told(self, status: int, code: str, what: str) -> Response:
        page = self._pages.get_template("error.html").render(status=status, code=code, what=what, who=None, here="")
        return HTMLResponse(page, status)


class _Routes:
    """The pages behind the door."""

    def __init__(self, at: Dashboard, pages: Environment) -> None:
        self._at, self._pages = at, pages

    def _page(self, name: str, who: Visitor, here: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._pages.get_template(name).render(who=who, here=here, **values))

    def add_runs(self, app: FastAPI) -> None:
        """Runs, one run, its live parts, its report, its end."""
        home = self._at.coordinator.home

        @app.get("/")
        def root() -> Response:
            return RedirectResponse("/runs", 303)

        @app.get("/runs")
        def runs(who: Reader) -> Response:
            return self._page("runs.html", who, "runs", runs=list_runs(home))

        @app.get("/runs/table")
        def runs_table(who: Reader) -> Response:
            return self._page("runs_table.html", who, "", runs=list_runs(home))

        @app.get("/runs/{run}")
        def one_run(run: str, who: Reader) -> Response:
            store = open_store(home, run)
            report = (store.folder / REPORT).is_file()
            return self._page("run.html", who, "runs", view=run_view(store), report=report)

        @app.get("/runs/{run}/panel")
        def panel(run: str, who: Reader) -> Response:
            return self._page("run_panel.html", who, "", view=run_view(open_store(home, run)))

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

        @app.post("/runs/{run}/stop", dependencies=[LAUNCHER])
        def stop(run: str) -> Response:
            stop_run(open_store(home, run))
            return RedirectResponse(f"/runs/{run}", 303)

    def add_sites(self, app: FastAPI) -> None:
        """Hospitals: the table, approval, revocation."""
        at = self._at.coordinator

        def listed() -> dict[str, Any]:
            return {"sites": enrolment.site_states(at.home, at.now()), "online": at.contacts()}

        @app.get("/sites")
        def sites(who: Reader) -> Response:
            return self._page("sites.html", who, "sites", **listed())

        @app.get("/sites/table")
        def sites_table(who: Reader) -> Response:
            return self._page("sites_table.html", who, "", **listed())

        @app.post("/sites/{name}/approve", dependencies=[OWNER])
        def approve(name: str, fingerprint: Annotated[str, Form()]) -> Response:
            enrolment.approve(at.home, name, fingerprint.strip(), at.now())
            return RedirectResponse("/sites", 303)

        @app.post("/sites/{name}/revoke", dependencies=[OWNER])
        def revoke(name: str) -> Response:
            enrolment.revoke(at.home, name, at.now())
            return RedirectResponse("/sites", 303)
