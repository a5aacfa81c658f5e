"""Canonical CBOR (RFC 8949, section 4.2) over a small set of types: one value, one byte string.

Allowed: None, bool, int of 64 bits, bytes, str, list, and maps with str keys. No floats, tags or indefinite
lengths. `decode` refuses whatever `encode` would not have written, so nothing is re-encoded before it is
verified and no two encodings of one message exist.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import cbor2

from cameo_protocol.errors import Bug, Reject

MAX_DEPTH = 8
_INT_BOUND = 2**63


def _well_typed(value: object, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    if value is None or isinstance(value, bool | bytes | str):
        return True
    if isinstance(value, int):
        return -_INT_BOUND <= value < _INT_BOUND
    if isinstance(value, list | tuple):
        return all(_well_typed(item, depth + 1) for item in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and _well_typed(v, depth + 1) for k, v in value.items())
    return False


def encode(value: Any) -> bytes:
    """Encode a value of the allowed types. Anything else is a `Bug`."""
    if not _well_typed(value, 0):
        raise Bug("canonical-type", what="a value of a type that canonical CBOR here does not carry")
    try:
        return cbor2.dumps(value, canonical=True)
    except UnicodeEncodeError:
        raise Bug("canonical-type", what="a text with half a character, which has no UTF-8 form") from None


def decode(data: bytes, *, max_bytes: int) -> Any:
    """Decode exactly one canonical value; any other input is a `Reject`, in memory bounded by its size."""
    if len(data) > max_bytes:
        raise Reject("message-too-long", what=f"{len(data)} bytes where at most {max_bytes} are allowed")
    try:
        value = cbor2.CBORDecoder(io.BytesIO(data)).decode()
    except (
        cbor2.CBORDecodeError,
        ValueError,
        TypeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        raise Reject("message-malformed", what=f"not CBOR ({type(error).__name__})") from None
    if not _well_typed(value, 0):
        raise Reject("message-malformed", what="a type that is not allowed, or too deep")
    if cbor2.dumps(value, canonical=True) != data:
        raise Reject("message-malformed", what="not in canonical form, or bytes are left over")
    return value


def digest(label: str, value: Any) -> bytes:
    """SHA-256 of a canonical value under a domain label; 32 bytes."""
    return hashlib.sha256(b"cameo/" + label.encode() + b"\0" + encode(value)).digest()
