"""Write tests/vectors/ledger_chain.json: entries of a ledger with their hashes, and chains that must be refused.

Independent of the code under test: nothing of Cameo is imported; CBOR is cbor2's canonical form and hashes are
hashlib's. A hospital's ledger outlives every release of this software, so its byte form is frozen here.
Run: python tests/client/ledger/make_ledger_vectors.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cbor2

FILE = Path(__file__).parents[2] / "vectors" / "ledger_chain.json"
RISK, EVALUATION = ["risk", (42.5).hex(), (1.0).hex()], ["evaluation", (11.25).hex(), (1.0).hex()]
CAPS = [(8.0).hex(), (3.0).hex()]
OPENED = {"entry": "opened", "at": 1_700_000_000, "dataset": "heart", "delta": (1e-5).hex(), "salt": bytes(range(32))}


def reserved(run: str, at: int, count: int) -> dict[str, Any]:
    releases = [[*RISK, count], [*EVALUATION, 1]]
    return {"entry": "reserved", "at": at, "run": run, "plan": "ab" * 32, "releases": releases, "caps": CAPS}


def committed(run: str, at: int, round_no: int, **other: Any) -> dict[str, Any]:
    return {
        "entry": "committed", "at": at, "run": run, "epoch": 1, "round": round_no, "kind": "train",
        "releases": [[*RISK, 1]], "upload": b"", **other,
    }  # fmt: skip


def closed(run: str, at: int) -> dict[str, Any]:
    return {"entry": "closed", "at": at, "run": run}


SOUND = [
    OPENED,
    reserved("run-1", 1_700_000_100, 3),
    committed("run-1", 1_700_000_101, 0),
    committed("run-1", 1_700_000_102, 1, upload=hashlib.sha256(b"vector").digest()),
    closed("run-1", 1_700_000_103),
    reserved("run-2", 1_700_000_103, 2),
    committed("run-2", 1_700_000_104, 0, kind="evaluate", releases=[[*EVALUATION, 1]]),
]


def chained(values: list[Any], *, raw: dict[int, bytes] | None = None) -> list[dict[str, str]]:
    """Each value's bytes and chain hash; raw replaces the bytes of some entries before they are hashed."""
    rows, previous = [], b""
    for number, value in enumerate(values):
        body = (raw or {}).get(number, cbor2.dumps(value, canonical=True))
        previous = hashlib.sha256(b"cameo/ledger\0" + bytes([len(previous)]) + previous + body).digest()
        rows.append({"body": body.hex(), "hash": previous.hex()})
    return rows


def refused() -> list[dict[str, Any]]:
    """Entries to refuse after that many of the sound ones, though (but for one) their hash is right."""
    at = 1_700_000_200
    wrong_hash = chained(SOUND)
    wrong_hash[-1]["hash"] = wrong_hash[-2]["hash"]
    odd = {**committed("run-2", at, 5), "note": "x"}
    indefinite = b"\xbf" + cbor2.dumps(closed("run-2", at), canonical=True)[1:] + b"\xff"
    float_sigma = committed("run-2", at, 5, releases=[["risk", 42.5, (1.0).hex(), 1]])
    last = {
        "a round that is spent already": committed("run-2", at, 0, releases=[[*RISK, 1]]),
        "more than was reserved": committed("run-2", at, 5, releases=[[*RISK, 3]]),
        "another sigma than was reserved": committed("run-2", at, 5, releases=[["risk", (43.0).hex(), (1.0).hex(), 1]]),
        "a closed run": committed("run-1", at, 5),
        "an unknown run": committed("run-3", at, 5),
        "an entry older than the one before": closed("run-2", 1_600_000_000),
        "a second opening entry": OPENED,
        "a run that was admitted before": reserved("run-1", at, 3),
        "a field too many": odd,
        "a float where hex belongs": float_sigma,
        "an upload hash of the wrong length": committed("run-2", at, 5, upload=b"short"),
        "a kind of entry that does not exist": {"entry": "refunded", "at": at, "run": "run-2"},
        "a purpose that does not exist": committed("run-2", at, 5, kind="marketing"),
        "the same task twice": committed("run-2", at, 5, releases=[[*RISK, 1], [*RISK, 1]]),
        "hex that is not in its one form": committed("run-2", at, 5, releases=[["risk", "42.5", "1.0", 1]]),
    }
    chains = {why: chained([*SOUND, value]) for why, value in last.items()} | {
        "a hash that does not follow": wrong_hash,
        "not canonical": chained([*SOUND, None], raw={len(SOUND): indefinite}),
        "bytes left over": chained([*SOUND, None], raw={len(SOUND): b"\xa0\x00"}),
        "no opening entry": chained([reserved("run-1", at, 3)]),
    }
    return [{"why": why, "after": len(rows) - 1, "entry": rows[-1]} for why, rows in chains.items()]


def main() -> None:
    """Write the file."""
    found = {"mu_squared": 2 / 42.5**2 + 1 / 11.25**2, "entries": chained(SOUND), "refused": refused()}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
