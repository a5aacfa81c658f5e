"""Key derivation and commitments: HKDF-SHA256 and SHA-256, every use under its own label.

Source: RFC 5869 (through `cryptography`). Secrets are read from buffers, so that the caller can overwrite them.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from cameo_protocol import canonical

KEY_BYTES = 32
TAG_BYTES = 16
Secret = bytes | bytearray | memoryview


def label(use: str, *parts: Any) -> bytes:
    """The domain-separating prefix or HKDF info of one use, with all it is bound to."""
    return canonical.encode(["cameo/secagg/" + use, *parts])


def pair_key(transcript: bytes, z_low: Secret, z_high: Secret) -> bytes:
    """pair = HKDF-Extract(T, z_lo || z_hi), 32 bytes: what two parties share in one set-up."""
    return HKDF.extract(hashes.SHA256(), transcript, bytes(z_low) + bytes(z_high))


def edge_key(pair: bytes, transcript: bytes, low: int, high: int, round_no: int) -> bytes:
    """k^r = Expand(pair, edge, r), 32 bytes: independent for every round; opening one tells nothing of another."""
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, label("edge", transcript, low, high, round_no)).derive(pair)


def edge_tag(transcript: bytes, low: int, high: int, round_no: int, key: Secret) -> bytes:
    """16 bytes that both ends publish, so that the coordinator sees that they hold the same edge key."""
    return hashlib.sha256(label("edge-tag", transcript, low, high, round_no) + key).digest()[:TAG_BYTES]


def wrap_pad(opener: Secret, transcript: bytes, party: int, round_no: int, peers: int) -> bytes:
    """32 bytes a peer: the one-time pad under which a party's edge keys of a round are kept; opener: its c."""
    info = label("wrap", transcript, party, round_no)
    return HKDFExpand(hashes.SHA256(), KEY_BYTES * peers, info).derive(opener)


def commitment(use: str, transcript: bytes, party: int, round_no: int, secret: Secret) -> bytes:
    """SHA-256 commitment of a dealer to one round's 32-byte secret; use: "mask" for b, "open" for c."""
    return hashlib.sha256(label("commit-" + use, transcript, party, round_no) + secret).digest()
