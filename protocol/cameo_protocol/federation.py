"""The two files with which a federation is made by hand: a hospital's card and the coordinator's federation file.

A **card** (`public.json`) goes from a hospital to the coordinator; it proves that the hospital holds both private
keys that it names. A **federation file** (`federation.json`) comes back: where the coordinator is, its CA, its
plan-signing key and the roster. Whoever carries the files may read them; nothing in them is secret. What makes
them trustworthy is that people compare fingerprints (design page "secure-sum", Parties).

Both are canonical JSON (sorted keys, no spaces) of {"body", "kind", "signature" ...}. A file that is not byte for
byte what we would have written is refused, so no two readings of one file exist.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Annotated, Literal, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.faults import faults
from cameo_protocol.plan import Cohort, Hex32, Name, Site

MAX_FILE_BYTES = 1 << 18
_CARD = "cameo-public-card"
_FEDERATION = "cameo-federation"
_HEX = re.compile(r"([0-9a-f]{2})+")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def check_host(text: str) -> str:
    """A DNS name or an IP address, returned unchanged; ValueError for anything else.

    >>> check_host("coordinator.example.org"), check_host("10.0.0.7")
    ('coordinator.example.org', '10.0.0.7')
    """
    try:
        if "%" in text:  # an IPv6 zone means something on one machine only
            raise ValueError
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.removesuffix(".").split(".")
        if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
            raise ValueError("not a host name or IP address") from None
    return text


def ca_fingerprint(pem: str) -> str:
    """SHA-256 of the one CA certificate in `pem`, as `fingerprint` writes it; ValueError when it is not that."""
    certificates = x509.load_pem_x509_certificates(pem.encode())
    if len(certificates) != 1:
        raise ValueError("not exactly one certificate")
    try:
        constraints = certificates[0].extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError("not a CA certificate") from None
    if not constraints.ca:
        raise ValueError("not a CA certificate")
    return fingerprint(certificates[0].public_bytes(serialization.Encoding.DER))


def _ca(pem: str) -> str:
    ca_fingerprint(pem)
    return pem


Host = Annotated[str, AfterValidator(check_host)]
CaPem = Annotated[str, Field(max_length=8192), AfterValidator(_ca)]
Port = Annotated[int, Field(ge=1, le=65535)]
Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Point = Annotated[str, Field(pattern=r"^0[23][0-9a-f]{96}$")]


class _Frozen(BaseModel, frozen=True, extra="forbid", strict=True):
    """Base of every part of both files."""


class SiteCard(_Frozen):
    """Who a hospital is. identity: Ed25519 public key, hex; node_key: compressed P-384 point of its Flower key, hex."""

    version: Literal[1] = 1
    name: Name
    identity: Hex32
    node_key: Point
    created: Timestamp

    def fingerprint(self) -> str:
        """What the coordinator's people and the hospital's compare by phone."""
        return fingerprint(bytes.fromhex(self.identity))


class Federation(_Frozen):
    """What a hospital needs to know to take part.

    serial: grows with every issue, so that an old file cannot replace a newer one. host, fleet_port, operator_port:
    where the coordinator's Fleet API and its operator interface answer over TLS. ca_pem: the one certificate
    authority to trust there. coordinator: Ed25519 public key that signs plans and this file, hex. cohort: roster,
    threshold, colluders.
    """

    version: Literal[1] = 1
    name: Name
    serial: int = Field(ge=1)
    issued: Timestamp
    host: Host
    fleet_port: Port
    operator_port: Port = 9093
    ca_pem: CaPem
    coordinator: Hex32
    cohort: Cohort

    @property
    def address(self) -> str:
        """host:port of the Fleet API, with brackets around an IPv6 address."""
        return _address(self.host, self.fleet_port)

    @property
    def operator_address(self) -> str:
        """host:port of the operator interface, with brackets around an IPv6 address."""
        return _address(self.host, self.operator_port)

    def fingerprint(self) -> str:
        """The coordinator's, for the officer to compare by phone."""
        return fingerprint(bytes.fromhex(self.coordinator))

    def site(self, name: str) -> Site | None:
        """The roster's entry of that name, if there is one."""
        return next((site for site in self.cohort.sites if site.name == name), None)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def default_threshold(n: int) -> int:
    """How many of n hospitals must answer to open a sum: floor(2n/3) + 1. Source: secure-sum, Round r."""
    return 2 * n // 3 + 1


def default_colluders(n: int) -> int:
    """How many colluding hospitals the default cohort covers: one, or fewer where 2t - n - 1 allows none."""
    return max(0, min(1, 2 * default_threshold(n) - n - 1))


