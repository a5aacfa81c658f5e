"""`cameo run --profile` without an audit on the coordinator: the error holds the very command to run there."""

from __future__ import annotations

import pytest

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_server.cli import runs


class Refusing:
    """A coordinator that has no audit, or another complaint."""

    def __init__(self, code: str) -> None:
        self.code = code

    def call(self, method: str, request: object) -> object:
        raise OperatorError(self.code, what="w", do="cameo run makes one by itself", exit=ExitCode.POLICY)


def refused(code: str, *, elsewhere: bool) -> OperatorError:
    with pytest.raises(OperatorError) as error:
        runs._started(Refusing(code), b"{}", ["data=heart", "name=it's"], elsewhere=elsewhere)  # type: ignore[arg-type]
    assert (error.value.code, error.value.exit_code) == (code, ExitCode.POLICY)
    return error.value


def test_the_command_for_the_coordinators_machine_is_told_with_the_same_overrides() -> None:
    told = refused("audit-missing", elsewhere=True).do
    assert told.endswith("""on the coordinator's machine: cameo audit --plan data=heart 'name=it'"'"'s'""")


def test_anything_else_is_told_as_it_came() -> None:
    assert refused("audit-failed", elsewhere=True).do == "cameo run makes one by itself"
    assert refused("audit-missing", elsewhere=False).do == "cameo run makes one by itself"
