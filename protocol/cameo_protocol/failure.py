"""How a failed command is told to the person at the keyboard: code, what happened, who must act, what to do next.

Pure text, the same for `cameo` and `cameo-node`; printing it is the command line's business.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from cameo_protocol.errors import Bug, CameoError, ExitCode, PeerMisbehaved

_WHO: Mapping[ExitCode, str] = {
    ExitCode.USAGE: "you, at this machine",
    ExitCode.QUALITY: "whoever keeps this hospital's data",
    ExitCode.POLICY: "this hospital's privacy officer",
    ExitCode.AUTH: "whoever keeps the keys at this machine, with the other side on the phone",
    ExitCode.DATA: "whoever runs the data source",
    ExitCode.PEER: "you and the other side",
}


def describe(error: CameoError) -> str:
    """Four lines for stderr. Control characters, which a file name may carry, are made harmless.

    >>> from cameo_protocol.errors import OperatorError
    >>> print(describe(OperatorError("no-home", what="there is no node in /x", do="cameo-node init")))
    error: no-home (exit 2)
      what: there is no node in /x
      who:  you, at this machine
      next: cameo-node init
    """
    if isinstance(error, Bug):
        who = "the makers of Cameo"
    elif isinstance(error, PeerMisbehaved):
        who = "the other side, whose message was refused"
    else:
        who = _WHO.get(error.exit_code, _WHO[ExitCode.USAGE])
    do = error.do or "run the command again; if it fails again, send this text to those who run the federation"
    rows = [f"error: {error.code} (exit {int(error.exit_code)})", f"  what: {error.what}", f"  who:  {who}"]
    return printable("\n".join([*rows, f"  next: {do}"]))


def printable(text: str) -> str:
    """Text in which every character but a line end is printable, so that it cannot steer a terminal.

    >>> printable("a\\x1b[2Jb")
    'a\\ufffd[2Jb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def bug_report(error: BaseException, versions: Mapping[str, str]) -> str:
    """Where an unexpected exception came from: types, file names and lines.

    Never messages or values of foreign exceptions: a library may quote a patient's value in them.
    """
    rows = ["Cameo bug report. It holds no data: only types and places in the program.", ""]
    rows += [f"{name} {version}" for name, version in versions.items()]
    seen: BaseException | None = error
    while seen is not None:
        text = f": {seen.code}: {seen.what}" if isinstance(seen, CameoError) else ""
        rows += ["", f"{type(seen).__module__}.{type(seen).__qualname__}{text}"]
        rows += [f"  {f.filename}:{f.lineno} in {f.name}" for f in traceback.extract_tb(seen.__traceback__)]
        seen = seen.__cause__ or seen.__context__
    return printable("\n".join(rows)) + "\n"
