"""What `cameo-node doctor` looks at: typed checks, each with what was found and what to do."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509

from cameo_client.home import NodeHome, load_config, load_identity, load_node_key, load_pseudonym_key
from cameo_client.membership import load_federation, load_membership
from cameo_client.policy_file import load_policy
from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.federation import Federation

State = Literal["ok", "warning", "failed"]
LEAST_DISK = 1 << 30
TIMEOUT = 5.0
WARN_DAYS = 14


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding. exit: of the command when this failed; do: the next step, "" when all is well."""

    name: str
    state: State
    what: str
    do: str = ""
    exit: ExitCode = ExitCode.OK


def examine(home: NodeHome, now: datetime) -> list[Check]:
    """All checks of a node, each independent of the others' outcome; reads and connects, changes nothing."""
    looks = (
        _config,
        _keys,
        _membership,
        _disk,
        lambda h: _data(h, now),
        lambda h: _ledger(h, now),
        lambda h: _tls(h, now),
    )
    return [check for look in looks for check in look(home)]


def _guarded(name: str, look: Callable[[], str]) -> Check:
    """A check that is ok when `look` returns, and failed with the error's own words when it does not."""
    try:
        return Check(name=name, state="ok", what=look())
    except CameoError as error:
        return Check(name=name, state="failed", what=error.what, do=error.do, exit=error.exit_code)


def _config(home: NodeHome) -> Iterator[Check]:
    yield _guarded("configuration", lambda: f"{load_config(home).site}, data source {load_config(home).data.kind}")


def _keys(home: NodeHome) -> Iterator[Check]:
    def look() -> str:
        load_identity(home)
        load_node_key(home)
        load_pseudonym_key(home.pseudonym_key)
        return "three keys, readable by their owner only"

    yield _guarded("keys", look)


def _membership(home: NodeHome) -> Iterator[Check]:
    def look() -> str:
        member = load_membership(home)
        federation = member.federation
        return f"number {member.index} of {federation.name}, issue {federation.serial}"

    yield _guarded("membership", look)

    def unapproved() -> str:
        member = load_membership(home)
        missing = [site.name for site in member.federation.cohort.sites if site.name not in member.policy.policy.peers]
        if missing:
            raise OperatorError(
                "peer-not-approved",
                what=f"policy.yaml does not approve {', '.join(missing)}; runs with them are declined",
                do=f"if that is not meant: cameo-node accept {home.federation}",
                exit=ExitCode.POLICY,
            )
        return f"every hospital of the roster is approved ({len(member.policy.policy.peers)} approved)"

    yield _guarded("policy", unapproved)


def _disk(home: NodeHome) -> Iterator[Check]:
    free = shutil.disk_usage(home.root).free
    what = f"{free / (1 << 30):.1f} GiB free in {home.root}"
    if free < LEAST_DISK:
        do = "free space: without it the ledger cannot be written and every round is refused"
        yield Check(name="disk", state="failed", what=what, do=do, exit=ExitCode.USAGE)
    else:
        yield Check(name="disk", state="ok", what=what)


def _data(home: NodeHome, now: datetime) -> Iterator[Check]:
    """Reads the source as a run would, and asks the quality gate."""
    from cameo_client.node.study import load_local

    def look() -> str:
        local = load_local(home, today=now.date())
        local.data.quality.require()
        return f"{local.data.dataset}, catalogue {local.catalogue.id}, quality {local.data.quality.score:.1f} of 100"

    yield _guarded("data", look)


def _ledger(home: NodeHome, now: datetime) -> Iterator[Check]:
    """What is left of the budget; nothing to say before the first start."""
    if not (home.ledger.exists() and home.policy.exists()):
        return
    from cameo_client.ledger import Caps, Ledger
    from cameo_client.node.service import LEDGER_DELTA

    def look() -> str:
        caps = load_policy(home.policy).policy.caps
        limits = Caps(dataset=caps.epsilon_per_data_set, year=caps.epsilon_per_year)
        dataset = load_config(home).data.name
        with Ledger.open(home.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=now.timestamp) as book:
            left = book.left(limits)
        return f"epsilon left: {left.dataset:.3f} for ever, {left.year:.3f} this year"

    yield _guarded("budget", look)


def _tls(home: NodeHome, now: datetime) -> Iterator[Check]:
    if not home.federation.exists():
        return
    try:
        federation = load_federation(home)
    except OperatorError:
        return  # "membership" has said so
    yield _handshake(federation, now)


def _handshake(federation: Federation, now: datetime) -> Check:
    """Connect to the coordinator as the agent does: TLS 1.2 or later, only the pinned CA, its name checked."""
    context = ssl.create_default_context(cadata=federation.ca_pem)
    address = (federation.host, federation.fleet_port)
    try:
        with (
            socket.create_connection(address, timeout=TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=federation.host) as tls,
        ):
            certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
            version = tls.version()
    except ssl.SSLError as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        return Check(
            name="coordinator",
            state="failed",
            what=f"the TLS handshake with {federation.address} failed: {reason}",
            do="check this machine's clock; then call the coordinator: another CA than the approved one answers there",
            exit=ExitCode.AUTH,
        )
    except OSError as error:
        return Check(
            name="coordinator",
            state="warning",
            what=f"{federation.address} does not answer: {error.strerror or type(error).__name__}",
            do="check the network and that the coordinator is running; the node keeps trying by itself",
        )
    days = (certificate.not_valid_after_utc - now).days
    what = f"{federation.address} answers with {version}, certificate valid for {days} days"
    if days < WARN_DAYS:
        do = "tell the coordinator to restart: cameo coordinator start renews it"
        return Check(name="coordinator", state="warning", what=what, do=do)
    return Check(name="coordinator", state="ok", what=what)
