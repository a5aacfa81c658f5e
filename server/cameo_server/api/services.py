"""The two services of operator.proto, over the coordinator's home and its running processes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc

from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.operator_api import operator_pb2 as pb
from cameo_protocol.operator_api.operator_pb2_grpc import EnrollmentServicer, OperatorServicer
from cameo_protocol.plan import parse_plan
from cameo_protocol.privacy.plan_check import check_plan
from cameo_server import enrolment, pki
from cameo_server.api.guard import peer_certificate
from cameo_server.audit import note
from cameo_server.home import CoordinatorHome, load_config
from cameo_server.launch import follow, start_run, stop_run
from cameo_server.membership import list_sites, load_certificate, plan_key, public_key, roster
from cameo_server.resuming import ENDED
from cameo_server.run.summary import RunSummary, list_runs, open_store, read_card, summarise

MAX_WATCHERS = 32
# How often a watch in which nothing happens looks whether its caller is still let in.
RECHECK_S = 2.0


@dataclass
class Coordinator:
    """What the services act on. contacts: site name -> whether it is connected, as the SuperLink sees it."""

    home: CoordinatorHome
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    random: Callable[[int], bytes] = os.urandom
    contacts: Callable[[], dict[str, bool]] = dict
    stop: threading.Event = field(default_factory=threading.Event)


class EnrollmentService(EnrollmentServicer):
    """For hospitals that hold a token and no certificate yet."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._at = coordinator

    def Enroll(self, request: pb.EnrollRequest, context: grpc.ServicerContext) -> pb.EnrollReply:
        """See operator.proto."""
        card = enrolment.enroll(
            self._at.home,
            request.secret,
            request.public_card,
            request.request_pem,
            request.request_proof,
            self._at.now(),
        )
        note(self._at.home, "site-knocked", who=card.name, about=card.name, fingerprint=card.fingerprint())
        return pb.EnrollReply(fingerprint=card.fingerprint())

    def Collect(self, request: pb.CollectRequest, context: grpc.ServicerContext) -> pb.CollectReply:
        """See operator.proto."""
        state, certificate, federation = enrolment.collect(
            self._at.home, request.name, request.unix_seconds, request.proof, self._at.now()
        )
        return pb.CollectReply(state=state, certificate_pem=certificate, federation=federation)


