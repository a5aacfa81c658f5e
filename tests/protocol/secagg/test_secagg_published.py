"""Published known answers of the primitives, through the library that we use (invariant 16)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl as rust_openssl
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "secagg_published.json").read_text())


def unhex(case: dict) -> dict:
    return {k: bytes.fromhex(v) if isinstance(v, str) and k != "source" else v for k, v in case.items()}


def cases(name: str):
    return [pytest.param(unhex(case), id=case["source"]) for case in VECTORS[name]]


@pytest.mark.parametrize("case", cases("aes_ctr"))
def test_aes_256_ctr(case) -> None:
    encryptor = Cipher(algorithms.AES(case["key"]), modes.CTR(case["counter"])).encryptor()
    assert encryptor.update(case["plain"]) == case["cipher"]


@pytest.mark.parametrize("case", cases("hkdf_sha256"))
def test_hkdf(case) -> None:
    assert HKDF.extract(hashes.SHA256(), case["salt"], case["ikm"]) == case["prk"]
    assert HKDFExpand(hashes.SHA256(), case["length"], case["info"]).derive(case["prk"]) == case["okm"]


@pytest.mark.parametrize("case", cases("x25519"))
def test_x25519(case) -> None:
    key = x25519.X25519PrivateKey.from_private_bytes(case["private"])
    assert key.public_key().public_bytes_raw() == case["public"]
    assert key.exchange(x25519.X25519PublicKey.from_public_bytes(case["peer_public"])) == case["shared"]


@pytest.mark.parametrize("case", cases("ed25519"))
def test_ed25519(case) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(case["secret"])
    assert key.public_key().public_bytes_raw() == case["public"]
    assert key.sign(case["message"]) == case["signature"]


def _hpke(case: dict):
    """Suite and private key of a vector; X-Wing keys are 32-byte seeds, expanded by SHAKE-256."""
    if case["kem"] == 0x0020:
        return hpke.KEM.X25519, x25519.X25519PrivateKey.from_private_bytes(case["skRm"])
    seed = hashlib.shake_256(case["skRm"]).digest(96)
    post = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed[:64])
    classic = x25519.X25519PrivateKey.from_private_bytes(seed[64:])
    assert post.public_key().public_bytes_raw() + classic.public_key().public_bytes_raw() == case["pkRm"]
    return hpke.KEM.MLKEM768_X25519, hpke.MLKEM768X25519PrivateKey(post, classic)


@pytest.mark.parametrize("case", cases("hpke"))
def test_hpke(case) -> None:
    kem, key = _hpke(case)
    aead = {2: hpke.AEAD.AES_256_GCM, 3: hpke.AEAD.CHACHA20_POLY1305}[case["aead"]]
    suite = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, aead)
    decrypt = rust_openssl.hpke._decrypt_with_aad  # the vectors have associated data; we use none
    assert decrypt(suite, case["enc"] + case["ct"], key, case["info"], case["aad"]) == case["pt"]
    with pytest.raises(InvalidTag):
        decrypt(suite, case["enc"] + case["ct"], key, case["info"] + b"x", case["aad"])
