"""The agent: a hospital's one long-lived process pulls messages, calls our installed code in process, pushes replies.

It never fetches or imports a bundle, so it runs only what the hospital installed.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from cameo_client.flower.client_app import make_client_app
from cameo_client.flower.fleet import HEARTBEAT_INTERVAL_S, Fleet
from cameo_client.flower.keys import NodeKeys
from cameo_protocol.errors import ExitCode, OperatorError, Reject
from cameo_protocol.packet import Packet

log = logging.getLogger(__name__)
FORBIDDEN = 403
NOT_A_QUERY = "message-type-refused"


class AgentState(StrEnum):
    """What `on_state` is told."""

    CONNECTING = "connecting"
    ONLINE = "online"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the agent asks for work, in seconds: quick after a message, slower the longer nothing comes.

    busy: first wait after a message; idle: longest wait; growth: factor from one wait to the next.
    retry, retry_cap: first and longest wait before connecting again.
    """

    busy: float = 0.02
    idle: float = 0.5
    growth: float = 1.2
    retry: float = 0.25
    retry_cap: float = 10.0


def _ignore(_state: AgentState, _node_id: int) -> None:
    return None


def run_agent(
    address: str,
    root_certificates: bytes,
    keys: NodeKeys,
    handle: Callable[[Packet], Packet],
    stop: threading.Event,
    on_state: Callable[[AgentState, int], None] = _ignore,
    *,
    node_id: int | None = None,
    pace: Pace = Pace(),
) -> None:
    """Serve the coordinator at `address` ("host:port") until `stop` is set; blocks. Safe in any thread.

    root_certificates: PEM, the only ones trusted. handle: see `client_app.make_client_app`; called by one thread, one
    packet at a time. on_state: told each change of state with the node's id (0 = unknown). node_id: the id given at
    registration; without it a killed agent is let in again only when Flower counts it as lost, 20 s later.
    A coordinator that goes away is tried again for ever; so is one that refuses this node, since an approval or a
    corrected clock (Flower allows 5 minutes) may follow. A certificate that is not trusted is an `OperatorError`.
    """
    app = make_client_app(handle)
    known, wait = node_id or 0, pace.retry
    try:
        while not stop.is_set():
            on_state(AgentState.CONNECTING, known)
            fleet = Fleet(address, root_certificates, keys)
            try:
                known = _announce(fleet, known)
                on_state(AgentState.ONLINE, known)
                wait = pace.retry
                _serve(fleet, app, stop, pace)
            except (httpx.HTTPError, ValueError, Reject) as error:
                on_state(_why(error, address), known)
            finally:
                fleet.close()
            stop.wait(wait)
            wait = min(wait * 2, pace.retry_cap)
    finally:
        on_state(AgentState.STOPPED, known)


def _announce(fleet: Fleet, known: int) -> int:
    """Get this node online; returns its id."""
    if known:
        fleet.resume(known)
        return known
    return fleet.activate()


def _why(error: Exception, address: str) -> AgentState:
    """The state an error means. A certificate that is not trusted raises: no retry can help."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise OperatorError(
                "tls-untrusted",
                what=f"the certificate of {address} is not signed by the CA this node joined with",
                do="compare the CA fingerprint with the coordinator by phone, then: cameo-node join",
                exit=ExitCode.AUTH,
            ) from None
        cause = cause.__cause__ or cause.__context__
    log.info("connection ended: %s", type(error).__name__)
    refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
    return AgentState.REFUSED if refused else AgentState.UNREACHABLE


def _serve(fleet: Fleet, app: ClientApp, stop: threading.Event, pace: Pace) -> None:
    """Answer messages until stopped or the connection breaks (raises)."""
    done = threading.Event()
    beat = threading.Thread(target=_heartbeats, args=(fleet, done), name="heartbeat", daemon=True)
    beat.start()
    wait = pace.busy
    try:
        while not stop.is_set():
            message = _pull(fleet)
            if message is None:
                stop.wait(wait)
                wait = min(wait * pace.growth, pace.idle)
            else:
                _answer(fleet, app, message)
                wait = pace.busy
    finally:
        done.set()
        beat.join()
    try:
        fleet.deactivate()
    except (httpx.HTTPError, ValueError) as error:
        log.info("no goodbye: %s", type(error).__name__)


def _pull(fleet: Fleet) -> Message | None:
    """The next message; None also when it was withdrawn meanwhile (its run ended, its sender vanished)."""
    try:
        return fleet.pull()
    except Reject as error:
        log.warning("a message was dropped: %s", error.code)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != FORBIDDEN:
            raise
    return None


def _answer(fleet: Fleet, app: ClientApp, message: Message) -> None:
    """Handle one message and send the reply. A reply nobody waits for any more is dropped."""
    try:
        reply = app(message, _context(message))
    except ValueError:  # Flower's own words for a message that is no query; our handler's errors never get here.
        reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, NOT_A_QUERY), reply_to=message)
    # The reply expires with the request, by the coordinator's clock: a wrong clock here changes nothing.
    reply.metadata.created_at = message.metadata.created_at
    reply.metadata.ttl = message.metadata.ttl
    try:
        fleet.push(reply)
    except Reject as error:
        log.warning("a reply was dropped: %s", error.code)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != FORBIDDEN:
            raise


def _context(message: Message) -> Context:
    """An empty context: no state of ours is kept in Flower's storage."""
    meta = message.metadata
    return Context(run_id=meta.run_id, node_id=meta.dst_node_id, node_config={}, state=RecordDict(), run_config={})


def _heartbeats(fleet: Fleet, done: threading.Event) -> None:
    """Keep the node online while `handle` may be busy. A failure is left to the next pull, which sees it too."""
    while not done.wait(HEARTBEAT_INTERVAL_S * 0.8):
        try:
            fleet.heartbeat()
        except (httpx.HTTPError, ValueError) as error:
            log.info("heartbeat failed: %s", type(error).__name__)
