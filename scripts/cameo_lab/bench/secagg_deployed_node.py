"""A hospital process of the deployed benchmark: the real agent and secure sum; numbers in place of patients.

`python -m cameo_lab.bench.secagg_deployed_node FOLDER`: the folder holds node.json and the keys, the folder above it
plan.json. After each round the seconds of every answer so far are in answers.json.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cameo_client.flower.agent import run_agent
from cameo_client.flower.keys import NodeKeys
from cameo_client.node.journal import DiskJournal
from cameo_protocol.epochs import epoch_params
from cameo_protocol.packet import Packet
from cameo_protocol.plan import RunPlan, parse_plan
from cameo_protocol.secagg.client_round import Acked, Live, Uploaded, acknowledge, reveal, upload
from cameo_protocol.secagg.client_setup import Advertised, Shared, advertise, ready, share
from cameo_protocol.secagg.encoding import encode
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.stages import (
    ACK,
    ADVERTISE,
    MAX_ROUND_ITEM,
    MAX_SETUP_ITEM,
    READY,
    REVEAL,
    SHARE,
    UPLOAD,
    EpochCall,
    RoundCall,
    SurvivorsCall,
    pair,
    unpair,
)

IDENTITY, NODE_KEY, NODE, ANSWERS = "identity.key", "node.pem", "node.json", "answers.json"


class Numbers:
    """Answers the stages of set-up and rounds as a hospital does, in the order in which they are asked."""

    def __init__(self, plan: RunPlan, index: int, identity: Ed25519PrivateKey, folder: Path) -> None:
        self._plan, self._index, self._identity = plan, index, identity
        self._journal, self._report = DiskJournal(folder / "journal.db"), folder / ANSWERS
        self._seconds: dict[str, list[float]] = {}
        self._state: Any = None
        self._live: Live | None = None
        random, layout = np.random.default_rng(index), plan.layout("train")
        self._values = {block.name: random.normal(size=block.dim) for block in layout.blocks}
        self._noise = {b.name: random.integers(-1000, 1000, b.dim, dtype=np.int64) for b in layout.blocks}
        self._stages: dict[str, Callable[[Packet], Packet]] = {
            ADVERTISE: self._advertise,
            SHARE: self._share,
            READY: self._ready,
            UPLOAD: self._upload,
            ACK: self._acknowledge,
            REVEAL: self._reveal,
        }

    def handle(self, packet: Packet) -> Packet:
        """The answer, timed."""
        began = time.monotonic()
        answer = self._stages[packet.kind](packet)
        self._seconds.setdefault(packet.kind, []).append(time.monotonic() - began)
        if packet.kind == REVEAL:
            self._report.write_text(json.dumps(self._seconds))
        return answer

    def _advertise(self, packet: Packet) -> Packet:
        params = epoch_params(self._plan, EpochCall.decode(packet.body))
        self._state, advert = advertise(params, self._index, self._identity, os.urandom)
        return Packet(ADVERTISE, advert)

    def _share(self, packet: Packet) -> Packet:
        state: Advertised = self._state
        self._state, message = share(state, unpack(packet.body, max_item_bytes=MAX_SETUP_ITEM), os.urandom)
        return Packet(SHARE, pair(message.envelope, pack(message.boxes)))

    def _ready(self, packet: Packet) -> Packet:
        state: Shared = self._state
        envelopes, boxes = (unpack(part, max_item_bytes=MAX_SETUP_ITEM) for part in unpair(packet.body))
        self._live, answer = ready(state, envelopes, boxes, self._journal)
        return Packet(READY, answer)

    def _upload(self, packet: Packet) -> Packet:
        call = RoundCall.decode(packet.body)
        start = call.start(call.model_hash(packet.vector))
        vector = encode(self._plan.layout(call.kind), self._values, self._noise, os.urandom)
        self._state, header, masked = upload(self._living(), start, vector, threads=os.cpu_count() or 1, consume=True)
        return Packet(UPLOAD, pair(header, b""), masked.tobytes())

    def _acknowledge(self, packet: Packet) -> Packet:
        state: Uploaded = self._state
        self._state, answer = acknowledge(self._living(), state, SurvivorsCall.decode(packet.body).headers)
        return Packet(ACK, answer)

    def _reveal(self, packet: Packet) -> Packet:
        state: Acked = self._state
        return Packet(REVEAL, reveal(self._living(), state, unpack(packet.body, max_item_bytes=MAX_ROUND_ITEM)))

    def _living(self) -> Live:
        if self._live is None:
            raise RuntimeError("no epoch is set up")
        return self._live


def main(folder: Path) -> None:
    """Serve until killed."""
    given = json.loads((folder / NODE).read_text())
    identity = load_pem_private_key((folder / IDENTITY).read_bytes(), None)
    private: Any = load_pem_private_key((folder / NODE_KEY).read_bytes(), None)
    if not isinstance(identity, Ed25519PrivateKey):
        raise TypeError("the identity key is no Ed25519 key")
    plan = parse_plan((folder.parent / "plan.json").read_bytes())
    numbers = Numbers(plan, given["index"], identity, folder)
    keys = NodeKeys(private, private.public_key())
    run_agent(given["address"], Path(given["ca"]).read_bytes(), keys, numbers.handle, threading.Event())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
