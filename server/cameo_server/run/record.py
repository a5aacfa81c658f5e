"""What a round has brought so far, on disk: enough to finish it after the coordinator died in the middle.

One append-only file a round. A row that a crash cut off does not count, nor anything after it: it is a message that
did not arrive. The masked vectors in it are deleted when the round has ended.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from cameo_protocol import canonical
from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.stages import MAX_BODY

RowKind = Literal["call", "upload", "survivors", "ack", "reveal"]
_KINDS = ("call", "upload", "survivors", "ack", "reveal")
# Length of the head, length of the vector, SHA-256 of the head. A header in the head binds the vector's own bytes.
_PREFIX = struct.Struct(">IQ32s")


class Row(NamedTuple):
    """One message of a round, or a decision of ours. party: whose it is, 0 for ours."""

    kind: RowKind
    party: int
    body: bytes
    vector: bytes


class RoundLog:
    """The rows of one round. Appending goes on after the last whole row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def begun(self) -> bool:
        """Whether the round was ever asked for: its call is on disk."""
        return self.first("call") is not None

    def rows(self, *kinds: RowKind) -> Iterator[Row]:
        """The whole rows of these kinds in the order they came, one in memory at a time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            while (row := _read(file)) is not None:
                if row.kind in kinds:
                    yield row

    def first(self, kind: RowKind) -> Row | None:
        """The first row of a kind, if there is one."""
        return next(self.rows(kind), None)

    def append(self, kind: RowKind, body: bytes, *, party: int = 0, vector: bytes = b"", sync: bool = False) -> None:
        """Add a row. sync: return only once it, and all before it, survive a power failure."""
        head = canonical.encode([kind, party, body])
        try:
            with self.path.open("ab") as file:
                file.write(_PREFIX.pack(len(head), len(vector), hashlib.sha256(head).digest()))
                file.write(head)
                file.write(vector)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise _disk(self.path, error) from None

    def repair(self) -> None:
        """Cut off what a crash left half-written, so that rows can be appended again."""
        if not self.path.exists():
            return
        try:
            with self.path.open("r+b") as file:
                end = 0
                while _read(file) is not None:
                    end = file.tell()
                file.truncate(end)
        except OSError as error:
            raise _disk(self.path, error) from None

    def delete(self) -> None:
        """Forget the round's messages: it has ended."""
        self.path.unlink(missing_ok=True)


def _read(file: BinaryIO) -> Row | None:
    """The next row; None at the end or at a row that is not whole."""
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return None
    size, vector_size, digest = _PREFIX.unpack(prefix)
    if size > MAX_BODY or vector_size > os.fstat(file.fileno()).st_size:
        return None
    head = file.read(size)
    if hashlib.sha256(head).digest() != digest:
        return None
    vector = file.read(vector_size)
    if len(vector) < vector_size:
        return None
    try:
        kind, party, body = canonical.decode(head, max_bytes=MAX_BODY)
    except (Reject, ValueError):
        return None
    return Row(kind, party, body, vector) if kind in _KINDS else None


def _disk(path: Path, error: OSError) -> OperatorError:
    return OperatorError(
        "disk-write",
        what=f"cannot write {path.name}: {error.strerror}",
        do=f"free space on {path.parent}, then: cameo run --resume {path.parent.name}",
    )
