"""Packets as Flower records: the two twins agree, and nothing else passes."""

import inspect

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.flower import records as ours_there
from cameo_protocol.errors import Reject
from cameo_protocol.packet import Packet
from cameo_server.flower import records as ours_here

BIG = bytes(ours_here.INLINE_BYTES + 1)
kinds, parts = st.text(st.characters(codec="utf-8"), max_size=40), st.binary(max_size=200) | st.none()


def over_the_wire(content: RecordDict) -> RecordDict:
    contents = {i: o.deflate() for i, o in get_all_nested_objects(content).items()}
    return inflate_object_from_contents(content.object_id, contents)


@settings(deadline=None)
@given(kind=kinds, body=parts, vector=parts)
def test_what_one_side_writes_the_other_reads(kind: str, body: bytes | None, vector: bytes | None) -> None:
    packet = Packet(kind, BIG if body is None else body, BIG if vector is None else vector)
    assert ours_there.from_record(over_the_wire(ours_here.to_record(packet))) == packet
    assert ours_here.from_record(over_the_wire(ours_there.to_record(packet))) == packet


def test_a_small_packet_is_one_record_and_a_large_part_goes_in_chunks() -> None:
    assert len(get_all_nested_objects(ours_here.to_record(Packet("k", b"b", b"v")))) == 2
    chunks = get_all_nested_objects(ours_here.to_record(Packet("k", b"b", bytes(12 << 20))))
    assert max(len(o.deflate()) for o in chunks.values()) < 6 << 20


def test_the_twins_are_twins() -> None:
    here, there = (inspect.getsource(m).split("from __future__")[1] for m in (ours_here, ours_there))
    assert here == there


def config(**fields: object) -> RecordDict:
    return RecordDict({"cameo": ConfigRecord(fields)})  # type: ignore[arg-type]


def arrays(stype: str = "raw", data: bytes = BIG, name: str = "vector", vector: bytes = b"") -> RecordDict:
    content = config(kind="k", body=b"", vector=vector)
    content["large"] = ArrayRecord({name: Array(dtype="uint8", shape=(len(data),), stype=stype, data=data)})
    return content


def with_metric() -> RecordDict:
    content = config(kind="k", body=b"", vector=b"")
    content["age"] = MetricRecord({"mean": 63.5})
    return content


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        config(),
        config(kind="k", body=b""),
        config(kind=b"k", body=b"", vector=b""),
        config(kind="k", body="text", vector=b""),
        config(kind="k", body=b"", vector=[b""]),
        config(kind="k", body=b"", vector=b"", more=1),
        RecordDict({"other": ConfigRecord({"kind": "k"})}),
        with_metric(),
        arrays(stype="numpy.ndarray"),
        arrays(data=b"small"),
        arrays(name="kind"),
        arrays(name="more"),
        arrays(vector=b"twice"),
        RecordDict({"cameo": ArrayRecord()}),
    ],
)
@pytest.mark.parametrize("side", [ours_here, ours_there])
def test_anything_else_is_rejected(content: RecordDict, side) -> None:
    with pytest.raises(Reject) as error:
        side.from_record(content)
    assert error.value.code == "packet-malformed"
