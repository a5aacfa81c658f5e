"""`cameo site` as typed, against a coordinator that answers: next steps that work, and states that are true."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest

from cameo_protocol.errors import OperatorError
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_server import enrolment
from cameo_server.cli import site

from .conftest import Api, Applicant


def test_approval_without_a_terminal_names_an_option_that_exists(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.knock(Applicant("hospital-a"), api.invite("hospital-a"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(OperatorError) as error:
        site.approve("hospital-a", home=api.home.root)
    assert error.value.code == "not-confirmed"
    assert "cameo site approve hospital-a --fingerprint" in error.value.do
    assert "--yes" not in error.value.do


def test_an_invitation_says_how_the_token_stays_off_a_command_line(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    site.invite("hospital-a", ttl="30m", home=api.home.root)
    told = capsys.readouterr().out
    assert all(word in told for word in ("cameo-node join", "--token-file FILE", "--token - (standard input)"))


def test_only_a_member_is_online_also_when_it_came_back_under_its_name(api: Api) -> None:
    api.admit("hospital-a")
    with api.client() as client:
        client.call("RevokeSite", pb.RevokeSiteRequest(name="hospital-a"))
    api.admit("hospital-a")
    api.online["hospital-a"] = True
    with api.client() as client:
        sites = client.call("ListSites", pb.ListSitesRequest()).sites
    assert [(s.index, s.state, s.online) for s in sites] == [(2, "member", True), (1, "revoked", False)]


def test_nobody_is_asked_about_a_hospital_that_is_not_there(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OperatorError, match="no hospital is called"):
        site.revoke("hospital-z", home=api.home.root)
    assert "locked out" not in capsys.readouterr().err


def test_a_second_revocation_says_that_there_was_a_first(api: Api) -> None:
    api.admit("hospital-a")
    enrolment.revoke(api.home, "hospital-a", datetime.now(UTC))
    with pytest.raises(OperatorError, match="revoked already"):
        enrolment.revoke(api.home, "hospital-a", datetime.now(UTC))
    with pytest.raises(OperatorError, match="no hospital is called"):
        enrolment.revoke(api.home, "hospital-b", datetime.now(UTC))


@pytest.mark.parametrize("name", ["Hospital A", "", "../x", "-a", "a" * 200])
def test_a_bad_name_is_told_what_a_name_may_be(api: Api, name: str) -> None:
    with pytest.raises(OperatorError) as error:
        api.invite(name)
    assert error.value.code == "option-invalid"
    assert "letters a-z, digits, . _ -" in error.value.what
    assert "pattern" not in error.value.what
