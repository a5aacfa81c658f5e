"""The journal: what makes "once" survive a crash. The disk edge implements it; the core only calls it."""

from __future__ import annotations

from typing import Literal, Protocol

Stage = Literal["upload", "ack", "reveal"]


class Journal(Protocol):
    """Durable memory of what a hospital has released."""

    def record(self, transcript: bytes, round_no: int, stage: Stage, digest: bytes) -> None:
        """Store durably (fsync) that a stage of a round is spent; return only once it is on disk.

        transcript, digest: 32 bytes. If (transcript, round_no, stage) was recorded before, whatever the digest,
        raise `Reject`; if it cannot be stored, raise too. Whatever is raised stops the release.
        """
