"""Packets as Flower records, on the hospital's side. The twin for the coordinator's is `cameo_server.flower.records`.

The two sides never import each other and `cameo_protocol` never imports Flower, so these lines exist twice; a test
holds the two against each other.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet

RECORD, LARGE = "cameo", "large"
# One record is one HTTP request each way; above this size Flower's chunked arrays are twice as fast as bytes.
INLINE_BYTES = 1 << 20


def to_record(packet: Packet) -> RecordDict:
    """One packet as one ConfigRecord; a part above `INLINE_BYTES` goes beside it, as an array of raw bytes."""
    parts = {"body": packet.body, "vector": packet.vector}
    large = {name: data for name, data in parts.items() if len(data) > INLINE_BYTES}
    small = {name: b"" if name in large else data for name, data in parts.items()}
    content = RecordDict({RECORD: ConfigRecord({"kind": packet.kind, **small})})
    if large:
        content[LARGE] = ArrayRecord(
            {name: Array(dtype="uint8", shape=(len(data),), stype="raw", data=data) for name, data in large.items()}
        )
    return content


def from_record(content: RecordDict) -> Packet:
    """The packet in a record; whatever `to_record` would not have written is a `Reject`."""
    config, arrays = content.config_records, content.array_records
    if RECORD not in config or set(content) != set(arrays) | {RECORD} or set(arrays) - {LARGE}:
        raise Reject("packet-malformed", what="the message does not hold exactly one packet")
    fields = dict(config[RECORD])
    for name, array in arrays[LARGE].items() if arrays else ():
        if array.stype != "raw" or fields.get(name) != b"" or len(array.data) <= INLINE_BYTES:
            raise Reject("packet-malformed", what="an array that is no large part of a packet")
        fields[name] = array.data
    kind, body, vector = fields.pop("kind", None), fields.pop("body", None), fields.pop("vector", None)
    if fields or not (isinstance(kind, str) and isinstance(body, bytes) and isinstance(vector, bytes)):
        raise Reject("packet-malformed", what="a packet has a kind, a body and a vector, and nothing else")
    return Packet(kind, body, vector)
