"""What travels: six signed messages, the sealed boxes, and bundles of messages of several parties.

Each message is an envelope (see `envelope`) whose body is a canonical CBOR map with exactly the fields below, kind
and sender among them; its signature is under the label of its kind. Nothing is used before it is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject
from cameo_protocol.secagg.faults import PartyFault
from cameo_protocol.secagg.params import MAX_PARTIES, MAX_ROUNDS, Party

HASH_BYTES = 32
BODY_SLACK = 512  # field names and fixed-size fields of a body
MASKED_LANE_BYTES = 4


def _exactly(name: str, length: int) -> Any:
    return field(metadata={"wire": name, "fits": lambda v: isinstance(v, bytes) and len(v) == length})


def _rows(name: str, row: int) -> Any:
    """A blob of whole rows; how many there must be is checked by who knows the cohort."""
    return field(metadata={"wire": name, "fits": lambda v: isinstance(v, bytes) and len(v) % row == 0})


def _whole(name: str, low: int, high: int) -> Any:
    return field(metadata={"wire": name, "fits": lambda v: type(v) is int and low <= v <= high})


def _text(name: str, longest: int) -> Any:
    return field(metadata={"wire": name, "fits": lambda v: isinstance(v, str) and len(v) <= longest})


def _short(name: str, longest: int) -> Any:
    return field(metadata={"wire": name, "fits": lambda v: isinstance(v, bytes) and 1 <= len(v) <= longest})


@dataclass(frozen=True, kw_only=True)
class Message:
    """Base: who sends it."""

    kind: ClassVar[str]
    sender: int = _whole("from", 1, MAX_PARTIES)


@dataclass(frozen=True, kw_only=True)
class Advert(Message):
    """ADV: the epoch as this party knows it, field by field, and its fresh public keys."""

    kind: ClassVar[str] = "adv"
    plan_id: bytes = _short("plan", 64)
    run_id: str = _text("run", 128)
    epoch: int = _whole("epoch", 0, 2**31 - 1)
    rounds: int = _whole("rounds", 1, MAX_ROUNDS)
    threshold: int = _whole("t", 1, MAX_PARTIES)
    colluders: int = _whole("c", 0, MAX_PARTIES)
    roster: bytes = _exactly("roster", HASH_BYTES)
    encoding: bytes = _exactly("encoding", HASH_BYTES)
    mlkem: bytes = _exactly("mlkem", 1184)
    x25519: bytes = _exactly("x25519", 32)


@dataclass(frozen=True, kw_only=True)
class Shares(Message):
    """SHR: per round the commitments to b and c (R rows each), and the hash of the box for each peer."""

    kind: ClassVar[str] = "shr"
    transcript: bytes = _exactly("T", HASH_BYTES)
    masks: bytes = _rows("masks", HASH_BYTES)
    openers: bytes = _rows("openers", HASH_BYTES)
    boxes: bytes = _rows("boxes", HASH_BYTES)


@dataclass(frozen=True, kw_only=True)
class Ready(Message):
    """RDY: for each round and peer the edge key wrapped under c (32 bytes a row) and its tag (16 bytes a row)."""

    kind: ClassVar[str] = "rdy"
    transcript: bytes = _exactly("T", HASH_BYTES)
    wrapped: bytes = _rows("wrapped", 32)
    tags: bytes = _rows("tags", 16)


@dataclass(frozen=True, kw_only=True)
class Upload(Message):
    """UPL: the header of a masked vector; `vector` is the SHA-256 of its little-endian bytes."""

    kind: ClassVar[str] = "upl"
    transcript: bytes = _exactly("T", HASH_BYTES)
    round_no: int = _whole("r", 0, MAX_ROUNDS)
    invited: bytes = _exactly("S", HASH_BYTES)
    context: bytes = _exactly("ctx", HASH_BYTES)
    vector: bytes = _exactly("y", HASH_BYTES)


@dataclass(frozen=True, kw_only=True)
class Ack(Message):
    """ACK: this party takes `survivors` (the hash over r, S, ctx, U and its vectors) as the only set of the round."""

    kind: ClassVar[str] = "ack"
    transcript: bytes = _exactly("T", HASH_BYTES)
    round_no: int = _whole("r", 0, MAX_ROUNDS)
    survivors: bytes = _exactly("U", HASH_BYTES)


@dataclass(frozen=True, kw_only=True)
class Reveal(Message):
    """REV: for each party of S, ascending, one 32-byte share: of b if it survived, of c if it dropped out."""

    kind: ClassVar[str] = "rev"
    transcript: bytes = _exactly("T", HASH_BYTES)
    round_no: int = _whole("r", 0, MAX_ROUNDS)
    survivors: bytes = _exactly("U", HASH_BYTES)
    shares: bytes = _rows("shares", 32)


M = TypeVar("M", bound=Message)


def seal(key: Ed25519PrivateKey, message: Message) -> bytes:
    """Sign a message; returns the envelope."""
    body = {f.metadata["wire"]: getattr(message, f.name) for f in fields(message)}
    return envelope.seal(key, _label(message.kind), {"kind": message.kind, **body})


def open_from(wanted: type[M], data: bytes, party: Party, *, max_bytes: int) -> M:
    """Verify that `data` is a message of kind `wanted` signed by and from `party`; otherwise a `PartyFault`.

    max_bytes: bound of the body, see `body_limit`.
    """
    try:
        body = envelope.open_envelope(data, party.identity, _label(wanted.kind), max_bytes=max_bytes)
        message = _parse(wanted, body)
    except Reject as error:
        raise PartyFault(error.code, party.index, what=error.what) from None
    if message.sender != party.index:
        raise PartyFault("sender-differs", party.index, what=f"its {wanted.kind} says it is from {message.sender}")
    return message


def body_limit(wanted: type[Message], *, parties: int, rounds: int) -> int:
    """The most bytes a body of this kind may have in an epoch."""
    rows = {Advert: 1536, Shares: 64 * rounds + 32 * parties, Ready: 48 * parties * rounds, Reveal: 32 * parties}
    return BODY_SLACK + rows.get(wanted, 0)


def envelope_limit(wanted: type[Message], *, parties: int, rounds: int) -> int:
    """The most bytes an envelope of this kind may have in an epoch: what an edge allows an item of a bundle."""
    return body_limit(wanted, parties=parties, rounds=rounds) + envelope.OVERHEAD


def pack(items: Mapping[int, bytes]) -> bytes:
    """Messages of several parties as one body: canonical CBOR list of [index, bytes], ascending."""
    return canonical.encode([[index, items[index]] for index in sorted(items)])


def unpack(data: bytes, *, max_item_bytes: int, max_items: int = MAX_PARTIES) -> dict[int, bytes]:
    """Index -> bytes from `pack`; duplicates, disorder, indices outside 1..255 and too long items are a `Reject`."""
    rows = canonical.decode(data, max_bytes=16 + max_items * (max_item_bytes + 16))
    if not isinstance(rows, list) or len(rows) > max_items:
        raise Reject("bundle-malformed", what=f"not a list of at most {max_items} messages")
    items: dict[int, bytes] = {}
    last = 0
    for row in rows:
        match row:
            case [index, bytes(item)] if type(index) is int and last < index <= MAX_PARTIES:
                if len(item) > max_item_bytes:
                    raise Reject("bundle-malformed", what=f"a message of {len(item)} bytes")
                items[index] = item
                last = index
            case _:
                raise Reject("bundle-malformed", what="a message is out of order or not [index, bytes]")
    return items


def _label(kind: str) -> str:
    return f"secagg/{kind}"


def _parse(wanted: type[M], body: object) -> M:
    known: dict[str, tuple[str, Callable[[object], bool]]] = {
        f.metadata["wire"]: (f.name, f.metadata["fits"]) for f in fields(wanted)
    }
    if not isinstance(body, dict) or body.keys() != {"kind", *known}:
        raise Reject("message-malformed", what=f"its {wanted.kind} has not exactly the fields of its kind")
    if body["kind"] != wanted.kind:
        raise Reject("message-malformed", what=f"a message of another kind where {wanted.kind} is needed")
    for wire, (_, fits) in known.items():
        if not fits(body[wire]):
            raise Reject("message-malformed", what=f"field {wire} of its {wanted.kind} is out of range")
    return wanted(**{name: body[wire] for wire, (name, _) in known.items()})
