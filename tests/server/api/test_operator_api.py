"""The operator interface over real mutual TLS: joining, roles, revocation, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cameo_protocol.errors import OperatorError
from cameo_protocol.federation import read_card, read_federation
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_server import pki
from cameo_server.api.access import ACCESS
from cameo_server.api.client import Profile, connect, own_profile
from cameo_server.api.services import unary_names
from cameo_server.audit import open_audit
from cameo_server.home import load_ec
from cameo_server.membership import list_sites, load_certificate

from .conftest import Api, Applicant

REQUESTS: dict[str, Any] = {
    "GetStatus": pb.GetStatusRequest(),
    "InviteSite": pb.InviteSiteRequest(name="hospital-z", ttl_seconds=600),
    "ListSites": pb.ListSitesRequest(),
    "ApproveSite": pb.ApproveSiteRequest(name="nobody"),
    "RevokeSite": pb.RevokeSiteRequest(name="nobody"),
    "RenewCertificate": pb.RenewCertificateRequest(request_pem=b"none"),
    "GetFederation": pb.GetFederationRequest(),
    "StartRun": pb.StartRunRequest(plan=b"{}"),
    "ListRuns": pb.ListRunsRequest(),
    "GetRun": pb.GetRunRequest(run="none"),
    "WatchRun": pb.WatchRunRequest(run="none"),
    "StopRun": pb.StopRunRequest(run="none"),
}


def _code(api: Api, role: pki.Role, method: str) -> str:
    """The code with which a call is refused; "" when it is answered."""
    with api.client(role) as client:
        try:
            if method == "WatchRun":
                list(client.stream(method, REQUESTS[method]))
            else:
                client.call(method, REQUESTS[method])
        except OperatorError as error:
            return error.code
    return ""


def test_every_method_has_its_roles_and_its_test() -> None:
    assert set(unary_names()) == set(ACCESS) == set(REQUESTS)


def test_every_role_may_call_what_the_table_says_and_nothing_else(api: Api) -> None:
    for role in pki.ROLES:
        for method, allowed in ACCESS.items():
            refused = _code(api, role, method) == "role-refused"
            assert refused == (role not in allowed), (role, method)


def test_a_hospital_joins_and_is_revoked(api: Api) -> None:
    applicants = [api.admit(f"hospital-{letter}") for letter in "abc"]
    assert [m.name for m in list_sites(api.home)] == ["hospital-a", "hospital-b", "hospital-c"]
    reply = api.collect(applicants[0])
    assert reply.state == "approved"
    assert read_federation(reply.federation).site("hospital-a") is not None
    profile = api.site_profile(applicants[0])
    with connect(profile, f"localhost:{api.ports[0]}") as client:
        assert client.call("GetStatus", pb.GetStatusRequest()).role == "site"
        renewed = client.call("RenewCertificate", pb.RenewCertificateRequest(request_pem=applicants[0].request()))
        profile.certificate.write_bytes(renewed.certificate_pem)
    with api.client() as client:
        client.call("RevokeSite", pb.RevokeSiteRequest(name="hospital-a"))
    with connect(profile, f"localhost:{api.ports[0]}") as client, pytest.raises(OperatorError) as refused:
        client.call("GetStatus", pb.GetStatusRequest())
    assert refused.value.code == "certificate-refused"
    assert api.collect(applicants[0]).state == "refused"


def test_who_did_what_to_a_hospital_is_in_the_audit_log(api: Api) -> None:
    applicant = api.admit("hospital-a")
    with connect(api.site_profile(applicant), f"localhost:{api.ports[0]}") as client:
        client.call("RenewCertificate", pb.RenewCertificateRequest(request_pem=applicant.request()))
    with api.client() as client:
        client.call("RevokeSite", pb.RevokeSiteRequest(name="hospital-a"))
        with pytest.raises(OperatorError):
            client.call("RevokeSite", pb.RevokeSiteRequest(name="nobody"))
    with open_audit(api.home) as log:
        log.verify()
        found = [(entry.kind, entry.who, entry.about) for entry, _ in log.entries()][1:]
    person = next(who for kind, who, _ in found if kind == "site-approved")
    assert person not in ("", "hospital-a")
    assert found == [
        ("site-invited", person, "hospital-a"),
        ("site-knocked", "hospital-a", "hospital-a"),
        ("site-approved", person, "hospital-a"),
        ("certificate-renewed", "hospital-a", "hospital-a"),
        ("site-revoked", person, "hospital-a"),
    ]


def test_the_federation_file_waits_for_everyone_who_was_invited(api: Api) -> None:
    for letter in "abc":
        api.invite(f"hospital-{letter}")
    last = Applicant("hospital-d")
    token = api.invite("hospital-d")
    first = api.admit("hospital-a")
    api.admit("hospital-b"), api.admit("hospital-c")
    assert api.collect(first).federation == b""
    api.approve("hospital-d", api.knock(last, token).fingerprint)
    assert len(read_federation(api.collect(first).federation).cohort.sites) == 4


@pytest.mark.parametrize("spoil", ["secret", "name", "second card", "expired", "used"])
def test_a_token_is_good_for_one_hospital_once(api: Api, spoil: str) -> None:
    applicant = Applicant("hospital-a")
    token = api.invite("hospital-a")
    if spoil == "secret":
        token = "0" * 48 + "." + token.partition(".")[2]
    elif spoil == "name":
        applicant = Applicant("hospital-b")
    elif spoil == "second card":
        api.knock(applicant, token)
        applicant = Applicant("hospital-a")
    elif spoil == "expired":
        from cameo_server.membership import open_roster

        with open_roster(api.home) as db:
            db.execute("UPDATE invitations SET expires = 1")
    elif spoil == "used":
        api.approve("hospital-a", api.knock(applicant, token).fingerprint)
        with api.client() as client:
            client.call("RevokeSite", pb.RevokeSiteRequest(name="hospital-a"))
    with pytest.raises(OperatorError) as refused:
        api.knock(applicant, token)
    assert refused.value.code == "token-refused"


def test_the_secret_is_kept_as_a_hash_only(api: Api) -> None:
    secret = api.invite("hospital-a").partition(".")[0]
    assert secret.encode() not in api.home.roster.read_bytes()


def test_knocking_again_with_the_same_card_changes_nothing(api: Api) -> None:
    applicant, token = Applicant("hospital-a"), api.invite("hospital-a")
    assert api.knock(applicant, token).fingerprint == api.knock(applicant, token).fingerprint


def test_approval_needs_the_fingerprint_that_was_compared(api: Api) -> None:
    applicant, token = Applicant("hospital-a"), api.invite("hospital-a")
    api.knock(applicant, token)
    with pytest.raises(OperatorError) as refused:
        api.approve("hospital-a", "0000-" * 9 + "0000")
    assert refused.value.code == "fingerprint-differs"
    assert list_sites(api.home) == []
    assert api.collect(applicant).state == "pending"


@pytest.mark.parametrize("typed", [str.upper, lambda text: text.replace("-", " "), lambda text: f" {text}\n"])
def test_a_fingerprint_may_be_typed_as_people_type(api: Api, typed: Callable[[str], str]) -> None:
    applicant, token = Applicant("hospital-a"), api.invite("hospital-a")
    api.knock(applicant, token)
    api.approve("hospital-a", typed(read_card(applicant.card()).fingerprint()))
    assert [site.name for site in list_sites(api.home)] == ["hospital-a"]


def test_nobody_learns_of_another_hospital(api: Api) -> None:
    api.admit("hospital-a")
    assert api.collect(Applicant("hospital-a")).state == "refused"
    assert api.collect(Applicant("hospital-x")).state == "refused"


def test_an_old_proof_is_refused(api: Api) -> None:
    applicant = api.admit("hospital-a")
    with pytest.raises(OperatorError) as refused:
        api.collect(applicant, at=int((datetime.now(UTC) - timedelta(minutes=10)).timestamp()))
    assert refused.value.code == "clock-differs"


def test_a_certificate_of_the_right_ca_that_was_never_issued_is_refused(api: Api) -> None:
    applicant = api.admit("hospital-a")
    forged = pki.issue_client(
        load_ec(api.home.ca_key),
        load_certificate(api.home, "ca"),
        applicant.key.public_key(),
        ("hospital-a", "coordinator"),
        datetime.now(UTC),
    )
    profile = api.site_profile(applicant)
    profile.certificate.write_bytes(pki.certificate_pem(forged))
    with connect(profile, f"localhost:{api.ports[0]}") as client, pytest.raises(OperatorError) as refused:
        client.call("GetStatus", pb.GetStatusRequest())
    assert refused.value.code == "certificate-refused"


def test_without_a_certificate_there_is_no_connection(api: Api) -> None:
    credentials = grpc.ssl_channel_credentials(api.home.ca_cert.read_bytes())
    with grpc.secure_channel(f"localhost:{api.ports[0]}", credentials) as channel:
        call = channel.unary_unary("/cameo.operator.v1.Operator/GetStatus", lambda x: x, lambda x: x)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=5)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_health_answers_on_both_ports(api: Api) -> None:
    with api.door():
        credentials = grpc.ssl_channel_credentials(api.home.ca_cert.read_bytes())
        with grpc.secure_channel(f"localhost:{api.ports[1]}", credentials) as channel:
            found = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert found.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("card", [b"", b"{}", b"\x00" * 100, b"[" * 10_000])
def test_garbage_at_the_door_is_refused_and_nothing_is_kept(api: Api, card: bytes) -> None:
    from cameo_server.api.client import translated

    with api.door() as door, translated("the join port"), pytest.raises(grpc.RpcError) as refused:
        door.Enroll(pb.EnrollRequest(secret="x", public_card=card, request_pem=card, request_proof=card), timeout=5)
    assert refused.value.code() != grpc.StatusCode.INTERNAL


def test_an_unexpected_failure_leaves_no_trace_at_the_caller(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret in a text")

    monkeypatch.setattr("cameo_server.enrolment.site_states", fail)
    with api.client() as client, pytest.raises(OperatorError) as refused:
        client.call("ListSites", pb.ListSitesRequest())
    assert refused.value.code == "operator-api"
    assert "secret" not in str(refused.value)


def test_sites_say_who_is_connected(api: Api) -> None:
    api.admit("hospital-a")
    api.online["hospital-a"] = True
    with api.client("auditor") as client:
        (site,) = client.call("ListSites", pb.ListSitesRequest()).sites
    assert (site.name, site.state, site.online, site.certificate_days) == ("hospital-a", "member", True, 89)


def test_a_watched_run_streams_its_events(api: Api) -> None:
    from cameo_server.run.store import RunStore

    store = RunStore(api.home.runs / "r1")
    store.create(json.dumps({"name": "study", "training": {"rounds": 2}}).encode())
    store.event("start")
    store.event("published")
    with api.client("researcher") as client:
        events = [json.loads(e.event)["event"] for e in client.stream("WatchRun", pb.WatchRunRequest(run="r1"))]
        assert events == ["start", "published"]
        (run,) = client.call("ListRuns", pb.ListRunsRequest()).runs
        assert (run.state, run.rounds_planned) == ("published", 2)
        assert not client.call("StopRun", pb.StopRunRequest(run="r1")).stopped


def test_the_coordinators_own_profile_is_made_once(api: Api) -> None:
    now = datetime.now(UTC)
    first = own_profile(api.home, now).certificate.read_bytes()
    assert own_profile(api.home, now).certificate.read_bytes() == first
    assert own_profile(api.home, now + timedelta(days=70)).certificate.read_bytes() != first


@pytest.mark.parametrize(
    ("content", "code"), [(None, "profile-none"), (b"\xff", "profile-broken"), (b"[]", "profile-broken")]
)
def test_a_folder_that_is_no_profile_says_so(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(OperatorError) as refused, connect(Profile(tmp_path)):
        pass
    assert refused.value.code == code
    assert str(tmp_path) in refused.value.what
