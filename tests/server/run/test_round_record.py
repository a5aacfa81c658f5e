"""The log of a round: whatever a crash leaves of it is the rows up to there, and appending goes on after them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_protocol.errors import OperatorError
from cameo_server.run.record import RoundLog, Row, RowKind

KINDS: tuple[RowKind, ...] = ("call", "upload", "survivors", "ack", "reveal")
ROWS = [
    Row("call", 0, b"call", b""),
    Row("upload", 1, b"header-1", bytes(range(64))),
    Row("upload", 2, b"header-2", b"\xff" * 64),
    Row("survivors", 0, b"", b""),
    Row("ack", 2, b"a" * 300, b""),
    Row("reveal", 1, b"r", b""),
]


def written(path: Path, rows: list[Row]) -> RoundLog:
    log = RoundLog(path)
    for row in rows:
        log.append(row.kind, row.body, party=row.party, vector=row.vector, sync=row.kind == "survivors")
    return log


def test_rows_come_back_by_kind_and_in_order(tmp_path: Path) -> None:
    log = written(tmp_path / "log", ROWS)
    assert list(log.rows(*KINDS)) == ROWS
    assert [row.party for row in log.rows("upload")] == [1, 2]
    assert log.first("survivors") == ROWS[3]
    assert log.begun
    log.delete()
    assert not log.begun
    assert log.first("call") is None
    log.delete()
    log.repair()


def test_every_place_at_which_a_write_can_stop(tmp_path: Path) -> None:
    """A prefix of the file is a prefix of the rows; after a repair the next row is read, and so are those before."""
    whole = written(tmp_path / "log", ROWS).path.read_bytes()
    ends = [len(written(tmp_path / f"to-{n}", ROWS[:n]).path.read_bytes()) if n else 0 for n in range(len(ROWS) + 1)]
    for size in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:size])
        log, left = RoundLog(path), sum(end <= size for end in ends) - 1
        assert list(log.rows(*KINDS)) == ROWS[:left]
        log.repair()
        log.append("reveal", b"next", party=9)
        assert list(log.rows(*KINDS)) == [*ROWS[:left], Row("reveal", 9, b"next", b"")]


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_never_makes_up_a_message(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bodies are as they were written, or gone with everything after; a vector is bound by the header in its body."""
    path = tmp_path_factory.mktemp("log") / "log"
    raw = bytearray(written(path, ROWS).path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    found = [row[:3] for row in RoundLog(path).rows(*KINDS)]
    known = [row[:3] for row in ROWS]
    assert all(row in known for row in found)
    assert found == [row for row in known if row in found], "in their order, none twice"


@given(raw=st.binary(max_size=400))
@settings(deadline=None)
def test_garbage_is_no_row(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(raw)
    log = RoundLog(path)
    assert list(log.rows(*KINDS)) == []
    log.repair()
    assert path.read_bytes() == b""


def test_a_disk_that_says_no_is_an_error_that_says_how_to_go_on(tmp_path: Path) -> None:
    log = RoundLog(tmp_path / "run-7" / "log")
    with pytest.raises(OperatorError) as refused:
        log.append("call", b"x")
    assert refused.value.code == "disk-write"
    assert "cameo run --resume run-7" in refused.value.do
