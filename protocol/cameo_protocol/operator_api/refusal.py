"""How an error of ours crosses the operator interface, and what a hospital signs to prove who it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cameo_protocol.errors import CameoError, ExitCode, OperatorError

CODE: Final = "cameo-code"
EXIT: Final = "cameo-exit"
# Values of "-bin" keys may hold any byte: the texts are UTF-8.
WHAT: Final = "cameo-what-bin"
DO: Final = "cameo-do-bin"
# A proof is good for this many seconds on either side: clocks differ.
PROOF_SECONDS: Final = 300
_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")

Metadata = tuple[tuple[str, str | bytes], ...]


def to_metadata(error: CameoError) -> Metadata:
    """The trailing metadata of a refusal."""
    return (
        (CODE, error.code),
        (EXIT, str(int(error.exit_code))),
        (WHAT, error.what.encode()),
        (DO, error.do.encode()),
    )


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> OperatorError | None:
    """The refusal that came with an answer; None when there is none or it is not one of ours.

    >>> error = OperatorError("site-unknown", what="no member is called x", do="cameo site list")
    >>> from_metadata(to_metadata(error)).code
    'site-unknown'
    """
    found = dict(metadata)
    code, exit_code, what, do = (found.get(key) for key in (CODE, EXIT, WHAT, DO))
    if not (isinstance(code, str) and isinstance(exit_code, str) and isinstance(what, bytes) and isinstance(do, bytes)):
        return None
    try:
        known = ExitCode(int(exit_code))
        if known == ExitCode.OK or not _CODE.fullmatch(code):
            return None
        return OperatorError(code, what=what.decode(), do=do.decode(), exit=known)
    except ValueError:
        return None


def request_text(request_pem: bytes) -> bytes:
    """What a hospital signs with its identity key to say that a certificate request is its own."""
    return b"cameo/enroll/request\0" + request_pem


def collect_text(name: str, unix_seconds: int) -> bytes:
    """What a hospital signs with its identity key to learn what was decided about it."""
    return b"cameo/enroll/collect\0" + name.encode() + b"\0" + str(unix_seconds).encode()
