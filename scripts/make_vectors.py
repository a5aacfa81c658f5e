"""Write the golden transcript of the secure sum: tests/vectors/secagg_golden.json.

Independent of the code under test: nothing of Cameo is imported. CBOR is written out here, hashes are hashlib's, AES
and Ed25519 are PyCryptodome's, GF(2^8) is galois', and the protocol is transcribed from docs/secure-sum.md. Only the
public halves of the ML-KEM and X25519 keys come from `cryptography`. HPKE takes no randomness from outside, so
sealed boxes (and the SHR message, which signs their hashes) are not frozen; everything else is.

Run: python scripts/make_vectors.py            writes the file
     python scripts/make_vectors.py --check    exits 1 if the stored file differs
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path
from typing import Any

import galois
import numpy as np
from Crypto.Cipher import AES
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

FILE = Path(__file__).parents[1] / "tests" / "vectors" / "secagg_golden.json"
MEMBERS, THRESHOLD, COLLUDERS, ROUNDS, EPOCH = (2, 3, 5, 9), 3, 1, 2, 7
PLAN, RUN = hashlib.sha256(b"golden plan").digest(), "golden run"
BLOCKS = [("risk", 6, 1.0, 4.0, 1024, 1.5, False), ("segment", 5, 2.0, 8.0, 512, 2.5, False)]
DIM = sum(block[1] for block in BLOCKS)
ROUND, KIND, INVITED, SURVIVORS = 1, "train", (2, 3, 5, 9), (2, 3, 9)
MODEL = hashlib.sha256(b"golden model").digest()
FIELD = galois.GF(2**8, irreducible_poly="x^8 + x^4 + x^3 + x + 1")


def cbor(value: Any) -> bytes:
    """Canonical CBOR (RFC 8949, 4.2.1) of the few types that travel."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, (list, tuple)):
        return _head(4, len(value)) + b"".join(map(cbor, value))
    rows = sorted((cbor(key), cbor(item)) for key, item in value.items())
    rows.sort(key=lambda row: (len(row[0]), row[0]))
    return _head(5, len(rows)) + b"".join(key + item for key, item in rows)


def _head(major: int, number: int) -> bytes:
    for code, size, form in ((24, 1 << 8, ">B"), (25, 1 << 16, ">H"), (26, 1 << 32, ">I"), (27, 1 << 64, ">Q")):
        if number < 24:
            return bytes([major << 5 | number])
        if number < size:
            return bytes([major << 5 | code]) + struct.pack(form, number)
    raise ValueError(number)


def sha(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def digest(label: str, value: Any) -> bytes:
    """The labelled hash of a value."""
    return sha(b"cameo/" + label.encode() + b"\0" + cbor(value))


def info(use: str, *parts: Any) -> bytes:
    """The label of one use of a key."""
    return cbor(["cameo/secagg/" + use, *parts])


def expand(key: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869, 2.3)."""
    out, block = b"", b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + label + bytes([count]), "sha256")
        out += block
    return out[:length]


def drawn(party: int, read: int, size: int) -> bytes:
    """What a party's n-th read of its CSPRNG gives in this transcript."""
    return hashlib.shake_256(f"golden/{party}/{read}".encode()).digest(size)


def keystream(key: bytes) -> np.ndarray:
    """AES-256-CTR from counter zero as little-endian 32-bit lanes."""
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0)
    return np.frombuffer(cipher.encrypt(bytes(4 * DIM)), dtype="<u4").astype(np.uint64)


def identity(party: int) -> ECC.EccKey:
    """A party's long-lived key."""
    return eddsa.import_private_key(sha(f"golden identity {party}".encode()))


def signed(party: int, kind: str, fields: dict[str, Any]) -> bytes:
    """An envelope."""
    body = cbor({"kind": kind, "from": party, **fields})
    text = b"cameo/signed/secagg/" + kind.encode() + b"\0" + body
    return cbor([body, eddsa.new(identity(party), "rfc8032").sign(text)])


