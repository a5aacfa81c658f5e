"""Every byte that one hospital sends in a real run, recorded before TLS: no lane, count, score, key or canary in plain.

The control plants the fault that the recording is there to find, in the node of this process (CAMEO_FULL=1).
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import polars as pl
import psutil
import pytest

from cameo_client.data.pseudonyms import pseudonym
from cameo_client.home import load_pseudonym_key
from cameo_client.home import open_home as open_node_home
from cameo_client.node import hospital as node_hospital
from cameo_client.node.contribution import Contributor
from cameo_client.node.hospital import Hospital
from cameo_client.node.service import run_node
from cameo_lab.demo import driver, setting
from cameo_lab.demo.processes import Children, call_json
from cameo_lab.demo.progress import Progress
from cameo_lab.demo.setting import DemoOptions, DemoSite, prepare
from cameo_protocol import envelope
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.client_round import Live
from cameo_protocol.secagg.keys import RoundKeys
from cameo_protocol.secagg.params import RoundStart
from cameo_protocol.stages import unpair
from cameo_server.home import open_home
from cameo_server.launch import follow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
ROUNDS = 3
CANARY = "CANARY-71d3-"  # before every person's id in the source
ROUND_FIELDS = {
    "upload": {"kind", "from", "T", "r", "S", "ctx", "y"},
    "ack": {"kind", "from", "T", "r", "U"},
    "reveal": {"kind", "from", "T", "r", "U", "shares"},
}
Masked = tuple[Any, bytes, Any]


def mask(live: Live, start: RoundStart, vector: Any, **options: Any) -> Masked:
    """What the product does."""
    return UPLOAD(live, start, vector, **options)


def forget_the_mask(live: Live, start: RoundStart, vector: Any, **options: Any) -> Masked:
    """The planted fault: a sound header, and beside it the vector as it was before masking."""
    plain = vector.copy()
    state, header, _ = UPLOAD(live, start, vector, **options)
    return state, header, plain


UPLOAD = node_hospital.upload


class Recorder:
    """What left: (path, body) of every HTTP request. Beside it, what the node held: vectors before and after masking,

    keys that must never leave (own masks, edge keys, identity), and its answers.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.vectors: list[bytes] = []
        self.answers: list[Packet] = []
        self.keys: set[bytes] = set()
        self.canaries: list[bytes] = []

    @property
    def masked(self) -> list[bytes]:
        return [answer.vector for answer in self.answers if answer.vector]

    def install(self, monkeypatch: pytest.MonkeyPatch, masking: Callable[..., Masked]) -> None:
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
            self.answers.append(answer)
            return answer

        def recording_upload(live: Live, start: RoundStart, vector: Any, **options: Any) -> Masked:
            held: RoundKeys = live._keys
            rows = [held.masks[start.round_no], *held.edges[start.round_no]]
            self.keys |= {row.tobytes() for row in rows if row.any()} | {live._identity.private_bytes_raw()}
            return masking(live, start, vector, **options)

        monkeypatch.setattr(httpx.Client, "send", recording_send)
        monkeypatch.setattr(Hospital, "handle", recording_handle)
        monkeypatch.setattr(node_hospital, "upload", recording_upload)
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


