"""What stands in `tags.sqlite` about patients: sealed values, and blind indexes by which they are found again.

Each store has keys of its own, which the vault wraps (see vault.py): one for AES-256-GCM, one for HMAC-SHA-256. Equal
values give equal indexes, so that SQLite can look them up; without the key an index tells nothing of the value.
"""

from __future__ import annotations

import hmac
import os
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cameo_client.vault import KEY, NONCE, Random
from cameo_protocol.errors import ExitCode, OperatorError

KEYS = 2 * KEY
_INDEX = 16


class Cipher:
    """Seals and finds the values of one store. key: `KEYS` bytes; random: n -> n fresh bytes, for nonces."""

    def __init__(self, key: bytes, random: Random = os.urandom) -> None:
        self._aead, self._index_key, self._random = AESGCM(key[:KEY]), key[KEY:KEYS], random

    def index(self, kind: str, *parts: str) -> bytes:
        """16 bytes that stand for a value in a column. kind: keeps equal texts of different meaning apart."""
        return hmac.digest(self._index_key, "\0".join((kind, *parts)).encode(), "sha256")[:_INDEX]

    def seal(self, place: bytes, value: object) -> bytes:
        """A JSON value, encrypted. place: table and row, so that a value moved elsewhere does not open."""
        nonce = self._random(NONCE)
        return nonce + self._aead.encrypt(nonce, orjson.dumps(value), place)

    def unseal(self, place: bytes, sealed: bytes) -> Any:
        """What `seal` was given. Changed or moved bytes: `OperatorError("tag-store-unusable")`."""
        try:
            return orjson.loads(self._aead.decrypt(sealed[:NONCE], sealed[NONCE:], place))
        except (InvalidTag, ValueError):
            raise OperatorError(
                "tag-store-unusable",
                what="a row of tags.sqlite was changed or moved by somebody without its key",
                do="restore it from a backup and tell the privacy officer",
                exit=ExitCode.DATA,
            ) from None
