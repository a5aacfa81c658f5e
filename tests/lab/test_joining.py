"""A hospital joins by token: the real node code against the real operator interface, over TLS."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from joining_kit import Setting, setting

from cameo_client import enrolment as node
from cameo_client.home import write_file
from cameo_lab.bench.local import free_port
from cameo_protocol.errors import OperatorError
from cameo_server import enrolment as coordinator
from cameo_server import pki

__all__ = ["setting"]


def test_from_a_token_to_a_certificate_and_the_federation_file(setting: Setting) -> None:
    joined = [setting.knock(f"hospital-{letter}") for letter in "abc"]
    home, ca = joined[0]
    said: list[str] = []
    decision = node.wait_for_approval(
        lambda: node.ask(home, setting.address, ca, "hospital-a", datetime.now(UTC)), lambda: None, said.append
    )
    node.keep_certificate(home, decision.certificate)
    write_file(home.federation, decision.federation)
    assert node.newest_federation(home) == decision.federation
    assert (home.operator_key.stat().st_mode & 0o077) == 0
    assert pki.holder_of(x509.load_pem_x509_certificate(home.operator_cert.read_bytes())).name == "hospital-a"

    before = home.operator_cert.read_bytes()
    assert not node.renew_if_due(home, datetime.now(UTC))
    assert node.renew_if_due(home, datetime.now(UTC) + timedelta(days=61))
    assert home.operator_cert.read_bytes() != before

    coordinator.revoke(setting.home, "hospital-a", datetime.now(UTC))
    for _ in range(20):
        with pytest.raises(OperatorError) as refused:
            node.newest_federation(home)
        assert refused.value.code == "certificate-refused"


def test_who_waits_is_told_once_and_asked_again(setting: Setting) -> None:
    decisions = iter(
        [
            node.Decision("pending", b"", b""),
            node.Decision("pending", b"", b""),
            node.Decision("approved", b"c", b""),
            node.Decision("approved", b"c", b"f"),
        ]
    )
    said: list[str] = []
    assert node.wait_for_approval(lambda: next(decisions), lambda: None, said.append).federation == b"f"
    assert [text.partition(" (")[0] for text in said] == [
        "waiting for the coordinator to approve",
        "approved; the other hospitals are awaited",
    ]


def test_a_refused_hospital_stops_waiting(setting: Setting) -> None:
    with pytest.raises(OperatorError) as refused:
        node.wait_for_approval(lambda: node.Decision("refused", b"", b""), lambda: None, lambda _: None)
    assert refused.value.code == "join-refused"


def test_another_ca_than_the_tokens_is_not_spoken_to(setting: Setting) -> None:
    secret = setting.invite("hospital-a").partition(".")[0]
    with pytest.raises(OperatorError) as refused:
        node.pinned_ca(("localhost", setting.port), node.Token.parse(f"{secret}.{'0' * 64}"))
    assert refused.value.code == "ca-differs"


def test_nobody_there_is_said_so(setting: Setting) -> None:
    token = node.Token.parse(setting.invite("hospital-a"))
    with pytest.raises(OperatorError) as refused:
        node.pinned_ca(("localhost", free_port()), token)
    assert refused.value.code == "coordinator-unreachable"


def test_a_certificate_for_another_key_is_not_kept(setting: Setting) -> None:
    home, ca = setting.knock("hospital-a")
    other, _ = setting.knock("hospital-b")
    theirs = node.ask(other, setting.address, ca, "hospital-b", datetime.now(UTC)).certificate
    with pytest.raises(OperatorError) as refused:
        node.keep_certificate(home, theirs)
    assert refused.value.code == "certificate-foreign"
    assert not home.operator_cert.exists()


def test_a_token_does_not_print_its_secret() -> None:
    token = node.Token.parse("ab" * 24 + "." + "cd" * 32)
    assert "abab" not in repr(token)


@given(text=st.one_of(st.text(max_size=200), st.from_regex(r"[0-9a-f]{40,60}\.[0-9a-f]{60,70}")))
def test_any_text_is_a_token_or_a_clear_error(text: str) -> None:
    if re.fullmatch(r"[0-9a-f]{48}\.[0-9a-f]{64}", text.strip()):
        token = node.Token.parse(text)
        assert f"{token.secret}.{token.ca_sha256}" == text.strip()
    else:
        with pytest.raises(OperatorError, match="token-malformed") as refused:
            node.Token.parse(text)
        assert len(text) < 20 or text not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":9094", "a:b:1", "host:0", "host:65536", "host:9094 x", "[::1]"]
)
def test_what_is_no_address_is_a_clear_error(text: str) -> None:
    with pytest.raises(OperatorError, match="option-invalid"):
        node.parse_address(text)


@pytest.mark.parametrize("text", ["host:9094", "10.0.0.7:1", "[fe80::1]:65535"])
def test_an_address_is_host_and_port(text: str) -> None:
    host, port = node.parse_address(text)
    assert text.replace("[", "").replace("]", "") == f"{host}:{port}"