class OperatorService(OperatorServicer):
    """For people and hospitals with a certificate; the guard has checked the role."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._at = coordinator
        self._watchers = threading.BoundedSemaphore(MAX_WATCHERS)

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusReply:
        """See operator.proto."""
        home, now = self._at.home, self._at.now()
        return pb.GetStatusReply(
            federation=load_config(home).federation,
            fingerprint=fingerprint(public_key(plan_key(home))),
            hospitals=len(list_sites(home)),
            server_certificate_days=pki.days_left(load_certificate(home, "server"), now),
            ca_certificate_days=pki.days_left(load_certificate(home, "ca"), now),
            role=pki.holder_of(peer_certificate(context)).role,
        )

    # --- hospitals --------------------------------------------------------------------------------------------

    def InviteSite(self, request: pb.InviteSiteRequest, context: grpc.ServicerContext) -> pb.InviteSiteReply:
        """See operator.proto."""
        home = self._at.home
        token, expires = enrolment.invite(home, request.name, request.ttl_seconds, self._at.now(), self._at.random)
        self._note(context, "site-invited", request.name)
        until = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return pb.InviteSiteReply(token=token, expires=until, address=load_config(home).join_address)

    def ListSites(self, request: pb.ListSitesRequest, context: grpc.ServicerContext) -> pb.ListSitesReply:
        """See operator.proto."""
        contacts = self._at.contacts()
        states = enrolment.site_states(self._at.home, self._at.now())
        # A name may be listed twice: a revoked hospital that came back under a new number.
        return pb.ListSitesReply(sites=[_site(s, s.state == "member" and contacts.get(s.name, False)) for s in states])

    def ApproveSite(self, request: pb.ApproveSiteRequest, context: grpc.ServicerContext) -> pb.Site:
        """See operator.proto."""
        state = enrolment.approve(self._at.home, request.name, request.fingerprint, self._at.now())
        self._note(context, "site-approved", request.name, fingerprint=state.fingerprint)
        return _site(state, False)

    def RevokeSite(self, request: pb.RevokeSiteRequest, context: grpc.ServicerContext) -> pb.Site:
        """See operator.proto."""
        state = enrolment.revoke(self._at.home, request.name, self._at.now())
        self._note(context, "site-revoked", request.name, fingerprint=state.fingerprint)
        return _site(state, False)

    def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: grpc.ServicerContext
    ) -> pb.RenewCertificateReply:
        """See operator.proto."""
        holder = enrolment.check_holder(self._at.home, peer_certificate(context), self._at.now())
        pem = enrolment.renew(self._at.home, holder, request.request_pem, self._at.now())
        self._note(context, "certificate-renewed", holder.name)
        return pb.RenewCertificateReply(certificate_pem=pem)

    def GetFederation(self, request: pb.GetFederationRequest, context: grpc.ServicerContext) -> pb.GetFederationReply:
        """See operator.proto."""
        path = self._at.home.federation
        if not path.exists():
            raise OperatorError(
                "federation-none",
                what="no federation file has been issued yet",
                do="approve at least three hospitals, or: cameo coordinator federation",
            )
        return pb.GetFederationReply(federation=path.read_bytes())

    # --- runs -------------------------------------------------------------------------------------------------

    def StartRun(self, request: pb.StartRunRequest, context: grpc.ServicerContext) -> pb.StartRunReply:
        """See operator.proto."""
        plan = parse_plan(request.plan)
        check_plan(plan)
        members = {site.index: site for site in roster(self._at.home)}
        strangers = [site.name for site in plan.cohort.sites if members.get(site.index) != site]
        if strangers:
            raise OperatorError(
                "plan-roster",
                what=f"the plan names {', '.join(strangers)}, which the roster does not have with that key",
                do="issue the federation anew, cameo coordinator federation; then compose the plan again",
            )
        run = start_run(self._at.home, plan)
        self._note(context, "run-started", run, plan=plan.plan_id())
        return pb.StartRunReply(run=run)

    def ListRuns(self, request: pb.ListRunsRequest, context: grpc.ServicerContext) -> pb.ListRunsReply:
        """See operator.proto."""
        return pb.ListRunsReply(runs=[_summary(run) for run in list_runs(self._at.home)])

    def GetRun(self, request: pb.GetRunRequest, context: grpc.ServicerContext) -> pb.GetRunReply:
        """See operator.proto."""
        store = open_store(self._at.home, request.run)
        return pb.GetRunReply(summary=_summary(summarise(store)), plan=store.plan(), card=read_card(store))

    def WatchRun(self, request: pb.WatchRunRequest, context: grpc.ServicerContext) -> Iterator[pb.RunEvent]:
        """See operator.proto."""
        open_store(self._at.home, request.run)
        if not self._watchers.acquire(blocking=False):
            raise OperatorError(
                "watchers-many", what=f"{MAX_WATCHERS} runs are being watched already", do="close one, then try again"
            )
        try:
            gone, last = self._gone(context), ""
            for event in follow(self._at.home, request.run, gone=gone):
                last = event["event"]
                yield pb.RunEvent(event=json.dumps(event).encode())
            if self._at.stop.is_set() and last not in ENDED:  # a stream that just ends would read as the run's end
                raise OperatorError(
                    "coordinator-stopping",
                    what=f"the coordinator is being stopped; run {request.run} goes on when it is started again",
                    do=f"cameo coordinator start, then: cameo watch {request.run}",
                    exit=ExitCode.PEER,
                )
        finally:
            self._watchers.release()

    def _gone(self, context: grpc.ServicerContext) -> Callable[[], bool]:
        """Whether nobody reads a stream any more; a caller whose certificate is good no more is refused."""
        certificate, looked = peer_certificate(context), time.monotonic()

        def gone() -> bool:
            nonlocal looked
            if time.monotonic() - looked > RECHECK_S:
                looked = time.monotonic()
                enrolment.check_holder(self._at.home, certificate, self._at.now())
            return not context.is_active() or self._at.stop.is_set()

        return gone

    def StopRun(self, request: pb.StopRunRequest, context: grpc.ServicerContext) -> pb.StopRunReply:
        """See operator.proto."""
        store = open_store(self._at.home, request.run)
        stopped = stop_run(store)
        if stopped:
            self._note(context, "run-stop-asked", request.run)
        return pb.StopRunReply(stopped=stopped)

    def _note(self, context: grpc.ServicerContext, kind: str, about: str, **facts: str) -> None:
        """Write down what a person, by the name on the certificate, has done."""
        note(self._at.home, kind, who=pki.holder_of(peer_certificate(context)).name, about=about, **facts)


def _site(state: enrolment.SiteState, online: bool) -> pb.Site:
    return pb.Site(
        name=state.name,
        state=state.state,
        index=state.index,
        fingerprint=state.fingerprint,
        since=state.since,
        online=online,
        certificate_days=state.certificate_days,
    )


def _summary(run: RunSummary) -> pb.RunSummary:
    return pb.RunSummary(
        run=run.run,
        name=run.name,
        state=run.state,
        started=run.started,
        rounds_opened=run.rounds_opened,
        rounds_planned=run.rounds_planned,
    )


def unary_names() -> tuple[str, ...]:
    """The methods of the operator service; a test holds them against the access table."""
    return tuple(name for name in vars(OperatorService) if name[0].isupper())
