"""Sealed boxes: what one hospital gives another at set-up, through the coordinator, which cannot open them.

HPKE (RFC 9180) with the X-Wing KEM (ML-KEM-768 and X25519), HKDF-SHA256 and AES-256-GCM; the info binds the
transcript, the dealer and the receiver. The encapsulation's randomness is OpenSSL's own: the library takes none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.kdf import KEY_BYTES, label

Bytes = npt.NDArray[np.uint8]
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_OVERHEAD = hpke.KEM.MLKEM768_X25519.enc_length() + 16


class KeyPair(NamedTuple):
    """A fresh HPKE key and its two public halves, as they travel."""

    private: hpke.MLKEM768X25519PrivateKey
    mlkem: bytes
    x25519: bytes


class Contents(NamedTuple):
    """What a box holds: the dealer's half z of the pair secret, and the receiver's shares of the dealer's b and c.

    z: 32 bytes. mask_shares, open_shares: (R, 32).
    """

    z: bytes
    mask_shares: Bytes
    open_shares: Bytes


def new_key_pair(random: Callable[[int], bytes]) -> KeyPair:
    """A key pair from 96 bytes of a CSPRNG."""
    post = mlkem.MLKEM768PrivateKey.from_seed_bytes(random(64))
    classic = x25519.X25519PrivateKey.from_private_bytes(random(32))
    public = (post.public_key().public_bytes_raw(), classic.public_key().public_bytes_raw())
    return KeyPair(hpke.MLKEM768X25519PrivateKey(post, classic), *public)


def box_bytes(rounds: int) -> int:
    """Exact length of a box in an epoch of so many rounds."""
    return _OVERHEAD + KEY_BYTES * (1 + 2 * rounds)


def seal_box(
    contents: Contents, key: hpke.MLKEM768X25519PublicKey, transcript: bytes, dealer: int, receiver: int
) -> bytes:
    """Seal to one receiver. A receiver's key that no secret can be agreed with is a `PartyFault` of the receiver."""
    plain = contents.z + contents.mask_shares.tobytes() + contents.open_shares.tobytes()
    try:
        return _SUITE.encrypt(plain, key, info=label("share", transcript, dealer, receiver))
    except ValueError:
        raise PartyFault("key-invalid", receiver, what="no secret can be agreed with its public key") from None


def open_box(
    box: bytes,
    key: hpke.MLKEM768X25519PrivateKey,
    transcript: bytes,
    dealer: int,
    receiver: int,
    rounds: int,
) -> Contents:
    """Open a dealer's box; anything but a box sealed by this info to this key is a `PartyFault` of the dealer."""
    if len(box) != box_bytes(rounds):
        raise PartyFault("box-invalid", dealer, what=f"its box has {len(box)} bytes, not {box_bytes(rounds)}")
    try:
        plain = _SUITE.decrypt(box, key, info=label("share", transcript, dealer, receiver))
    except (InvalidTag, ValueError):
        raise PartyFault("box-invalid", dealer, what="its box does not open") from None
    rows = np.frombuffer(plain, dtype=np.uint8)[KEY_BYTES:].reshape(2, rounds, KEY_BYTES)
    return Contents(plain[:KEY_BYTES], rows[0], rows[1])


def box_hash(box: bytes) -> bytes:
    """What a dealer signs of each box, so that a receiver needs only its own."""
    return hashlib.sha256(box).digest()
