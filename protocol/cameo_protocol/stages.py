"""What the coordinator and a hospital say to each other, stage by stage.

admit -> adv -> shr -> rdy -> (upload -> ack -> reveal) x rounds -> publish | finish. Requests are canonical CBOR;
the plan, the published models and every answer that binds a hospital are signed envelopes. The messages of the
secure sum itself are in `secagg`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol import canonical, envelope
from cameo_protocol.errors import Reject
from cameo_protocol.heads import Rows
from cameo_protocol.layout import ROUND_KINDS, RoundKind
from cameo_protocol.packet import Packet
from cameo_protocol.secagg.messages import pack, unpack
from cameo_protocol.secagg.params import RoundStart

ADMIT: Final = "admit"
ADVERTISE: Final = "adv"
SHARE: Final = "shr"
READY: Final = "rdy"
UPLOAD: Final = "upload"
ACK: Final = "ack"
REVEAL: Final = "reveal"
PUBLISH: Final = "publish"
FINISH: Final = "finish"
ERROR: Final = "error"

MAX_BODY: Final = 64 << 20
MAX_SETUP_ITEM: Final = 4 << 20
MAX_ROUND_ITEM: Final = 1 << 14
MAX_HEAD_ITEM: Final = 1 << 10
MAX_ADMISSION: Final = 4 << 20
# The one code of a hospital's own trouble that it tells: its ledger is behind what it once signed.
ROLLED_BACK: Final = "ledger-rolled-back"
Answer = Literal["accept", "declined-policy", "declined-local"]
ANSWERS: Final[tuple[Answer, ...]] = ("accept", "declined-policy", "declined-local")


def _fields(value: Any, kinds: dict[str, type], stage: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(kinds):
        raise Reject("message-malformed", what=f"a {stage} message with other fields than {sorted(kinds)}")
    for name, kind in kinds.items():
        if type(value[name]) is not kind:
            raise Reject("message-malformed", what=f"field {name} of a {stage} message is no {kind.__name__}")
    return value


def _listed(rows: Rows) -> list[list[bytes]]:
    return [[identity, head] for identity, head in rows]


def _rows(value: list[Any]) -> Rows:
    rows = []
    for row in value:
        match row:
            case [bytes(identity), bytes(head)] if len(identity) == 32 and len(head) <= MAX_HEAD_ITEM:
                rows.append((identity, head))
            case _:
                raise Reject("message-malformed", what="not an identity and its head")
    return tuple(rows)


def _former(value: list[Any]) -> dict[int, tuple[bytes, ...]]:
    found: dict[int, tuple[bytes, ...]] = {}
    for row in value:
        match row:
            case [index, list(keys)] if type(index) is int and max(found, default=0) < index <= 255:
                if not all(isinstance(key, bytes) and len(key) == 32 for key in keys):
                    raise Reject("message-malformed", what="a former identity that is no key")
                found[index] = tuple(keys)
            case _:
                raise Reject("message-malformed", what="not an index and former identities")
    return found


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """The coordinator asks a hospital to take part in a run.

    plan: the plan's canonical bytes. heads: the newest heads of the hospitals' ledgers that the coordinator was told,
    one a data set, each with the identity that signed it. former: Shamir index -> identities under which a hospital
    of that name was here before; `heads` has theirs too.
    """

    run: str
    plan: bytes
    heads: Rows = ()
    former: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)

    def seal(self, key: Ed25519PrivateKey) -> bytes:
        """Signed with the coordinator's plan key."""
        former = [[index, list(self.former[index])] for index in sorted(self.former)]
        body = {"run": self.run, "plan": self.plan, "heads": _listed(self.heads), "former": former}
        return envelope.seal(key, "admit", body)

    @classmethod
    def open(cls, body: bytes, coordinator: bytes) -> Self:
        """Verify against the coordinator's 32-byte public key; otherwise `Reject`."""
        value = envelope.open_envelope(body, coordinator, "admit", max_bytes=MAX_BODY)
        value = _fields(value, {"run": str, "plan": bytes, "heads": list, "former": list}, ADMIT)
        former = _former(value["former"])
        return cls(run=value["run"], plan=value["plan"], heads=_rows(value["heads"]), former=former)


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A hospital's answer to an invitation. The reason of a decline stays in the hospital.

    head: of its ledger, signed (`heads.LedgerHead`). peers: the heads of others that it remembers, each with the
    identity that signed it.
    """

    run: str
    plan_id: bytes
    answer: Answer
    head: bytes = b""
    peers: Rows = ()

    def seal(self, key: Ed25519PrivateKey) -> bytes:
        """Signed with the hospital's identity key."""
        body = {"run": self.run, "plan": self.plan_id, "answer": self.answer}
        return envelope.seal(key, "admission", {**body, "head": self.head, "peers": _listed(self.peers)})

    @classmethod
    def open(cls, body: bytes, identity: bytes) -> Self:
        """Verify against the hospital's identity; otherwise `Reject`."""
        value = envelope.open_envelope(body, identity, "admission", max_bytes=MAX_ADMISSION)
        value = _fields(value, {"run": str, "plan": bytes, "answer": str, "head": bytes, "peers": list}, ADMIT)
        if value["answer"] not in ANSWERS:
            raise Reject("message-malformed", what="an answer to an invitation that is none of the three")
        peers = _rows(value["peers"])
        return cls(run=value["run"], plan_id=value["plan"], answer=value["answer"], head=value["head"], peers=peers)


