"""What a hospital or a person makes of a refusal that a coordinator sends, also of one that is made to mislead."""

from __future__ import annotations

import pytest

from cameo_protocol.errors import CameoError, ExitCode, OperatorError, Reject
from cameo_protocol.failure import describe
from cameo_protocol.operator_api.refusal import CODE, DO, EXIT, WHAT, from_metadata, to_metadata

GOOD = {CODE: "token-refused", EXIT: "5", WHAT: b"what", DO: b"do"}


@pytest.mark.parametrize(
    "error",
    [
        OperatorError("a-code", what="Zürich", do="call", exit=ExitCode.DATA),
        OperatorError("a", what="", do=""),
        Reject("message-malformed", what="no"),
    ],
)
def test_a_refusal_arrives_as_it_was_sent(error: CameoError) -> None:
    found = from_metadata(to_metadata(error))
    assert found is not None
    assert (found.code, found.what, found.do, found.exit_code) == (error.code, error.what, error.do, error.exit_code)


@pytest.mark.parametrize(
    "change",
    [
        {EXIT: "0"},  # a script would take the refusal for a success
        {EXIT: "99"},
        {EXIT: "x"},
        {EXIT: b"5"},
        {CODE: ""},
        {CODE: "Token-Refused"},
        {CODE: "token refused"},
        {CODE: "token-refused\n"},
        {CODE: "x" * 65},
        {CODE: b"token-refused"},
        {WHAT: b"\xff"},
        {WHAT: "text"},
        {DO: b"\xc3"},
    ],
)
def test_what_is_no_refusal_of_ours_is_none(change: dict[str, str | bytes]) -> None:
    assert from_metadata(GOOD.items()) is not None
    assert from_metadata((GOOD | change).items()) is None
    for key in change:
        assert from_metadata((name, value) for name, value in GOOD.items() if name != key) is None


def test_a_refusal_cannot_steer_the_terminal_on_which_it_is_shown() -> None:
    found = from_metadata((GOOD | {WHAT: b"\x1b[2J\x1b]0;x\x07ok\r", DO: "\u202eevil\x9b".encode()}).items())
    assert found is not None
    shown = describe(found)
    assert all(character.isprintable() or character == "\n" for character in shown)
