"""What somebody who means harm may try on the operator interface's two ports, over real TLS."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cameo_protocol.errors import OperatorError
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_protocol.operator_api.refusal import request_text
from cameo_server import enrolment
from cameo_server.api.client import connect, make_profile, own_profile, translated
from cameo_server.api.server import THREADS, serve_api
from cameo_server.api.services import Coordinator
from cameo_server.membership import list_sites, open_roster
from cameo_server.run.store import RunStore

from .conftest import Api, Applicant

RUN = "20260101-000000-abcd"


@contextlib.contextmanager
def _join_port(api: Api) -> Iterator[grpc.Channel]:
    """A connection of its own to the join port, as anybody may open one."""
    credentials = grpc.ssl_channel_credentials(api.home.ca_cert.read_bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{api.ports[1]}", credentials, options=options) as channel:
        yield channel


def test_nobody_can_take_all_places_of_the_join_port_by_watching_its_health(api: Api) -> None:
    with contextlib.ExitStack() as stack:
        watches = []
        for _ in range(2):  # a connection has no more streams than there are threads
            channel = stack.enter_context(_join_port(api))
            stub = health_pb2_grpc.HealthStub(channel)
            watches += [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(THREADS // 2)]
        with pytest.raises(grpc.RpcError) as refused:
            next(watches[0])
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert api.collect(Applicant("nobody")).state == "refused", "the port still answers"


def test_no_service_but_enrolment_and_health_on_the_join_port(api: Api) -> None:
    with _join_port(api) as channel:
        for method in (
            "/cameo.operator.v1.Operator/GetStatus",
            "/cameo.operator.v1.Operator/ApproveSite",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.channelz.v1.Channelz/GetServers",
        ):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(method)(b"", timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def run(api: Api, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """A run that goes on for as long as somebody watches."""
    monkeypatch.setattr("cameo_server.launch.running", lambda home: {"pid": 1})
    store = RunStore(api.home.runs / RUN)
    store.create(b"{}")
    store.event("started")
    return store


def test_who_is_revoked_sees_no_further_event_of_a_run_that_he_watches(api: Api, run: RunStore) -> None:
    now = datetime.now(UTC)
    profile = make_profile(api.home, api.folder / "mallory", "mallory", "auditor", now)
    with connect(profile, f"localhost:{api.ports[0]}") as client:
        events = client.stream("WatchRun", pb.WatchRunRequest(run=RUN))
        assert b"started" in next(events).event
        enrolment.revoke_person(api.home, "mallory", now)
        run.event("round")
        with pytest.raises(OperatorError) as refused:
            next(events)
        assert refused.value.code == "certificate-refused"


def test_a_watch_ends_soon_after_the_revocation_though_nothing_happens_in_the_run(api: Api, run: RunStore) -> None:
    profile = make_profile(api.home, api.folder / "mallory", "mallory", "auditor", datetime.now(UTC))
    with connect(profile, f"localhost:{api.ports[0]}") as client:
        events = client.stream("WatchRun", pb.WatchRunRequest(run=RUN))
        next(events)
        enrolment.revoke_person(api.home, "mallory", datetime.now(UTC))
        ended: list[str] = []

        def read() -> None:
            with pytest.raises(OperatorError) as refused:
                next(events)
            ended.append(refused.value.code)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(10)
        assert ended == ["certificate-refused"]


def test_a_certificate_that_ends_while_its_connection_stays_open_is_refused(stopped_api: Api) -> None:
    clock = [datetime.now(UTC)]
    with (
        serve_api(Coordinator(stopped_api.home, now=lambda: clock[0]), "127.0.0.1"),
        stopped_api.client("auditor") as client,
    ):
        assert client.call("GetStatus", pb.GetStatusRequest()).role == "auditor"
        for away in (timedelta(days=91), timedelta(days=-1)):
            clock[0] = datetime.now(UTC) + away
            for method, request in (
                ("GetStatus", pb.GetStatusRequest()),
                ("RenewCertificate", pb.RenewCertificateRequest(request_pem=Applicant("x").request())),
            ):
                with pytest.raises(OperatorError) as refused:
                    client.call(method, request)
                assert refused.value.code == "certificate-ended"
        clock[0] = datetime.now(UTC)
        assert client.call("GetStatus", pb.GetStatusRequest()).role == "auditor"


def test_a_renewal_that_meets_a_revocation_gives_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = api.site_profile(api.admit("hospital-a"))
    certificate = x509.load_pem_x509_certificate(profile.certificate.read_bytes())
    holder = enrolment.check_holder(api.home, certificate, datetime.now(UTC))
    enrolment.revoke(api.home, "hospital-a", datetime.now(UTC))  # after the door, before the certificate
    with pytest.raises(OperatorError) as refused:
        enrolment.renew(api.home, holder, Applicant("hospital-a").request(), datetime.now(UTC))
    assert refused.value.code == "certificate-refused"
    with open_roster(api.home) as db:
        good = db.execute("SELECT COUNT(*) FROM certificates WHERE name = 'hospital-a' AND revoked IS NULL").fetchone()
    assert good[0] == 0


def test_a_revocation_that_meets_an_approval_takes_the_hospital_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    applicant = Applicant("hospital-a")
    fingerprint = api.knock(applicant, api.invite("hospital-a")).fingerprint
    look = enrolment.site_states

    def approved_meanwhile(home: Any, now: datetime) -> Any:
        states = look(home, now)
        monkeypatch.setattr(enrolment, "site_states", look)
        enrolment.approve(home, "hospital-a", fingerprint, now)
        return states

    monkeypatch.setattr(enrolment, "site_states", approved_meanwhile)
    enrolment.revoke(api.home, "hospital-a", datetime.now(UTC))
    assert list_sites(api.home) == []
    assert api.collect(applicant).state == "refused"


def test_two_hospitals_knock_at_once_with_one_token_and_one_gets_in(api: Api) -> None:
    token = api.invite("hospital-a")
    applicants = [Applicant("hospital-a") for _ in range(8)]

    def knock(applicant: Applicant) -> str:
        try:
            return str(api.knock(applicant, token).fingerprint)
        except OperatorError as error:
            return error.code

    with ThreadPoolExecutor(len(applicants)) as pool:
        answers = list(pool.map(knock, applicants))
    assert answers.count("token-refused") == len(applicants) - 1
    assert [state for state in (api.collect(a).state for a in applicants) if state != "refused"] == ["pending"]


def test_who_waits_under_the_name_of_a_member_is_not_taken_for_it(api: Api) -> None:
    waiting = Applicant("hospital-a")
    api.knock(waiting, api.invite("hospital-a"))
    from cameo_server.membership import add_site

    add_site(api.home, Applicant("hospital-a").card(), datetime.now(UTC))  # by hand, meanwhile
    reply = api.collect(waiting)
    assert (reply.state, reply.certificate_pem, reply.federation) == ("refused", b"", b"")


def _changed(pem: bytes, before: str, after: str) -> bytes:
    """A certificate request with some bytes (hex) of its DER replaced."""
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    assert der.count(bytes.fromhex(before)) == 1
    body = base64.encodebytes(der.replace(bytes.fromhex(before), bytes.fromhex(after)))
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def _request(key: Any, algorithm: Any) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "odd",
    ["algorithm", "curve", "signature", "rsa", "p-384", "ed25519", "empty", "cut", "long"],
)
def test_a_request_for_an_odd_key_is_refused_as_such(api: Api, odd: str, caplog: pytest.LogCaptureFixture) -> None:
    applicant, token = Applicant("hospital-a"), api.invite("hospital-a")
    good, sha = applicant.request(), hashes.SHA256()
    pem = {
        "algorithm": lambda: _changed(good, "06072a8648ce3d0201", "06072a8648ce3d0209"),
        "curve": lambda: _changed(good, "06082a8648ce3d030107", "06082a8648ce3d030155"),
        "signature": lambda: _changed(good, "06082a8648ce3d040302", "06082a8648ce3d040355"),
        "rsa": lambda: _request(rsa.generate_private_key(65537, 2048), sha),
        "p-384": lambda: _request(ec.generate_private_key(ec.SECP384R1()), sha),
        "ed25519": lambda: _request(ed25519.Ed25519PrivateKey.generate(), None),
        "empty": lambda: b"",
        "cut": lambda: good[: len(good) // 2],
        "long": lambda: good[:-40] + b"A" * 50_000 + good[-40:],
    }[odd]()
    request = pb.EnrollRequest(
        secret=token.partition(".")[0],
        public_card=applicant.card(),
        request_pem=pem,
        request_proof=applicant.identity.sign(request_text(pem)),
    )
    with api.door() as door, pytest.raises(OperatorError) as refused, translated("the join port"):
        door.Enroll(request, timeout=10)
    assert refused.value.code == "request-invalid"
    assert "call-failed" not in caplog.text


def test_nothing_but_the_key_is_taken_from_a_request(api: Api) -> None:
    applicant, token = Applicant("hospital-a"), api.invite("hospital-a")
    hostile = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")])
    roles = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier("urn:cameo:role:coordinator"), x509.DNSName("localhost")]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(hostile).add_extension(roles, critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    pem = builder.sign(applicant.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    proof = applicant.identity.sign(request_text(pem))
    with api.door() as door:
        secret = token.partition(".")[0]
        request = pb.EnrollRequest(secret=secret, public_card=applicant.card(), request_pem=pem, request_proof=proof)
        api.approve("hospital-a", door.Enroll(request, timeout=10).fingerprint)
    certificate = x509.load_pem_x509_certificate(api.collect(applicant).certificate_pem)
    assert certificate.subject.rfc4514_string() == "CN=hospital-a"
    extensions = {type(extension.value): extension.value for extension in certificate.extensions}
    assert not extensions[x509.BasicConstraints].ca  # type: ignore[attr-defined]
    alternatives = extensions[x509.SubjectAlternativeName]
    assert [name.value for name in alternatives] == ["urn:cameo:role:site"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("run_id", ["..", ".", "", "a/b", "a\\b", "a\0b", "x" * 300, "x" * 5000, "ä", "a\n", "\u202e"])
def test_a_run_id_that_is_none_is_refused_as_unknown(api: Api, run: RunStore, run_id: str) -> None:
    with api.client() as client:
        for method, request in (("GetRun", pb.GetRunRequest), ("StopRun", pb.StopRunRequest)):
            with pytest.raises(OperatorError) as refused:
                client.call(method, request(run=run_id))
            assert refused.value.code == "run-unknown"


def test_who_has_no_certificate_is_told_nothing_of_the_coordinators_disk(api: Api) -> None:
    api.profile("coordinator")
    api.home.roster.unlink()
    api.home.roster.mkdir()
    applicant = Applicant("hospital-a")
    for call in (lambda: api.collect(applicant), lambda: api.knock(applicant, "0" * 48 + ".x")):
        with pytest.raises(OperatorError) as refused:
            call()
        assert refused.value.code == "coordinator-troubled"
        assert str(api.home.root) not in refused.value.what + refused.value.do
    with api.client() as client, pytest.raises(OperatorError) as told:
        client.call("ListSites", pb.ListSitesRequest())
    assert told.value.code == "roster-unreadable", "the coordinator's own people are told"


@pytest.mark.parametrize("away", [-301, 301])
def test_a_proof_of_another_time_is_refused(stopped_api: Api, away: int) -> None:
    coordinator = Coordinator(stopped_api.home)
    with serve_api(coordinator, "127.0.0.1"):
        applicant = stopped_api.admit("hospital-a")
        at = int(datetime.now(UTC).timestamp())
        assert stopped_api.collect(applicant, at).state == "approved"
        with pytest.raises(OperatorError) as refused:
            stopped_api.collect(applicant, at + away)
        assert refused.value.code == "clock-differs"
        assert stopped_api.collect(replace(applicant, identity=Applicant("x").identity), at).state == "refused"


def test_a_connection_that_does_not_come_in_or_asks_nothing_is_closed(
    stopped_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cameo_server.api.server.HANDSHAKE_S", 1)
    monkeypatch.setattr("cameo_server.api.server.IDLE_S", 1)
    context = ssl.create_default_context(cafile=str(stopped_api.home.ca_cert))
    context.set_alpn_protocols(["h2"])
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with serve_api(Coordinator(stopped_api.home), "127.0.0.1"), contextlib.ExitStack() as stack:
        ways = []
        for port in stopped_api.ports:
            ways.append(stack.enter_context(socket.create_connection(("127.0.0.1", port))))
        for greeting in (b"", hello):
            plain = socket.create_connection(("127.0.0.1", stopped_api.ports[1]))
            ways.append(stack.enter_context(context.wrap_socket(plain, server_hostname="localhost")))
            ways[-1].sendall(greeting)
        for way in ways:
            way.settimeout(10)
            while way.recv(1 << 16):
                pass
        with stopped_api.client("auditor") as client:  # and who has come in is not held to one connection
            for _ in range(2):
                assert client.call("GetStatus", pb.GetStatusRequest()).role == "auditor"
                time.sleep(1.5)


def test_the_coordinators_own_commands_outlive_the_revocation_of_their_profile(api: Api) -> None:
    now = datetime.now(UTC)
    stolen = own_profile(api.home, now).certificate.read_bytes()
    enrolment.revoke_person(api.home, "coordinator", now)
    with pytest.raises(OperatorError, match="certificate-refused"):
        enrolment.check_holder(api.home, x509.load_pem_x509_certificate(stolen), now)
    with connect(own_profile(api.home, now), f"localhost:{api.ports[0]}") as client:
        assert client.call("GetStatus", pb.GetStatusRequest()).role == "coordinator"


@pytest.mark.parametrize("name", ["coordinator", "node"])
def test_nobody_gets_a_name_that_the_audit_logs_give_to_programs(api: Api, name: str) -> None:
    with pytest.raises(OperatorError) as refused:
        api.invite(name)
    assert refused.value.code == "name-reserved"
    with pytest.raises(OperatorError, match="name-reserved"):
        enrolment.check_name(name)  # as `cameo person add` does


@pytest.mark.parametrize(
    "name",
    ["Hospital-A", "hospital-\u0430", "hospital-a\n", "hospital-a ", "hospital\u200b", "\uff48", "../x", "", "-x"],
)
def test_a_name_that_only_looks_like_another_is_none(api: Api, name: str) -> None:
    with pytest.raises(OperatorError) as refused:
        api.invite(name)
    assert refused.value.code == "option-invalid"