@dataclass(frozen=True, kw_only=True)
class EpochCall:
    """Opens the set-up of an epoch: its number, how many rounds it covers, and which hospitals take part."""

    run: str
    epoch: int
    rounds: int
    parties: tuple[int, ...]

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return canonical.encode(
            {"run": self.run, "epoch": self.epoch, "rounds": self.rounds, "parties": list(self.parties)}
        )

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Strict; otherwise `Reject`."""
        value = canonical.decode(body, max_bytes=1 << 16)
        value = _fields(value, {"run": str, "epoch": int, "rounds": int, "parties": list}, ADVERTISE)
        return cls(run=value["run"], epoch=value["epoch"], rounds=value["rounds"], parties=_indices(value["parties"]))


@dataclass(frozen=True, kw_only=True)
class RoundCall:
    """Opens a round. The vector beside it: parameters of all trained tasks in plan order, little-endian float32.

    round_no: within the epoch, from 0. step: opened training sums so far. heads: of the hospitals' ledgers, as each
    signed its own last (`heads.LedgerHead`); all hospitals of a round get, and sign, the same ones. receipts: the
    coordinator's signatures on these heads (`heads.countersign`), by the same indices.
    The answer to it is a pair: the header of the secure sum, and the hospital's signed head.
    """

    run: str
    epoch: int
    round_no: int
    kind: RoundKind
    step: int
    invited: tuple[int, ...]
    heads: Mapping[int, bytes] = field(default_factory=dict)
    receipts: Mapping[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return canonical.encode(
            {
                "run": self.run,
                "epoch": self.epoch,
                "round": self.round_no,
                "kind": self.kind,
                "step": self.step,
                "invited": list(self.invited),
                "heads": pack(self.heads),
                "receipts": pack(self.receipts),
            }
        )

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Strict; otherwise `Reject`."""
        kinds = {"run": str, "epoch": int, "round": int, "kind": str, "step": int, "invited": list}
        kinds |= {"heads": bytes, "receipts": bytes}
        value = _fields(canonical.decode(body, max_bytes=1 << 19), kinds, UPLOAD)
        if value["kind"] not in ROUND_KINDS:
            raise Reject("message-malformed", what="a round of a kind that does not exist")
        return cls(
            run=value["run"],
            epoch=value["epoch"],
            round_no=value["round"],
            kind=value["kind"],
            step=value["step"],
            invited=_indices(value["invited"]),
            heads=unpack(value["heads"], max_item_bytes=MAX_HEAD_ITEM),
            receipts=unpack(value["receipts"], max_item_bytes=MAX_HEAD_ITEM),
        )

    def model_hash(self, parameters: bytes) -> bytes:
        """32 bytes that bind the round's configuration and the global model; equal for all hospitals of a round."""
        return canonical.digest("round-context", [self.encode(), parameters])

    def start(self, model_hash: bytes) -> RoundStart:
        """What the secure sum knows of this round. model_hash: from `model_hash`."""
        return RoundStart(
            round_no=self.round_no, kind=self.kind, invited=frozenset(self.invited), model_hash=model_hash
        )


