"""The door of a page: whose request it is, log-in and log-out, roles, the headers of every answer, and errors.

There is one, for the coordinator's page and the hospital's. Like `console`, a thin edge that only the edges import.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from cameo_protocol.errors import CameoError
from cameo_protocol.logs import failure, get_logger
from cameo_protocol.web.headers import COOKIE, HEADERS, STATIC, own_host, own_origin, short_body
from cameo_protocol.web.impatient import impatient
from cameo_protocol.web.links import Links, Visitor
from cameo_protocol.web.sessions import Sessions

log = get_logger(__name__)
# Sent by pages that refresh themselves, which is no sign that somebody is there.
REFRESH: Final = "X-Cameo-Refresh"
SHARED: Final = Path(__file__).parent / "templates"
_WORDS: Final = {
    HTTPStatus.UNAUTHORIZED: "log in first",
    HTTPStatus.FORBIDDEN: "your role may not do this",
    HTTPStatus.NOT_FOUND: "there is no such page",
    HTTPStatus.INTERNAL_SERVER_ERROR: "this is our fault; the log says where it happened",
    HTTPStatus.UNPROCESSABLE_ENTITY: "the form is not filled in as it must be",
}


@dataclass(frozen=True)
class Tab:
    """One entry of the navigation; only these roles see it."""

    path: str
    label: str
    roles: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Door:
    """What a page needs to let people in.

    port: of this page, for the check of the Host header. start: where log-in leads. templates: the page's own; it
    has a login.html. brand: its name. unknown: codes of our errors that mean that there is no such thing.
    """

    links: Links
    sessions: Sessions
    port: int
    start: str
    templates: Path
    tabs: Sequence[Tab]
    brand: str = "Cameo"
    unknown: frozenset[str] = frozenset()

    @property
    def cookie(self) -> str:
        """The name of its session's cookie. Browsers send cookies of localhost to every port, so each page has one."""
        return f"{COOKIE}-{self.port}"

    def open(self, filters: Mapping[str, Callable[..., Any]] | None = None) -> tuple[FastAPI, Environment]:
        """An application with nothing but the door, and the environment in which its pages are laid out."""
        pages = Environment(
            loader=FileSystemLoader([self.templates, SHARED]), autoescape=True, undefined=StrictUndefined
        )
        pages.globals.update(tabs=self.tabs, brand=self.brand, start=self.start)
        pages.filters.update(filters or {})
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.state.sessions, app.state.cookie = self.sessions, self.cookie
        _Opened(self, pages).add(app)
        return app, pages


def visitor(request: Request) -> Visitor:
    """Who asks; nobody is 401, which sends a reader to the log-in page."""
    found: Visitor | None = request.app.state.sessions.find(
        request.cookies.get(request.app.state.cookie, ""), touch=REFRESH not in request.headers
    )
    if found is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED)
    return found


def allowed(*roles: str) -> Callable[[Request], Visitor]:
    """A dependency that lets only these roles in."""

    def check(request: Request) -> Visitor:
        found = visitor(request)
        if found.role not in roles:
            raise HTTPException(HTTPStatus.FORBIDDEN)
        return found

    return check


class _Opened:
    """The middleware, the error pages, the log-in."""

    def __init__(self, door: Door, pages: Environment) -> None:
        self._door, self._pages = door, pages

    def add(self, app: FastAPI) -> None:
        app.middleware("http")(self._guard)
        app.add_exception_handler(HTTPException, self._http_error)
        app.add_exception_handler(RequestValidationError, self._bad_request)
        app.add_exception_handler(CameoError, self._our_error)
        app.get("/")(self.root)
        app.get("/login")(self.login)
        app.post("/logout")(self.logout)
        app.mount("/static", StaticFiles(directory=STATIC), name="static")

    async def _guard(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "")
        if not own_host(host, self._door.port):
            answer: Response = Response("not this page's address", 421, media_type="text/plain")
        elif request.method not in ("GET", "HEAD") and not own_origin(request.headers.get("origin"), host):
            answer = Response("a request from another page", 403, media_type="text/plain")
        elif not short_body(request.headers):
            answer = Response("longer than any form of this page", 413, media_type="text/plain")
        else:
            try:
                answer = await call_next(request)
            except Exception as error:
                # Neither the page nor the log gets the text of an exception, which may quote a patient's value.
                log.error("call-failed", **failure(error))
                answer = self._told(500, "unexpected", _WORDS[HTTPStatus.INTERNAL_SERVER_ERROR])
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if request.url.path.startswith("/static/"):
            answer.headers["Cache-Control"] = "private, max-age=3600"
        return answer

    def root(self) -> Response:
        """To the first page."""
        return RedirectResponse(self._door.start, 303)

    def login(self, link: str = "") -> Response:
        """Redeem a one-time link; without one, say how to get it."""
        found = self._door.links.redeem(link) if link else None
        if found is None:
            page = self._pages.get_template("login.html").render(who=None, here="", bad=bool(link))
            return HTMLResponse(page, 401 if link else 200)
        answer = RedirectResponse(self._door.start, 303)
        session = self._door.sessions.begin(found)
        answer.set_cookie(self._door.cookie, session, httponly=True, samesite="strict", path="/")
        return answer

    def logout(self, request: Request) -> Response:
        """End the session."""
        self._door.sessions.end(request.cookies.get(self._door.cookie, ""))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(self._door.cookie)
        return answer

    def _http_error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        reader = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if status == HTTPStatus.UNAUTHORIZED and reader and REFRESH not in request.headers:
            return RedirectResponse("/login", 303)
        answer = self._told(status, "", _WORDS.get(HTTPStatus(status), "this cannot be done"))
        if status == HTTPStatus.UNAUTHORIZED and REFRESH in request.headers:
            answer.headers["HX-Redirect"] = "/login"  # a screen that nobody watches does not keep its figures
        return answer

    def _bad_request(self, _request: Request, _error: Exception) -> Response:
        return self._told(422, "", _WORDS[HTTPStatus.UNPROCESSABLE_ENTITY])

    def _our_error(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, CameoError)
        return self._told(404 if error.code in self._door.unknown else 409, error.code, error.what, error.do)

    def _told(self, status: int, code: str, what: str, do: str = "") -> Response:
        said = {"status": status, "code": code, "what": what, "do": do}
        return HTMLResponse(self._pages.get_template("error.html").render(**said, who=None, here=""), status)


@contextmanager
def serving(app: FastAPI, listener: Any, name: str) -> Iterator[None]:
    """Answer on a listening socket, in a thread of that name, until the block ends."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=impatient(),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        ws="none",
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=5)
