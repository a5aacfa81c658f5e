"""Errors that name who must act, and what to do.

Three kinds only: we are wrong (`Bug`), the other side is wrong (`PeerMisbehaved`), the operator can fix it
(`OperatorError`). `code` is stable and listed in docs/errors.md. `what` and `do` never hold a patient value
or anything derived from patient data: counts and ids of ours only.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes, the same for `cameo` and `cameo-node`."""

    OK = 0
    BUG = 1
    USAGE = 2
    QUALITY = 3
    POLICY = 4
    AUTH = 5
    DATA = 6
    PEER = 7
    INTERRUPT = 130


class CameoError(Exception):
    """Base of all our errors: a stable code, what happened, and the next step."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, code: str, *, what: str, do: str = "") -> None:
        super().__init__(f"{code}: {what}")
        self.code = code
        self.what = what
        self.do = do


class Bug(CameoError):
    """Our own fault: an invariant does not hold. Please report it."""


class PeerMisbehaved(CameoError):
    """The other side sent something it must not. The state before the message is kept."""

    exit_code = ExitCode.PEER


class Reject(PeerMisbehaved):
    """A protocol message was refused; the receiving state is unchanged and nothing was sent."""


class OperatorError(CameoError):
    """The operator of this machine can fix it.

    exit: the process exit code, see `ExitCode`.
    """

    def __init__(self, code: str, *, what: str, do: str, exit: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(code, what=what, do=do)
        self.exit_code = exit