def node_key_hex(key: ec.EllipticCurvePublicKey) -> str:
    """A P-384 public key as its compressed point, hex (SEC 1, 2.3.3)."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint).hex()


def node_key_pem(text: str) -> bytes:
    """The PEM form of a card's node key: what Flower registers. ValueError when it is no point of the curve."""
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), bytes.fromhex(text))
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN: one byte string for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def write_card(card: SiteCard, identity: Ed25519PrivateKey, node: ec.EllipticCurvePrivateKey) -> bytes:
    """The bytes of `public.json`: the card, signed with both keys that it names."""
    body = card.model_dump(mode="json")
    text = _to_sign(_CARD, canonical_json(body))
    return _document(
        _CARD,
        body,
        signature=identity.sign(text).hex(),
        node_signature=node.sign(text, ec.ECDSA(hashes.SHA384())).hex(),
    )


def read_card(raw: bytes) -> SiteCard:
    """Read `public.json` and check that its writer held both private keys; otherwise `OperatorError`."""
    try:
        fields = _open_document(raw, _CARD, {"signature", "node_signature"})
        body = canonical_json(fields["body"])
        card = SiteCard.model_validate_json(body)
        text = _to_sign(_CARD, body)
        _verify(card.identity, fields["signature"], text)
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), bytes.fromhex(card.node_key))
        point.verify(_hex(fields["node_signature"]), text, ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature, RecursionError) as error:
        _refuse("card-invalid", "a hospital's public card", error, "ask the hospital for its public.json again")
    return card


def write_federation(federation: Federation, key: Ed25519PrivateKey) -> bytes:
    """The bytes of `federation.json`, signed with the coordinator's plan key."""
    body = federation.model_dump(mode="json")
    signature = key.sign(_to_sign(_FEDERATION, canonical_json(body))).hex()
    return _document(_FEDERATION, body, signature=signature)


def read_federation(raw: bytes) -> Federation:
    """Read `federation.json` and check it against the key that it names; otherwise `OperatorError`.

    The first time, only the officer's comparison of fingerprints tells whether that key is the coordinator's.
    """
    try:
        fields = _open_document(raw, _FEDERATION, {"signature"})
        body = canonical_json(fields["body"])
        federation = Federation.model_validate_json(body)
        if canonical_json(federation.model_dump(mode="json")) != body:
            raise ValueError("a number or a text is written in another way than ours")
        _verify(federation.coordinator, fields["signature"], _to_sign(_FEDERATION, body))
    except (ValueError, InvalidSignature, RecursionError) as error:
        _refuse("federation-invalid", "a federation file", error, "ask the coordinator for federation.json again")
    return federation


def _to_sign(kind: str, body: bytes) -> bytes:
    return b"cameo/file/" + kind.encode() + b"\0" + body


def _document(kind: str, body: object, **signatures: str) -> bytes:
    return canonical_json({"kind": kind, "body": body, **signatures}) + b"\n"


def _open_document(raw: bytes, kind: str, signatures: set[str]) -> dict[str, object]:
    """The fields of a document of that kind; ValueError unless it is canonical. White space around it is allowed."""
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"{len(raw)} bytes; at most {MAX_FILE_BYTES} are read")
    fields = json.loads(raw)
    if not isinstance(fields, dict) or fields.keys() != {"kind", "body", *signatures}:
        raise ValueError("not the fields of such a file")
    if fields["kind"] != kind:
        raise ValueError("another kind of file")
    if canonical_json(fields) != raw.strip():
        raise ValueError("changed on the way: not in its canonical form")
    return fields


def _hex(text: object) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ValueError("a signature is not in hex")
    return bytes.fromhex(text)


def _verify(identity: str, signature: object, text: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity)).verify(_hex(signature), text)


def _refuse(code: str, thing: str, error: Exception, do: str) -> NoReturn:
    if isinstance(error, InvalidSignature):
        what, exit_code = f"{thing} is not signed by the key it names", ExitCode.AUTH
    elif isinstance(error, ValidationError):
        what, exit_code = f"not {thing}: {faults(error)}", ExitCode.USAGE
    elif isinstance(error, UnicodeDecodeError | json.JSONDecodeError | RecursionError):
        what, exit_code = f"not {thing}: no JSON in it", ExitCode.USAGE
    else:
        what, exit_code = f"not {thing}: {error}", ExitCode.USAGE
    raise OperatorError(code, what=what, do=do, exit=exit_code) from None
