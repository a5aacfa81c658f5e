"""The agent: a hospital's one long-lived process pulls messages, calls our installed code in process, pushes replies.

It never fetches or imports a bundle, so it runs only what the hospital installed.
"""

from __future__ import annotations

import ssl
import threading
import time
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
from cameo_protocol.logs import get_logger
from cameo_protocol.packet import Packet

log = get_logger(__name__)
UNAUTHORIZED, FORBIDDEN = 401, 403
AWAY = (502, 503, 504)
NOT_A_QUERY = "message-type-refused"
OnState = Callable[["AgentState", int], None]


class AgentState(StrEnum):
    """What `on_state` is told.

    REFUSED: not registered, locked out, a clock more than 5 minutes off, or killed a moment ago and not yet missed.
    """

    CONNECTING = "connecting"
    ONLINE = "online"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the agent asks for work, in seconds: quick after a message, slower the longer nothing comes.

    Our coordinator answers such a question only when there is work, or after 2 s; the waits are for one that does not.
    busy: first wait after a message; idle: longest wait; growth: factor from one wait to the next.
    retry, retry_cap: first and longest wait before trying again what failed.
    """

    busy: float = 0.02
    idle: float = 0.5
    growth: float = 1.3
    retry: float = 0.25
    retry_cap: float = 5.0


def _ignore(_state: AgentState, _node_id: int) -> None:
    return None


def run_agent(
    address: str,
    root_certificates: bytes,
    keys: NodeKeys,
    handle: Callable[[Packet], Packet],
    stop: threading.Event,
    on_state: OnState = _ignore,
    *,
    node_id: int | None = None,
    pace: Pace = Pace(),
) -> None:
    """Serve the coordinator at `address` ("host:port") until `stop` is set; blocks. Safe in any thread.

    root_certificates: PEM, the only ones trusted. handle: see `client_app.make_client_app`; called by one thread, one
    packet at a time. on_state: told each change of state with the node's id (0 = unknown). node_id: the id that
    Flower gave this key, from an earlier `on_state`; without it a killed agent is let in again only when Flower
    counts it as lost, 20 s later.
    A coordinator that goes away is tried again for ever, also in the middle of an answer; so is one that refuses this
    node, since an approval or a corrected clock may follow. A certificate that is not trusted is an `OperatorError`.
    """
    _Agent(address, root_certificates, keys, make_client_app(handle), stop, on_state, pace, node_id or 0).run()


class _Agent:
    """The state of one `run_agent`; also the `fleet.Retry` of its requests."""

    def __init__(
        self,
        address: str,
        root_certificates: bytes,
        keys: NodeKeys,
        app: ClientApp,
        stop: threading.Event,
        on_state: OnState,
        pace: Pace,
        known: int,
    ) -> None:
        self._address, self._app, self._stop, self._pace = address, app, stop, pace
        self._on_state, self._state, self._lock = on_state, AgentState.STOPPED, threading.Lock()
        self._known = known
        self._fleet = Fleet(address, root_certificates, keys, self)

    def run(self) -> None:
        """Announce, serve; again after a refusal, until stopped."""
        wait = self._pace.retry
        try:
            while not self._stop.is_set():
                self._tell(AgentState.CONNECTING)
                try:
                    self._announce()
                    self._tell(AgentState.ONLINE)
                    wait = self._pace.retry
                    self._serve()
                except (httpx.HTTPError, ValueError, Reject) as error:
                    self._ended(error)
                self._stop.wait(wait)
                wait = min(wait * 2, self._pace.retry_cap)
        finally:
            self._fleet.close()
            self._tell(AgentState.STOPPED)

    def invoke(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """Send one request until the coordinator answers it; gives up when stopped or when waiting cannot help."""
        wait = self._pace.retry
        while True:
            try:
                response = send()
            except httpx.TransportError as error:
                if self._stop.is_set() or _untrusted(error):
                    raise
            except httpx.HTTPStatusError as error:
                if self._stop.is_set() or error.response.status_code not in AWAY:
                    raise
            else:
                if self._state is AgentState.UNREACHABLE:
                    self._tell(AgentState.ONLINE if self._known else AgentState.CONNECTING)
                return response
            self._tell(AgentState.UNREACHABLE)
            self._stop.wait(wait)
            wait = min(wait * 2, self._pace.retry_cap)

    def _tell(self, state: AgentState) -> None:
        with self._lock:
            if state is not self._state:
                self._state = state
                self._on_state(state, self._known)

    def _announce(self) -> None:
        """Get this node online."""
        if self._known:
            try:
                self._fleet.resume(self._known)
                return
            except httpx.HTTPStatusError as error:
                if error.response.status_code != UNAUTHORIZED:
                    raise
        self._known = self._fleet.activate()  # also when the key was registered anew, under another id

    def _ended(self, error: Exception) -> None:
        """Say why a connection ended. A certificate that is not trusted raises: no retry can help."""
        if _untrusted(error):
            raise OperatorError(
                "tls-untrusted",
                what=f"the certificate of {self._address} is not signed by the CA this node joined with",
                do="compare the CA fingerprint with the coordinator by phone, then: cameo-node accept federation.json",
                exit=ExitCode.AUTH,
            ) from None
        log.info("connection-ended", type=type(error).__name__)
        refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in AWAY
        if not self._stop.is_set():
            self._tell(AgentState.REFUSED if refused else AgentState.UNREACHABLE)

    def _serve(self) -> None:
        """Answer messages until stopped, or until the connection breaks for good (raises)."""
        done = threading.Event()
        beat = threading.Thread(target=self._heartbeats, args=(done,), name="heartbeat", daemon=True)
        beat.start()
        wait = self._pace.busy
        try:
            while not self._stop.is_set():
                asked = time.monotonic()
                message = self._pull()
                if message is not None:
                    self._answer(message)
                    wait = self._pace.busy
                elif time.monotonic() - asked < self._pace.idle:  # longer: it was held, which is a wait
                    self._stop.wait(wait)
                    wait = min(wait * self._pace.growth, self._pace.idle)
        finally:
            done.set()
            beat.join()
        self._politely(self._fleet.deactivate)

    def _pull(self) -> Message | None:
        """The next message; None also when it was withdrawn meanwhile (its run ended, its sender vanished)."""
        try:
            return self._fleet.pull()
        except Reject as error:
            log.warning("message-dropped", code=error.code)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != FORBIDDEN:
                raise
        return None

    def _answer(self, message: Message) -> None:
        """Handle one message and send the reply. A reply nobody waits for any more is dropped."""
        try:
            reply = self._app(message, _context(message))
        except ValueError:  # Flower's own words for a message that is no query; our handler's errors never get here.
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, NOT_A_QUERY), reply_to=message)
        # The reply expires with the request, by the coordinator's clock: a wrong clock here changes nothing.
        reply.metadata.created_at = message.metadata.created_at
        reply.metadata.ttl = message.metadata.ttl
        self._politely(lambda: self._fleet.push(reply))
        self._politely(lambda: self._fleet.confirm(message))

    def _politely(self, request: Callable[[], None]) -> None:
        """A request whose refusal for good reason is no matter: the run has ended, or it is too late."""
        try:
            request()
        except Reject as error:
            log.warning("reply-dropped", code=error.code)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != FORBIDDEN and not self._stop.is_set():
                raise
        except httpx.TransportError:
            if not self._stop.is_set():
                raise

    def _heartbeats(self, done: threading.Event) -> None:
        """Keep the node online while `handle` may be busy. A refusal is left to the next pull, which sees it too."""
        while not done.wait(HEARTBEAT_INTERVAL_S * 0.8):
            try:
                self._fleet.heartbeat()
            except (httpx.HTTPError, ValueError, Reject) as error:
                log.info("heartbeat-failed", type=type(error).__name__)


def _untrusted(error: BaseException | None) -> bool:
    """Whether an error began with a certificate that could not be verified."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _context(message: Message) -> Context:
    """An empty context: no state of ours is kept in Flower's storage."""
    meta = message.metadata
    return Context(run_id=meta.run_id, node_id=meta.dst_node_id, node_config={}, state=RecordDict(), run_config={})
