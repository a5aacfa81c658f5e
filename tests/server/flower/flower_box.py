"""A whole federation on this machine: the real SuperLink and superexec processes, agents as threads of this one."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cameo_client.flower.agent import AgentState, run_agent
from cameo_client.flower.keys import NodeKeys, generate_node_key
from cameo_lab.bench.local import LocalTls, free_port, make_local_tls
from cameo_protocol.errors import CameoError, OperatorError
from cameo_protocol.packet import Packet
from cameo_server.flower.bundle import build_bundle
from cameo_server.flower.control import Control, RunSeen
from cameo_server.flower.settings import SuperLinkSettings
from cameo_server.flower.supervisor import SuperLinkStack

HERE = Path(__file__).parent


def echo(packet: Packet) -> Packet:
    return Packet(packet.kind + "ed", packet.body, packet.vector)


def eventually(what: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Agent:
    keys: NodeKeys
    node_id: int
    stop: threading.Event
    states: list[tuple[AgentState, int]] = field(default_factory=list)
    failure: list[CameoError] = field(default_factory=list)
    thread: threading.Thread | None = None

    def state(self) -> AgentState | None:
        return self.states[-1][0] if self.states else None

    def end(self) -> None:
        """A request that is held by the gate ends after at most `gate.FLEET_HOLD_S`."""
        self.stop.set()
        if self.thread is not None:
            self.thread.join(10)
            assert not self.thread.is_alive()


@dataclass
class Box:
    home: Path
    tls: LocalTls
    settings: SuperLinkSettings
    stack: SuperLinkStack
    control: Control
    agents: list[Agent] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.settings.fleet_port}"

    @property
    def connections(self) -> list[tuple[int, str]]:
        """Process id and host of what the child processes connected to or looked up."""
        lines = (self.home / "connections").read_text().splitlines()
        return [(int(pid), host) for pid, host in (line.split(" ") for line in lines)]

    def add_agent(
        self,
        handle: Callable[[Packet], Packet] = echo,
        *,
        keys: NodeKeys | None = None,
        register: bool = True,
        ca: bytes | None = None,
        node_id: int | None = None,
    ) -> Agent:
        keys = keys or generate_node_key()
        registered = self.control.register_node(keys.public_bytes(), f"h{len(self.agents)}") if register else 0
        agent = Agent(keys, registered, threading.Event())

        def serve() -> None:
            try:
                run_agent(
                    self.address,
                    ca if ca is not None else self.tls.ca.read_bytes(),
                    keys,
                    handle,
                    agent.stop,
                    lambda state, node: agent.states.append((state, node)),
                    node_id=node_id,
                )
            except CameoError as error:
                agent.failure.append(error)

        agent.thread = threading.Thread(target=serve, daemon=True)
        agent.thread.start()
        self.agents.append(agent)
        return agent

    def start_run(self, **plan: Any) -> int:
        for name in ("result.json", "progress"):
            (self.home / name).unlink(missing_ok=True)
        given = {"nodes": 1, "rounds": 1, "deadline_s": 10} | plan
        config = {"plan": json.dumps(given), "plan-sha256": "0", "run": "test", "home": str(self.home)}
        return self.control.start_run(build_bundle(self.home, server_app="echo_app:app"), config)

    def finish(self, run: int, timeout_s: float = 60.0) -> dict[str, Any]:
        seen: list[RunSeen] = []

        def over() -> bool:
            with contextlib.suppress(OperatorError):  # while the SuperLink restarts
                seen[:] = [self.control.run_status(run)]
            return bool(seen) and seen[0].status == "finished"

        eventually(over, timeout_s)
        assert seen[0].outcome == "completed", (seen[0], self.logs())
        result: dict[str, Any] = json.loads((self.home / "result.json").read_text())
        return result

    def run(self, **plan: Any) -> dict[str, Any]:
        return self.finish(self.start_run(**plan))

    def progress(self) -> int:
        file = self.home / "progress"
        text = file.read_text() if file.exists() else ""
        return int(text or 0)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.settings.logs.glob("*.log"))

    def close(self) -> None:
        for agent in self.agents:
            agent.stop.set()
        for agent in self.agents:
            agent.end()
        self.control.close()
        self.stack.stop()


def make_settings(home: Path, tls: LocalTls | None = None) -> SuperLinkSettings:
    tls = tls or make_local_tls(home / "tls")
    return SuperLinkSettings(
        home=home,
        certificate=tls.certificate,
        key=tls.key,
        fleet_host="127.0.0.1",
        fleet_port=free_port(),
        control_port=free_port(),
    )


def open_box(home: Path) -> Box:
    home.mkdir(parents=True, exist_ok=True)
    tls = make_local_tls(home / "tls")
    settings = make_settings(home, tls)
    path = os.pathsep.join([str(HERE / "audited"), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "CAMEO_TEST_CONNECTIONS": str(home / "connections")}
    stack = SuperLinkStack(settings, environment=environment)
    stack.start()
    return Box(home, tls, settings, stack, stack.control())