def public_facts() -> dict[str, bytes]:
    """Roster, encoding and parameter digests."""
    rows = [[b[0], b[1], b[2].hex(), b[3].hex(), b[4], b[5].hex(), b[6]] for b in BLOCKS]
    layout = digest("layout", [KIND, rows])
    encoding = digest("secagg/encoding", [[layout], "distributed"])
    roster = digest("secagg/roster", [[p, identity(p).public_key().export_key(format="raw")] for p in MEMBERS])
    numbers = [EPOCH, ROUNDS, THRESHOLD, COLLUDERS]
    params = digest("secagg/params", [PLAN, RUN, numbers, encoding, roster])
    context = digest("secagg/context", [KIND, layout, MODEL])
    return {"encoding": encoding, "roster": roster, "params": params, "context": context}


def advert(party: int, facts: dict[str, bytes], **changed: Any) -> bytes:
    """ADV, with some fields changed or none."""
    post = MLKEM768PrivateKey.from_seed_bytes(drawn(party, 1, 64)).public_key().public_bytes_raw()
    classic = X25519PrivateKey.from_private_bytes(drawn(party, 2, 32)).public_key().public_bytes_raw()
    numbers = {"epoch": EPOCH, "rounds": ROUNDS, "t": THRESHOLD, "c": COLLUDERS}
    keys = {"mlkem": post, "x25519": classic}
    hashes = {"roster": facts["roster"], "encoding": facts["encoding"]}
    return signed(party, "adv", {"plan": PLAN, "run": RUN, **numbers, **hashes, **keys, **changed})


class Dealer:
    """One party's secrets of the set-up: b and c by round, z by peer, and everybody's shares."""

    def __init__(self, party: int) -> None:
        secrets = drawn(party, 3, 64 * ROUNDS)
        halves = drawn(party, 4, 32 * len(MEMBERS))
        rows = [secrets[32 * i : 32 * i + 32] for i in range(2 * ROUNDS)]
        self.masks, self.openers = rows[:ROUNDS], rows[ROUNDS:]
        self.z = {peer: halves[32 * i : 32 * i + 32] for i, peer in enumerate(MEMBERS)}
        coefficients = np.frombuffer(drawn(party, 5, (THRESHOLD - 1) * len(secrets)), dtype=np.uint8)
        constants = FIELD(np.frombuffer(secrets, dtype=np.uint8))
        higher = FIELD(coefficients.reshape(THRESHOLD - 1, len(secrets)))
        self.shares = {}
        for point in MEMBERS:
            value = constants
            for power, row in enumerate(higher, start=1):
                value = value + row * FIELD(point) ** power
            self.shares[point] = value.tobytes()

    def share_for(self, peer: int, kind: str, round_no: int) -> bytes:
        """A peer's 32-byte share of b ("mask") or c ("open") of a round."""
        row = round_no + (ROUNDS if kind == "open" else 0)
        return self.shares[peer][32 * row : 32 * row + 32]


def edge(dealers: dict[int, Dealer], transcript: bytes, low: int, high: int, round_no: int) -> bytes:
    """The edge key of a pair in a round."""
    pair = hmac.digest(transcript, dealers[low].z[high] + dealers[high].z[low], "sha256")
    return expand(pair, info("edge", transcript, low, high, round_no), 32)


def ready(dealers: dict[int, Dealer], transcript: bytes, party: int) -> bytes:
    """RDY."""
    wrapped, tags = ready_rows(dealers, transcript, party)
    return signed(party, "rdy", {"T": transcript, "wrapped": wrapped, "tags": tags})


def ready_rows(dealers: dict[int, Dealer], transcript: bytes, party: int) -> tuple[bytes, bytes]:
    """Wrapped edge keys and their tags, by round and peer."""
    wrapped, tags = b"", b""
    for round_no in range(ROUNDS):
        pad = expand(dealers[party].openers[round_no], info("wrap", transcript, party, round_no), 32 * len(MEMBERS))
        for place, peer in enumerate(MEMBERS):
            if peer == party:
                continue
            low, high = sorted((party, peer))
            key = edge(dealers, transcript, low, high, round_no)
            wrapped += bytes(a ^ b for a, b in zip(key, pad[32 * place : 32 * place + 32], strict=True))
            tags += sha(info("edge-tag", transcript, low, high, round_no) + key)[:16]
    return wrapped, tags


def reveal_shares(dealers: dict[int, Dealer], party: int) -> bytes:
    """A party's share of b of each survivor and of c of each dropout, ascending."""
    kinds = [(j, "mask" if j in SURVIVORS else "open") for j in INVITED]
    return b"".join(dealers[j].share_for(party, kind, ROUND) for j, kind in kinds)


