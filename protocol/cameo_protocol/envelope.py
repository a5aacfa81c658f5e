"""Signed envelopes: CBOR [raw body bytes, Ed25519 signature]; the signature covers a domain label and the raw body.

Source: design page "secure-sum", Wire; Ed25519 as in RFC 8032.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cameo_protocol import canonical
from cameo_protocol.errors import Reject

SIGNATURE_BYTES = 64
OVERHEAD = 96


def _to_sign(label: str, body: bytes) -> bytes:
    return b"cameo/signed/" + label.encode() + b"\0" + body


def seal(key: Ed25519PrivateKey, label: str, value: Any) -> bytes:
    """Encode and sign a value under a domain label (for instance "secagg/adv"). Returns the envelope bytes."""
    body = canonical.encode(value)
    return canonical.encode([body, key.sign(_to_sign(label, body))])


def unverified_body(data: bytes, *, max_bytes: int) -> Any:
    """The body of an envelope before its signature is checked: only to learn whose key to check it with."""
    body, _ = _split(data, max_bytes)
    return canonical.decode(body, max_bytes=max_bytes)


def open_envelope(data: bytes, public_key: bytes, label: str, *, max_bytes: int) -> Any:
    """Verify an envelope against a 32-byte Ed25519 public key and return its body; otherwise `Reject`."""
    body, signature = _split(data, max_bytes)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _to_sign(label, body))
    except (InvalidSignature, ValueError):
        raise Reject("signature-invalid", what=f"a {label} message is not signed by the key it names") from None
    return canonical.decode(body, max_bytes=max_bytes)


def _split(data: bytes, max_bytes: int) -> tuple[bytes, bytes]:
    parts = canonical.decode(data, max_bytes=max_bytes + OVERHEAD)
    match parts:
        case [bytes(body), bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            return body, signature
    raise Reject("message-malformed", what="not an envelope of body and signature")


def fingerprint(public_key: bytes) -> str:
    """What two people compare by phone: SHA-256 of an identity key, the first 20 bytes in groups of four hex digits.

    >>> fingerprint(bytes(32))
    '6668-7aad-f862-bd77-6c8f-c18b-8e9f-8e20-0897-1485'
    """
    text = hashlib.sha256(public_key).hexdigest()[:40]
    return "-".join(text[i : i + 4] for i in range(0, 40, 4))


def read_out(text: str) -> str:
    """A fingerprint as a person typed it, as `fingerprint` writes it: capitals, spaces and other dashes do not matter.

    What is no fingerprint comes back in a form that equals none.

    >>> read_out(" 6668 7AAD–f862BD77 6c8f c18b 8e9f 8e20 0897 1485")
    '6668-7aad-f862-bd77-6c8f-c18b-8e9f-8e20-0897-1485'
    """
    letters = "".join(letter for letter in text.lower() if letter.isalnum())
    return "-".join(letters[i : i + 4] for i in range(0, len(letters), 4))
