"""The headers of every answer of a page, and which requests are taken at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
COOKIE: Final = "cameo-session"
# Our forms hold a few short texts. A body is read before anybody looks whose it is, and files in it go to the disk.
MOST_FORM: Final = 1 << 16

# Nothing from elsewhere, no inline script or style, no frame, no form to elsewhere.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": then browsers send "Origin: null" with the page's own forms, which `own_origin` refuses.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def own_host(host: str, port: int) -> bool:
    """Whether a Host header names this page on loopback: any other name is a web site that points at us.

    >>> own_host("localhost:9095", 9095), own_host("evil.example:9095", 9095)
    (True, False)
    """
    return host in {f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"}


def short_body(headers: Mapping[str, str]) -> bool:
    """Whether a request says that its body, if any, is no longer than a form of ours."""
    length = headers.get("content-length", "0")
    return "transfer-encoding" not in headers and length.isdecimal() and len(length) < 12 and int(length) <= MOST_FORM


def own_origin(origin: str | None, host: str) -> bool:
    """Whether a request that changes something comes from this page itself. Browsers send Origin with every POST."""
    return origin == f"http://{host}"
