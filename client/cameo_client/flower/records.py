"""Packets as Flower records, on the hospital's side. The twin for the coordinator's is `cameo_server.flower.records`.

The two sides never import each other and `cameo_protocol` never imports Flower, so these lines exist twice; a test
holds the two against each other.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet

RECORD = "cameo"
VECTOR = "vector"
# One record is one HTTP request each way; above this size Flower's chunked arrays are twice as fast as bytes.
INLINE_BYTES = 1 << 20


def to_record(packet: Packet) -> RecordDict:
    """One packet as one ConfigRecord; a vector above `INLINE_BYTES` goes beside it, as an ArrayRecord of raw bytes."""
    inline = len(packet.vector) <= INLINE_BYTES
    fields = {"kind": packet.kind, "body": packet.body, "vector": packet.vector if inline else b""}
    content = RecordDict({RECORD: ConfigRecord(fields)})  # type: ignore[arg-type]
    if not inline:
        array = Array(dtype="uint8", shape=(len(packet.vector),), stype="raw", data=packet.vector)
        content[VECTOR] = ArrayRecord({VECTOR: array})
    return content


def from_record(content: RecordDict) -> Packet:
    """The packet in a record; whatever `to_record` would not have written is a `Reject`."""
    config, arrays = content.config_records, content.array_records
    if set(content) - {RECORD, VECTOR} or RECORD not in config or set(arrays) - {VECTOR}:
        raise Reject("packet-malformed", what="the message does not hold exactly one packet")
    fields = dict(config[RECORD])
    kind, body, vector = fields.pop("kind", None), fields.pop("body", None), fields.pop("vector", None)
    if fields or not (isinstance(kind, str) and isinstance(body, bytes) and isinstance(vector, bytes)):
        raise Reject("packet-malformed", what="a packet has a kind, a body and a vector, and nothing else")
    if arrays:
        array = arrays[VECTOR].get(VECTOR)
        if len(arrays[VECTOR]) != 1 or array is None or array.stype != "raw" or vector:
            raise Reject("packet-malformed", what="a large vector is one array of raw bytes")
        vector = array.data
    return Packet(kind, body, vector)
