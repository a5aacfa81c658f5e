"""Pseudonyms: the person id is replaced at the door and kept nowhere.

HMAC-SHA256 under a key that this hospital keeps apart from its data. Without the key a hash of an id would still
be an identifier, because ids can be tried out; with it, whoever lacks the key learns nothing but equality.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from cameo_protocol.errors import Bug

KEY_BYTES = 32
PSEUDONYM_CHARS = 32
_LABEL = b"cameo/pseudonym/1\0"


def pseudonym(key: bytes, person_id: str) -> str:
    """The pseudonym of one person: 32 hex characters (128 bits), the same in every source of this hospital.

    Spaces around the id are ignored. key: 32 bytes or more.
    """
    return pseudonyms(key, [person_id])[0]


def pseudonyms(key: bytes, person_ids: Iterable[str]) -> list[str]:
    """`pseudonym` of many, in order."""
    _check(key)
    return [
        hmac.digest(key, _LABEL + person_id.strip().encode(), "sha256").hex()[:PSEUDONYM_CHARS]
        for person_id in person_ids
    ]


def derive_key(key: bytes, purpose: str) -> bytes:
    """A 32-byte key for another purpose; knowing it says nothing about `key`."""
    _check(key)
    return hmac.digest(key, b"cameo/derive/1\0" + purpose.encode(), hashlib.sha256)


def _check(key: bytes) -> None:
    if len(key) < KEY_BYTES:
        raise Bug("pseudonym-key", what=f"a pseudonym key shorter than {KEY_BYTES} bytes")
