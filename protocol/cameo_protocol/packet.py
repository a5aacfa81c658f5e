"""What travels in one Flower message: a kind, a small body, and (for an upload) the masked vector beside it."""

from __future__ import annotations

from typing import NamedTuple


class Packet(NamedTuple):
    """kind: stage name such as "upload"; body: canonical CBOR or an envelope.

    vector: little-endian uint32 (masked vector, to the coordinator) or float32 (global model, from it), or b"".
    """

    kind: str
    body: bytes
    vector: bytes = b""
