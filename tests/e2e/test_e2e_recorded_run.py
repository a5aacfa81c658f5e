"""Every byte that one hospital sends in a real run, recorded before TLS: no plaintext lane, count or score is in it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from cameo_client.home import open_home as open_node_home
from cameo_client.node.contribution import Contributor
from cameo_client.node.hospital import Hospital
from cameo_client.node.service import run_node
from cameo_lab.demo import driver, setting
from cameo_lab.demo.processes import Children, call_json
from cameo_lab.demo.progress import Progress
from cameo_lab.demo.setting import DemoOptions, prepare
from cameo_protocol.packet import Packet
from cameo_server.home import open_home
from cameo_server.launch import follow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]
ROUNDS = 3


class Recorder:
    """What left: (path, body) of every HTTP request, and the vectors of the node before and after they were masked."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.vectors: list[bytes] = []
        self.masked: list[bytes] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send, vector, handle = httpx.Client.send, Contributor.noisy_vector, Hospital.handle

        def recording_send(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
            self.sent.append((request.url.path, request.read()))
            return send(client, request, **options)

        def recording_vector(self_: Contributor, *arguments: Any) -> Any:
            made = vector(self_, *arguments)
            self.vectors.append(np.ascontiguousarray(made, dtype="<u4").tobytes())
            return made

        def recording_handle(self_: Hospital, packet: Packet) -> Packet:
            answer = handle(self_, packet)
            if answer.vector:
                self.masked.append(answer.vector)
            return answer

        monkeypatch.setattr(httpx.Client, "send", recording_send)
        monkeypatch.setattr(Hospital, "handle", recording_handle)
        monkeypatch.setattr(Contributor, "noisy_vector", recording_vector)


@contextlib.contextmanager
def in_this_process(home: Path) -> Iterator[None]:
    """A node in a thread of this process, so that its requests can be recorded."""
    stop = threading.Event()
    thread = threading.Thread(target=run_node, args=(open_node_home(home), stop, lambda _line: None))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def foreign_connections() -> list[str]:
    """Connections of this process and its descendants to anything but loopback."""
    me = psutil.Process()
    found = []
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="inet"):
                if connection.raddr and connection.raddr.ip not in ("127.0.0.1", "::1"):
                    found.append(f"{process.name()} -> {connection.raddr}")
    return found


def test_recorded_bytes_of_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "SYNTHETIC_PATIENTS", 300)
    options = DemoOptions(out=tmp_path, rounds=ROUNDS)
    layout = driver.Layout(tmp_path)
    recorder = Recorder()
    foreign: list[str] = []
    with Progress(lambda _line: None) as progress, Children(tmp_path / "logs") as children:
        ready = prepare(options, tmp_path)
        driver._set_up(layout, ready, progress)
        first, *others = ready.sites
        coordinator = ["cameo", "coordinator", "start", "--listen", "127.0.0.1", "--home", str(layout.coordinator)]
        children.start("coordinator", coordinator)
        for site in others:
            children.start(site.name, ["cameo-node", "start", "--home", str(layout.hospital(site.name))])
        until = time.monotonic() + 90
        while not (layout.coordinator / "flower" / "state.json").exists():
            assert time.monotonic() < until, children.tail("coordinator")
            time.sleep(0.1)
        recorder.install(monkeypatch)
        with in_this_process(layout.hospital(first.name)):
            run = call_json(["cameo", "run", "--no-follow", "--home", str(layout.coordinator), *ready.overrides])["run"]
            seen = []
            for event in follow(open_home(layout.coordinator), run):
                seen.append(event)
                foreign += foreign_connections()
    assert seen[-1]["event"] == "published", seen[-1]
    assert foreign == []
    assert len(recorder.vectors) == ROUNDS + 1, "one vector a round, the evaluation's counts among them"
    sent = b"\n".join(body for _, body in recorder.sent)
    assert len(recorder.masked) == ROUNDS + 1
    assert all(vector in sent for vector in recorder.masked), "the recording sees what leaves, uncompressed"
    leaked = [
        at
        for vector in recorder.vectors
        for at in range(0, len(vector) - 8, 4)
        if any(vector[at : at + 8]) and vector[at : at + 8] in sent
    ]
    assert leaked == [], "two neighbouring plaintext lanes were sent"
    assert not [path for path, _ in recorder.sent if path.endswith("get-fab")], "a bundle was asked for"
    assert {path.rsplit("/", 2)[0] for path, _ in recorder.sent if "fleet" in path} == {"/v1"}