def plant(site: DemoSite) -> list[bytes]:
    """Put canaries into a hospital's data, ids and notes that cannot occur by chance.

    Returns what to look for: the canary and every pseudonym, as text, UTF-16, hex and base64, pseudonyms as bytes too.
    """
    key = load_pseudonym_key(site.pseudonym_key)
    with duckdb.connect(site.data) as db:
        db.execute(f"UPDATE person SET person_source_value = '{CANARY}' || person_source_value")
        ids = [row[0] for row in db.execute("SELECT person_source_value FROM person").fetchall()]
        db.execute(f"CREATE TABLE note AS SELECT person_id, '{CANARY}note' AS note_text FROM person")
    consents = pl.read_csv(site.consents, infer_schema_length=0)
    assert set(consents["person_id"]) <= {name.removeprefix(CANARY) for name in ids}
    consents.with_columns((CANARY + pl.col("person_id")).alias("person_id")).write_csv(site.consents)
    names = [pseudonym(key, name) for name in ids]
    texts = [CANARY, *names]
    found = [form for text in texts for form in (text.encode(), text.encode("utf-16-le"), text.encode().hex().encode())]
    found += [base64.b64encode(text.encode()[at:])[: (len(text) - at) // 3 * 4] for text in texts for at in range(3)]
    return found + [bytes.fromhex(name) for name in names]


def canaries_in(sent: bytes, canaries: list[bytes]) -> list[bytes]:
    """Which of them were sent."""
    return [canary for canary in canaries if canary in sent]


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


def record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masking: Callable[..., Masked]
) -> tuple[Recorder, list[dict[str, Any]], list[str]]:
    """A run of four hospitals, one of them in this process: what it sent, the run's events, foreign connections."""
    monkeypatch.setattr(setting, "SYNTHETIC_PATIENTS", 300)
    options = DemoOptions(out=tmp_path, rounds=ROUNDS)
    layout = driver.Layout(tmp_path)
    recorder = Recorder()
    foreign: list[str] = []
    with Progress(lambda _line: None) as progress, Children(tmp_path / "logs") as children:
        ready = prepare(options, tmp_path)
        first, *others = ready.sites
        recorder.canaries = plant(first)
        driver._set_up(layout, ready, children, progress)
        coordinator = ["cameo", "coordinator", "start", "--listen", "127.0.0.1", "--home", str(layout.coordinator)]
        children.start("coordinator", coordinator)
        for site in others:
            children.start(site.name, ["cameo-node", "start", "--home", str(layout.hospital(site.name))])
        until = time.monotonic() + 400
        while not (layout.coordinator / "flower" / "state.json").exists():
            assert time.monotonic() < until, children.tail("coordinator")
            time.sleep(0.1)
        driver._audited(children, progress)
        recorder.install(monkeypatch, masking)
        with in_this_process(layout.hospital(first.name)):
            run = call_json(["cameo", "run", "--no-follow", "--home", str(layout.coordinator), *ready.overrides])["run"]
            seen = []
            for event in follow(open_home(layout.coordinator), run):
                seen.append(event)
                foreign += foreign_connections()
    return recorder, seen, foreign


def plaintext_lanes(recorder: Recorder) -> int:
    """How often two neighbouring lanes of a vector before masking are among the bytes that were sent."""
    sent = b"\n".join(body for _, body in recorder.sent)
    return sum(
        any(vector[at : at + 8]) and vector[at : at + 8] in sent
        for vector in recorder.vectors
        for at in range(0, len(vector) - 8, 4)
    )


def test_recorded_bytes_of_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, seen, foreign = record(tmp_path, monkeypatch, mask)
    assert seen[-1]["event"] == "published", seen
    assert foreign == []
    assert len(recorder.vectors) == ROUNDS + 2, "one vector a round, the two of counted scores among them"
    sent = b"\n".join(body for _, body in recorder.sent)
    assert len(recorder.masked) == ROUNDS + 2
    assert all(vector in sent for vector in recorder.masked), "the recording sees what leaves, uncompressed"
    assert plaintext_lanes(recorder) == 0, "two neighbouring plaintext lanes were sent"
    assert len(recorder.keys) == 1 + 4 * (ROUNDS + 2), "identity; an own mask and three edge keys a round"
    assert not [key for key in recorder.keys if key in sent], "a key was sent"
    assert len(recorder.canaries) > 1000
    assert not canaries_in(sent, recorder.canaries), "something of a patient was sent"
    assert canaries_in(sent + recorder.canaries[0], recorder.canaries), "it would have been found"
    for answer in recorder.answers:
        if answer.kind in ROUND_FIELDS:
            signed = unpair(answer.body)[0] if answer.kind == "upload" else answer.body
            body = envelope.unverified_body(signed, max_bytes=1 << 14)
            assert set(body) == ROUND_FIELDS[answer.kind], "no count or metric has a field to travel in"
            assert bool(answer.vector) == (answer.kind == "upload")
    assert not [path for path, _ in recorder.sent if path.endswith("get-fab")], "a bundle was asked for"
    assert {path.rsplit("/", 2)[0] for path, _ in recorder.sent if "fleet" in path} == {"/v1"}


@pytest.mark.skipif(not os.environ.get("CAMEO_FULL"), reason="a second whole run; CAMEO_FULL=1 runs it")
def test_control_a_vector_that_was_not_masked_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, seen, _ = record(tmp_path, monkeypatch, forget_the_mask)
    assert plaintext_lanes(recorder) > 100
    lost = [event for event in seen if "vector-differs" in str(event)]
    assert lost, "and the coordinator refuses it, as its header signs another vector"
