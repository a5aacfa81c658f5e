"""The SuperLink process: one Flower app behind two servers. Run by the supervisor:

`python -m cameo_server.flower.superlink --home DIR --cert FILE --key FILE --fleet-port N --control-port N`

Hospitals reach only the gate (`gate.FleetGate`) over TLS 1.3; Control and Runtime APIs are on loopback. Node
authentication is on, state is in a SQLite file, and nothing is ever installed or launched from here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from cameo_protocol.web.impatient import impatient
from cameo_server.flower.gate import FleetGate, LocalGate
from cameo_server.flower.process import end_with_parent
from cameo_server.flower.settings import LOOPBACK, SuperLinkSettings
from cameo_server.flower.turnstile import Bells, Turnstile

EXIT_PORT_TAKEN = 98
EXIT_TLS = 97
# Layers of Flower's app that do nothing without its enterprise plug-ins, and take a sixth of the time of a request.
IDLE_LAYERS = frozenset(
    {
        "ControlSensitiveResponseMiddleware",
        "ControlLicenseMiddleware",
        "RuntimeTracingMiddleware",
        "ControlEventLogMiddleware",
        "FleetEventLogMiddleware",
    }
)
_GRACE_S = 2
RELOAD_S = 60.0


def flower_app(settings: SuperLinkSettings) -> FastAPI:
    """Flower's own combined app, set up as the module says. It serves every API; the gates decide who reaches which."""
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    config = SuperLinkLifespanConfig(
        control_address=settings.control_address,
        health_server_address=None,
        host=LOOPBACK,
        port=settings.control_port,
        insecure=True,  # Flower's own listener; ours below has TLS where the public is
        certificates=None,
        superexec_auth_secret=settings.superexec_secret_file.read_bytes(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(settings.database_file),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    app = create_app(config, SuperLinkLifespan)
    app.user_middleware = [
        layer for layer in app.user_middleware if getattr(layer.cls, "__name__", "") not in IDLE_LAYERS
    ]
    return app


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: two of them share this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, **options: Any) -> _Server:
    config = uvicorn.Config(
        app,
        http=impatient(),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
        **options,
    )
    return _Server(config)


class LiveTls:
    """TLS 1.3 with the coordinator's certificate, the newest there is; a bad file at the start ends the process."""

    def __init__(self, settings: SuperLinkSettings) -> None:
        self._files = (settings.certificate, settings.key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            self._seen = self._stamp()
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            print(f"certificate or key cannot be used: {error}", file=sys.stderr)  # noqa: T201 - the process's log
            sys.exit(EXIT_TLS)

    def refresh(self) -> None:
        """New connections get a renewed certificate; files that do not fit each other, yet, change nothing."""
        with contextlib.suppress(OSError, ssl.SSLError):
            now = self._stamp()
            if now != self._seen:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)  # tried apart first
                self.context.load_cert_chain(*self._files)
                self._seen = now

    def _stamp(self) -> list[int]:
        return [path.stat().st_mtime_ns for path in self._files]


async def _keep_fresh(tls: LiveTls) -> None:
    while True:
        await asyncio.sleep(RELOAD_S)
        tls.refresh()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; a port in use ends the process with `EXIT_PORT_TAKEN`."""
    # The protocol number must be given: without it asyncio leaves Nagle's algorithm on, which costs 40 ms a request.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(256)
        return listener
    except OSError as error:
        print(f"{host}:{port}: {error}", file=sys.stderr)  # noqa: T201 - the process's log
        sys.exit(EXIT_PORT_TAKEN if error.errno == errno.EADDRINUSE else 1)


async def _serve(
    public: _Server, local: _Server, sockets: tuple[socket.socket, socket.socket], bells: Bells, tls: LiveTls
) -> None:
    """Run both servers until SIGTERM or SIGINT, or until one of them ends."""

    def stop() -> None:
        public.should_exit = local.should_exit = True
        bells.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = [loop.create_task(s.serve(sockets=[k])) for s, k in zip((local, public), sockets[::-1], strict=True)]
    fresh = loop.create_task(_keep_fresh(tls))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    fresh.cancel()
    stop()
    await asyncio.gather(*tasks)


def run_superlink(settings: SuperLinkSettings) -> None:
    """Serve until signalled. Blocks; main thread only."""
    settings.prepare()
    sockets = (_listen(settings.fleet_host, settings.fleet_port), _listen(LOOPBACK, settings.control_port))
    tls = LiveTls(settings)
    app = flower_app(settings)
    flower, bells = Turnstile(app), Bells()
    public = _server(FleetGate(flower, bells), lifespan="off", ssl_context_factory=lambda *_: tls.context)
    gate = LocalGate(flower, bells, app, settings.control_token(), lambda: public.started and local.started)
    local = _server(gate, lifespan="on")
    with asyncio.Runner(loop_factory=local.config.get_loop_factory()) as runner:
        runner.run(_serve(public, local, sockets, bells, tls))


def _arguments(argv: list[str] | None) -> tuple[SuperLinkSettings, int | None]:
    parser = argparse.ArgumentParser(prog="cameo-superlink", description="Cameo's gated Flower SuperLink")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--fleet-host", default="0.0.0.0")  # noqa: S104 - see settings.SuperLinkSettings
    parser.add_argument("--fleet-port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--database", type=Path)
    parser.add_argument("--parent", type=int)
    given = parser.parse_args(argv)
    settings = SuperLinkSettings(
        home=given.home,
        certificate=given.cert,
        key=given.key,
        fleet_host=given.fleet_host,
        fleet_port=given.fleet_port,
        control_port=given.control_port,
        database=given.database,
    )
    return settings, given.parent


def main(argv: list[str] | None = None) -> None:
    """Entry point of the module."""
    settings, parent = _arguments(argv)
    if parent is not None:
        end_with_parent(parent)
    run_superlink(settings)


if __name__ == "__main__":
    main()
