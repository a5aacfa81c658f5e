"""What a person sees of a failure: four lines, nothing that steers the terminal, nothing of a patient in a report."""

from __future__ import annotations

import pytest

from cameo_protocol.errors import Bug, CameoError, ExitCode, OperatorError, PeerMisbehaved, Reject
from cameo_protocol.failure import bug_report, describe, printable


@pytest.mark.parametrize(
    ("error", "who"),
    [
        (OperatorError("a-code", what="w", do="d"), "you, at this machine"),
        (OperatorError("a-code", what="w", do="d", exit=ExitCode.QUALITY), "data"),
        (OperatorError("a-code", what="w", do="d", exit=ExitCode.POLICY), "privacy officer"),
        (OperatorError("a-code", what="w", do="d", exit=ExitCode.AUTH), "keys"),
        (OperatorError("a-code", what="w", do="d", exit=ExitCode.DATA), "data source"),
        (OperatorError("a-code", what="w", do="d", exit=ExitCode.PEER), "other side"),
        (PeerMisbehaved("a-code", what="w", do="d"), "other side"),
        (Reject("a-code", what="w"), "other side"),
        (Bug("a-code", what="w", do="d"), "makers"),
    ],
)
def test_every_kind_says_who_must_act(error: CameoError, who: str) -> None:
    rows = describe(error).splitlines()
    assert [row.split(":")[0].strip() for row in rows] == ["error", "what", "who", "next"]
    assert rows[0] == f"error: a-code (exit {int(error.exit_code)})"
    assert who in rows[2]
    assert rows[3].partition(": ")[2].strip()


def test_a_name_cannot_steer_the_terminal() -> None:
    text = describe(OperatorError("a-code", what="\x1b]0;owned\x07\r\u202efile", do="d"))
    assert not set(text) & set("\x1b\x07\r\u202e")
    assert printable("é漢\n") == "é漢\n"


def test_a_report_holds_places_and_no_values() -> None:
    def inner() -> None:
        patient = "Jane Roe, born 1970"
        raise ValueError(f"cannot parse {patient}")

    def outer() -> None:
        try:
            inner()
        except ValueError as error:
            raise KeyError("MRN 12345") from error

    with pytest.raises(KeyError) as caught:
        outer()
    text = bug_report(caught.value, {"cameo": "0.1"})
    assert "Jane" not in text
    assert "12345" not in text
    assert "builtins.KeyError" in text
    assert "builtins.ValueError" in text
    assert "test_failure.py" in text
    assert "in inner" in text


def test_a_report_of_our_own_error_names_its_code() -> None:
    assert "Bug: an-invariant: it does not hold" in bug_report(Bug("an-invariant", what="it does not hold"), {})
