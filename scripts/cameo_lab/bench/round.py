"""How long a round of stock Flower takes on this machine, to hold our own against."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control.control_http_client import ControlHttpClient

from cameo_lab.bench.local import LocalTls, free_port, make_local_tls
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.quiet import quiet_flower

APP = Path(__file__).parent / "fedavg_app.py"
_PYPROJECT = """\
[project]
name = "stock-fedavg"
version = "1.0.0"
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "fedavg_app:server"
clientapp = "fedavg_app:client"
[tool.flwr.app.config]
nodes = 0
rounds = 0
parameters = 0
imports = ""
result = ""
"""
_STOP_S = 8.0


def stock_round_median(
    *, rounds: int = 6, nodes: int = 4, parameters: int = 60, imports: Sequence[str] = (), timeout_s: float = 600.0
) -> float:
    """Median seconds of a stock FedAvg round, see `stock_rounds`."""
    return statistics.median(
        stock_rounds(rounds=rounds, nodes=nodes, parameters=parameters, imports=imports, timeout_s=timeout_s)
    )


def stock_rounds(
    *, rounds: int = 6, nodes: int = 4, parameters: int = 60, imports: Sequence[str] = (), timeout_s: float = 600.0
) -> tuple[float, ...]:
    """Seconds of each round of stock Flower FedAvg: flower-superlink, `nodes` flower-supernodes, TLS, node keys.

    A round is one exchange (train; no evaluation): the least that stock Flower can do. parameters: float64 numbers
    of the model. imports: modules that the ClientApp imports, as a real one would ("torch", "opacus"); stock Flower
    starts a process per message. Starts everything in a throw-away folder, on loopback, and ends and removes it all.
    A run that fails or takes longer than `timeout_s` is an `OperatorError`.
    """
    with tempfile.TemporaryDirectory(prefix="cameo-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        tls, address = make_local_tls(folder / "tls"), f"127.0.0.1:{free_port()}"
        environment = _environment(folder)
        end = time.monotonic() + timeout_s
        stack.enter_context(_process(_superlink(tls, address, folder), environment, folder / "superlink.log"))
        control = stack.enter_context(_control(address, tls))
        _wait(lambda: _answers(control), end, folder)
        for number in range(nodes):
            command = _supernode(control, tls, address, folder, number)
            stack.enter_context(_process(command, environment, folder / f"supernode-{number}.log"))
        config: dict[str, str | int] = {
            "nodes": nodes,
            "rounds": rounds,
            "parameters": parameters,
            "imports": " ".join(imports),
            "result": str(folder / "result.json"),
        }
        run = _start_run(control, config)
        _wait(lambda: _finished(control, run), end, folder)
        if not (folder / "result.json").exists():
            raise _failed(folder, "the stock run ended without a result")
        seconds = json.loads((folder / "result.json").read_text())
    return tuple(float(s) for s in seconds)


def _environment(folder: Path) -> dict[str, str]:
    environment = dict(os.environ) | {"FLWR_HOME": str(folder / "flwr"), "NO_PROXY": "127.0.0.1"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    quiet_flower(environment)
    return environment


def _superlink(tls: LocalTls, address: str, folder: Path) -> list[str]:
    host, port = address.split(":")
    return [
        "flower-superlink", "--host", host, "--port", port, "--enable-supernode-auth",
        "--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key), "--ssl-ca-certfile", str(tls.ca),
        "--database", str(folder / "superlink.db"), "--disable-runtime-dependency-installation",
    ]  # fmt: skip


def _supernode(control: ControlHttpClient, tls: LocalTls, address: str, folder: Path, number: int) -> list[str]:
    """Register a fresh node key; the command of its SuperNode."""
    key = ec.generate_private_key(ec.SECP384R1())
    path = folder / f"node-{number}.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    control.RegisterNode(RegisterNodeRequest(public_key=public))
    return [
        "flower-supernode", "--superlink", address, "--root-certificates", str(tls.ca),
        "--auth-supernode-private-key", str(path), "--port", str(free_port()),
    ]  # fmt: skip


@contextlib.contextmanager
def _process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """A process and all it starts, ended together at the end of the block, or with us."""
    wrapped = [sys.executable, "-m", "cameo_server.flower.process", str(os.getpid()), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            wrapped, env=dict(environment), stdout=output, stderr=output, stdin=subprocess.DEVNULL, process_group=0
        )
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)


@contextlib.contextmanager
def _control(address: str, tls: LocalTls) -> Iterator[ControlHttpClient]:
    with ControlHttpClient.from_server_address(address, False, tls.ca.read_bytes(), []) as client:
        yield client


def _answers(control: ControlHttpClient) -> bool:
    try:
        control.ListNodes(ListNodesRequest())
    except httpx.TransportError:
        return False
    return True


def _start_run(control: ControlHttpClient, config: Mapping[str, str | int]) -> int:
    bundle, _ = build_fab_from_files({"pyproject.toml": _PYPROJECT.encode(), APP.name: APP.read_bytes()})
    request = StartRunRequest(
        fab=Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle),
        override_config=user_config_to_proto(dict(config)),
    )
    return int(control.StartRun(request).run_id)


def _finished(control: ControlHttpClient, run: int) -> bool:
    return bool(control.ListRuns(ListRunsRequest(run_id=run)).run_dict[run].status.status == "finished")


def _wait(what: Callable[[], bool], end: float, folder: Path) -> None:
    while not what():
        if time.monotonic() > end:
            raise _failed(folder, "the stock run took too long")
        time.sleep(0.2)


def _failed(folder: Path, what: str) -> OperatorError:
    """With the last words of the logs: the folder goes away."""
    tails = " | ".join(f"{log.name}: {log.read_text()[-300:]}" for log in sorted(folder.glob("*.log")))
    return OperatorError(
        "bench-failed", what=f"{what}; {tails}", do="run it again on a quiet machine", exit=ExitCode.PEER
    )