@dataclass(frozen=True, kw_only=True)
class SurvivorsCall:
    """Asks for an acknowledgement; names the whole round, so that a member without an upload in it can answer too.

    model_hash: `RoundCall.model_hash` of the round. headers: the survivors' signed headers, by index.
    """

    call: RoundCall
    model_hash: bytes
    headers: Mapping[int, bytes]

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return canonical.encode([self.call.encode(), self.model_hash, pack(self.headers)])

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Strict; otherwise `Reject`."""
        match canonical.decode(body, max_bytes=MAX_BODY):
            case [bytes(call), bytes(model_hash), bytes(headers)]:
                found = unpack(headers, max_item_bytes=MAX_ROUND_ITEM)
                return cls(call=RoundCall.decode(call), model_hash=model_hash, headers=found)
        raise Reject("message-malformed", what="not a round, the hash of its model, and headers")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The end of a run that went well: the models by task name, and the model card (JSON)."""

    run: str
    plan_id: bytes
    models: dict[str, bytes]
    card: bytes

    def seal(self, key: Ed25519PrivateKey) -> bytes:
        """Signed with the coordinator's plan key."""
        body = {"run": self.run, "plan": self.plan_id, "models": self.models, "card": self.card}
        return envelope.seal(key, "publish", body)

    @classmethod
    def open(cls, body: bytes, coordinator: bytes) -> Self:
        """Verify against the coordinator's key; otherwise `Reject`."""
        value = envelope.open_envelope(body, coordinator, "publish", max_bytes=MAX_BODY)
        value = _fields(value, {"run": str, "plan": bytes, "models": dict, "card": bytes}, PUBLISH)
        if not all(isinstance(model, bytes) for model in value["models"].values()):
            raise Reject("message-malformed", what="a published model that is not bytes")
        return cls(run=value["run"], plan_id=value["plan"], models=value["models"], card=value["card"])


def finish_body(key: Ed25519PrivateKey, run: str) -> bytes:
    """The signed end of a run that publishes nothing: hospitals free what they had reserved."""
    return envelope.seal(key, "finish", {"run": run})


def open_finish(body: bytes, coordinator: bytes) -> str:
    """The run that ended; `Reject` when the coordinator did not sign it."""
    value = envelope.open_envelope(body, coordinator, "finish", max_bytes=4096)
    run: str = _fields(value, {"run": str}, FINISH)["run"]
    return run


def error_packet(code: str) -> Packet:
    """An answer that says only a stable code of ours."""
    return Packet(ERROR, canonical.encode({"code": code}))


def error_code(body: bytes) -> str:
    """The code of an error answer; "unreadable" when it is none."""
    try:
        value = canonical.decode(body, max_bytes=4096)
    except Reject:
        return "unreadable"
    code = value.get("code") if isinstance(value, dict) else None
    return code if isinstance(code, str) and len(code) <= 64 else "unreadable"


def pair(first: bytes, second: bytes) -> bytes:
    """Two byte strings as one body."""
    return canonical.encode([first, second])


def unpair(body: bytes) -> tuple[bytes, bytes]:
    """The inverse of `pair`; otherwise `Reject`."""
    match canonical.decode(body, max_bytes=MAX_BODY):
        case [bytes(first), bytes(second)]:
            return first, second
    raise Reject("message-malformed", what="not a pair of byte strings")


def _indices(value: list[Any]) -> tuple[int, ...]:
    if not all(type(item) is int and 1 <= item <= 255 for item in value) or sorted(set(value)) != value:
        raise Reject("message-malformed", what="a list of hospitals that is not sorted, unique and in 1..255")
    return tuple(value)