def masked(dealers: dict[int, Dealer], transcript: bytes, party: int) -> bytes:
    """A survivor's vector under its masks."""
    total = inputs(party).astype(np.uint64) + keystream(dealers[party].masks[ROUND])
    for peer in INVITED:
        if peer != party:
            low, high = sorted((party, peer))
            mask = keystream(edge(dealers, transcript, low, high, ROUND))
            total = total + mask if party < peer else total + (2**32 - mask)
    return bytes((total % 2**32).astype("<u4").tobytes())


def inputs(party: int) -> np.ndarray:
    """A party's plain vector."""
    return np.frombuffer(hashlib.shake_256(f"golden input {party}".encode()).digest(4 * DIM), dtype="<u4")


def build() -> dict[str, Any]:
    """The whole transcript, bytes in hex."""
    facts = public_facts()
    adverts = {p: advert(p, facts) for p in MEMBERS}
    transcript = digest("secagg/transcript", [facts["params"], [[p, sha(adverts[p])] for p in MEMBERS]])
    dealers = {p: Dealer(p) for p in MEMBERS}
    invited = digest("secagg/invited", list(INVITED))
    common = {"T": transcript, "r": ROUND}
    vectors = {p: masked(dealers, transcript, p) for p in SURVIVORS}
    headers = {
        p: signed(p, "upl", {**common, "S": invited, "ctx": facts["context"], "y": sha(vectors[p])}) for p in SURVIVORS
    }
    rows = [[p, sha(vectors[p])] for p in SURVIVORS]
    chosen = digest("secagg/survivors", [transcript, ROUND, invited, facts["context"], rows])
    reveals = {p: signed(p, "rev", {**common, "U": chosen, "shares": reveal_shares(dealers, p)}) for p in MEMBERS}
    result = np.sum([inputs(p).astype(np.uint64) for p in SURVIVORS], axis=0) % 2**32
    return {
        "params": facts["params"],
        "transcript": transcript,
        "adverts": adverts,
        "mask_commitments": {p: _commitments(dealers[p].masks, "mask", transcript, p) for p in MEMBERS},
        "open_commitments": {p: _commitments(dealers[p].openers, "open", transcript, p) for p in MEMBERS},
        "shares": {p: {j: dealers[p].shares[j] for j in MEMBERS} for p in MEMBERS},
        "readies": {p: ready(dealers, transcript, p) for p in MEMBERS},
        "inputs": {p: inputs(p).tobytes() for p in SURVIVORS},
        "headers": headers,
        "vectors": vectors,
        "acks": {p: signed(p, "ack", {**common, "U": chosen}) for p in MEMBERS},
        "reveals": reveals,
        "sum": result.astype("<u4").tobytes(),
        "must_fail": [
            *must_fail_in_setup(dealers, facts, transcript, adverts),
            *must_fail(facts, transcript, headers, chosen),
            *must_fail_in_reveal(dealers, transcript, chosen),
        ],
    }


def _commitments(secrets: list[bytes], use: str, transcript: bytes, party: int) -> bytes:
    return b"".join(sha(info("commit-" + use, transcript, party, r) + s) for r, s in enumerate(secrets))


def must_fail_in_setup(
    dealers: dict[int, Dealer], facts: dict[str, bytes], transcript: bytes, adverts: dict[int, bytes]
) -> list[dict[str, Any]]:
    """Set-up messages of party 3 that must be refused: an epoch that is another one in each of its facts, and RDY."""
    wrapped, tags = ready_rows(dealers, transcript, 3)
    flipped = bytes([tags[0] ^ 1]) + tags[1:]
    rdy = {"T": transcript, "wrapped": wrapped, "tags": tags}
    changes = {
        "plan": ("plan-foreign", sha(b"other")),
        "run": ("run-foreign", "other run"),
        "epoch": ("epoch-foreign", EPOCH - 1),
        "rounds": ("rounds-differ", ROUNDS + 1),
        "t": ("threshold-differs", THRESHOLD - 1),
        "c": ("colluders-differ", COLLUDERS + 1),
        "roster": ("roster-differs", sha(b"other")),
        "encoding": ("encoding-differs", sha(b"other")),
    }
    cases = [
        ("adv", f"another {name}", code, advert(3, facts, **{name: value})) for name, (code, value) in changes.items()
    ]
    cases += [
        ("adv", "the advert of another party", "signature-invalid", adverts[2]),
        ("adv", "a short key", "message-malformed", advert(3, facts, x25519=bytes(31))),
        ("rdy", "another cohort", "transcript-foreign", signed(3, "rdy", {**rdy, "T": sha(b"other")})),
        ("rdy", "a row too few", "ready-malformed", signed(3, "rdy", {**rdy, "wrapped": wrapped[:-32]})),
        ("rdy", "another tag than its peer's", "edge-differs", signed(3, "rdy", {**rdy, "tags": flipped})),
    ]
    return [dict(zip(("kind", "what", "code", "envelope"), case, strict=True)) for case in cases]


