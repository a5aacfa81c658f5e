"""The entries of a ledger, their one byte form, and the hash chain over them. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from cameo_protocol import canonical
from cameo_protocol.errors import Bug, Reject
from cameo_protocol.privacy.releases import Release, TaskReleases

HASH_BYTES = 32
SALT_BYTES = 32
MAX_BODY_BYTES = 1 << 16
MAX_TASKS = 64
MAX_NUMBER = 2**31 - 1
MAX_TIME = 253_402_300_799  # the last second of the year 9999
# Kind of a release -> what it was for. The first three are rounds of a plan; the others are a hospital's own.
PURPOSES = {
    "train": "training",
    "evaluate": "evaluation",
    "recalibrate": "recalibration",
    "analytics": "analytics",
    "audit": "audit",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


class Head(NamedTuple):
    """How many entries a ledger has, the opening one included, and the hash of the last; (0, b"") = none seen yet."""

    entries: int
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Caps:
    """The officer's caps of epsilon at the ledger's delta: for the data set, for ever; and in any 365 days."""

    dataset: float
    year: float

    def __post_init__(self) -> None:
        if not (0 < self.dataset < math.inf and 0 < self.year < math.inf):
            raise Bug("caps-invalid", what="both caps of epsilon must be finite numbers > 0")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The first entry. delta is fixed for the life of the data set; salt keeps the chain's hashes unguessable."""

    at: int
    dataset: str
    delta: float
    salt: bytes


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """Admission to a run: what its plan may release at most, and the caps that it was held against."""

    at: int
    run: str
    plan: str
    releases: TaskReleases
    caps: Caps


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What one round releases: spent for ever. kind: one of `PURPOSES`. upload: SHA-256 of the vector or b""."""

    at: int
    run: str
    epoch: int
    round_no: int
    kind: str
    releases: TaskReleases
    upload: bytes


@dataclass(frozen=True, kw_only=True)
class Closed:
    """The end of a run: what it reserved and did not commit is free again."""

    at: int
    run: str


Entry = Opened | Reserved | Committed | Closed


def chain(previous: bytes, body: bytes) -> bytes:
    """The hash of an entry: SHA-256 over a domain label, the hash of the entry before (b"" for the first), its body."""
    return hashlib.sha256(b"cameo/ledger\0" + len(previous).to_bytes(1, "big") + previous + body).digest()


def is_name(value: object) -> bool:
    """Whether a value may name a data set, run, plan or task."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def write(entry: Entry) -> bytes:
    """The canonical bytes of an entry; floats are kept exactly, as hex."""
    rest: dict[str, object]
    match entry:
        case Opened():
            rest = {"dataset": entry.dataset, "delta": entry.delta.hex(), "salt": entry.salt}
        case Reserved():
            caps = [float(entry.caps.dataset).hex(), float(entry.caps.year).hex()]
            rest = {"run": entry.run, "plan": entry.plan, "releases": _rows(entry.releases), "caps": caps}
        case Committed():
            rest = {
                "run": entry.run, "epoch": entry.epoch, "round": entry.round_no, "kind": entry.kind,
                "releases": _rows(entry.releases), "upload": entry.upload,
            }  # fmt: skip
        case Closed():
            rest = {"run": entry.run}
    return canonical.encode({"entry": type(entry).__name__.lower(), "at": entry.at, **rest})


def read(body: bytes) -> Entry:
    """The entry of its canonical bytes. Anything that `write` would not have written is a `Reject`."""
    try:
        entry = _read(canonical.decode(body, max_bytes=MAX_BODY_BYTES))
    except (Bug, ValueError, OverflowError, TypeError, KeyError):
        raise Reject("entry-invalid", what="not an entry of a ledger") from None
    if write(entry) != body:
        raise Reject("entry-invalid", what="not in the form in which entries are written")
    return entry


def _read(value: Any) -> Entry:
    match value:
        case {"entry": "opened", "at": int(at), "dataset": str(dataset), "delta": str(delta), "salt": bytes(salt)}:
            entry: Entry = Opened(at=at, dataset=dataset, delta=float.fromhex(delta), salt=salt)
        case {"entry": "reserved", "at": int(at), "run": str(run), "plan": str(plan), "releases": list(rows),
              "caps": [str(dataset_cap), str(year_cap)]}:  # fmt: skip
            caps = Caps(dataset=float.fromhex(dataset_cap), year=float.fromhex(year_cap))
            entry = Reserved(at=at, run=run, plan=plan, releases=_releases(rows), caps=caps)
        case {"entry": "committed", "at": int(at), "run": str(run), "epoch": int(epoch), "round": int(round_no),
              "kind": str(kind), "releases": list(rows), "upload": bytes(upload)}:  # fmt: skip
            entry = Committed(
                at=at, run=run, epoch=epoch, round_no=round_no, kind=kind, releases=_releases(rows), upload=upload
            )
        case {"entry": "closed", "at": int(at), "run": str(run)}:
            entry = Closed(at=at, run=run)
        case _:
            raise ValueError("no known entry")
    check(entry)
    return entry


def check(entry: Entry) -> None:
    """Raise ValueError unless every field of an entry is in its range."""
    match entry:
        case Opened():
            sound = is_name(entry.dataset) and 0 < entry.delta < 1 and len(entry.salt) == SALT_BYTES
        case Reserved():
            sound = is_name(entry.run) and is_name(entry.plan) and _sound(entry.releases)
        case Committed():
            numbers = all(0 <= x <= MAX_NUMBER for x in (entry.epoch, entry.round_no))
            names = is_name(entry.run) and entry.kind in PURPOSES
            sound = names and numbers and _sound(entry.releases) and len(entry.upload) in (0, HASH_BYTES)
        case Closed():
            sound = is_name(entry.run)
    if not sound or not 0 <= entry.at <= MAX_TIME:
        raise ValueError("a field is out of its range")


def _sound(releases: TaskReleases) -> bool:
    names = [task for task, _ in releases]
    return 1 <= len(names) <= MAX_TASKS and len(set(names)) == len(names) and all(map(is_name, names))


def _rows(releases: TaskReleases) -> list[list[Any]]:
    return [[task, float(r.sigma).hex(), float(r.q).hex(), r.count] for task, r in releases]


def _releases(rows: list[Any]) -> TaskReleases:
    return tuple(
        (task, Release(sigma=float.fromhex(sigma), q=float.fromhex(q), count=count)) for task, sigma, q, count in rows
    )