def must_fail_in_reveal(dealers: dict[int, Dealer], transcript: bytes, chosen: bytes) -> list[dict[str, Any]]:
    """Reveals of party 3 that must be refused; the last one is well-formed, and must void the round instead."""
    shares = reveal_shares(dealers, 3)
    rev = {"T": transcript, "r": ROUND, "U": chosen, "shares": shares}
    cases = [
        ("rev", "another epoch", "transcript-foreign", signed(3, "rev", {**rev, "T": sha(b"other")})),
        ("rev", "another round", "round-foreign", signed(3, "rev", {**rev, "r": 0})),
        ("rev", "another survivor set", "reveal-of-another-set", signed(3, "rev", {**rev, "U": sha(b"other")})),
        ("rev", "a share too few", "reveal-malformed", signed(3, "rev", {**rev, "shares": shares[:-32]})),
        ("void", "a wrong share", "shares-wrong", signed(3, "rev", {**rev, "shares": bytes(32) + shares[32:]})),
    ]
    return [dict(zip(("kind", "what", "code", "envelope"), case, strict=True)) for case in cases]


def must_fail(
    facts: dict[str, bytes], transcript: bytes, headers: dict[int, bytes], chosen: bytes
) -> list[dict[str, Any]]:
    """Headers and acks of party 3 that must be refused, each with the code of the refusal."""
    good = {"T": transcript, "r": ROUND, "S": digest("secagg/invited", list(INVITED)), "ctx": facts["context"]}
    header = {**good, "y": sha(b"")}
    ack = {"T": transcript, "r": ROUND, "U": chosen}
    cases = [
        ("upl", "another epoch", "transcript-foreign", signed(3, "upl", {**header, "T": sha(b"other")})),
        ("upl", "another round", "round-foreign", signed(3, "upl", {**header, "r": 0})),
        ("upl", "another invited set", "invited-differs", signed(3, "upl", {**header, "S": sha(b"other")})),
        ("upl", "another model", "context-differs", signed(3, "upl", {**header, "ctx": sha(b"other")})),
        ("upl", "an ack where a header is due", "signature-invalid", signed(3, "ack", ack)),
        ("upl", "the header of another party", "signature-invalid", headers[2]),
        ("upl", "bytes left over", "message-malformed", headers[3] + b"\0"),
        ("upl", "a field too many", "message-malformed", signed(3, "upl", {**header, "weight": 412})),
        ("upl", "a negative round", "message-malformed", signed(3, "upl", {**header, "r": -1})),
        ("ack", "another survivor set", "ack-of-another-set", signed(3, "ack", {**ack, "U": sha(b"other")})),
        ("ack", "another round", "round-foreign", signed(3, "ack", {**ack, "r": 0})),
        ("ack", "a flag where a number is due", "message-malformed", signed(3, "ack", {**ack, "r": True})),
    ]
    return [dict(zip(("kind", "what", "code", "envelope"), case, strict=True)) for case in cases]


def hexed(value: Any) -> Any:
    """JSON form."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): hexed(item) for key, item in value.items()}
    return [hexed(item) for item in value] if isinstance(value, list) else value


def main(arguments: list[str]) -> int:
    """Write or check."""
    text = json.dumps(hexed(build()), indent=1) + "\n"
    if arguments == ["--check"]:
        return 0 if FILE.read_text() == text else 1
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
