"""The two exchanged files: what is written is read, and garbage, forgeries and foreign keys are refused."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from cameo_protocol import federation as fed
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.plan import Cohort, Site

CREATED = "2026-11-24T08:00:00Z"
# A P-256 CA certificate of 2026-2046, made once with openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256
# -addext basicConstraints=critical,CA:TRUE,pathlen:0 -days 7305 -subj "/CN=test CA"
CA_PEM = """-----BEGIN CERTIFICATE-----
MIIBezCCASKgAwIBAgIUSOxXuk+0fdcI35F7CmLGFcH4rM4wCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHdGVzdCBDQTAeFw0yNjExMjQwODA3MDhaFw00NjExMjQwODA3
MDhaMBIxEDAOBgNVBAMMB3Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARoV4ZFX6+ZPzsKgM/g4C7lszTVUdEGv4f0YyuHiMw091ehOpMnoczPMn6/UJ+i
R/qLJ+8RXPHFXhTL0hi7l6abo1YwVDAdBgNVHQ4EFgQUX0SrTgZMz/Eg0H2Wjx8y
ZPnO9AIwHwYDVR0jBBgwFoAUX0SrTgZMz/Eg0H2Wjx8yZPnO9AIwEgYDVR0TAQH/
BAgwBgEB/wIBADAKBggqhkjOPQQDAgNHADBEAiAcDKYjyPTJWL5iAOtusx9UsVIB
q3Lzml5nb2UWj4EQaQIgdknwsIubPfRCUFzbwjFqJp1gR3ML5vi6lme+GR+fPxA=
-----END CERTIFICATE-----
"""
LEAF_PEM = """-----BEGIN CERTIFICATE-----
MIIBejCCASCgAwIBAgIUFBBfIhw/LIzBtzsBJwggIw1/sd0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJdGVzdCBsZWFmMB4XDTI2MTEyNDA4MDcwOFoXDTQ2MTEyNDA4
MDcwOFowFDESMBAGA1UEAwwJdGVzdCBsZWFmMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEaEH1Br9B0D4flbKH3HOfkGExQzUVdtGlOn1ilKD0d6b02VhJN3xc/wlU
3KoAfHC2mwn5mftT0JI2kxmWbfnArqNQME4wHQYDVR0OBBYEFHiqCqhVXknB5znz
ijJ4+4yrOYYDMB8GA1UdIwQYMBaAFHiqCqhVXknB5znzijJ4+4yrOYYDMAwGA1Ud
EwEB/wQCMAAwCgYIKoZIzj0EAwIDSAAwRQIhAJab25+3TfgRLM1uVSfTqiUSgI9X
McNL364OYObYS3MMAiBcYXqH911ptMVsLSnGUySglUiSr6TdRfWGAtq711RbHQ==
-----END CERTIFICATE-----
"""


def raw_public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def card_of(
    name: str = "hospital-a", identity: Ed25519PrivateKey | None = None, node: ec.EllipticCurvePrivateKey | None = None
) -> tuple[fed.SiteCard, Ed25519PrivateKey, ec.EllipticCurvePrivateKey]:
    identity = identity or Ed25519PrivateKey.generate()
    node = node or ec.generate_private_key(ec.SECP384R1())
    card = fed.SiteCard(
        name=name, identity=raw_public(identity), node_key=fed.node_key_hex(node.public_key()), created=CREATED
    )
    return card, identity, node


def federation_of(key: Ed25519PrivateKey, **changes: object) -> fed.Federation:
    n = 4
    sites = tuple(Site(name=f"hospital-{i}", index=i, identity=f"{i:064x}") for i in range(1, n + 1))
    cohort = Cohort(sites=sites, threshold=fed.default_threshold(n), colluders=fed.default_colluders(n))
    values = {
        "name": "demo",
        "serial": 1,
        "issued": CREATED,
        "host": "coordinator.example.org",
        "fleet_port": 9092,
        "ca_pem": CA_PEM,
        "coordinator": raw_public(key),
        "cohort": cohort,
    }
    return fed.Federation(**(values | changes))  # type: ignore[arg-type]


def code_of(call: object, *args: object) -> str:
    with pytest.raises(OperatorError) as caught:
        call(*args)  # type: ignore[operator]
    assert caught.value.do
    return caught.value.code


def test_a_card_comes_back() -> None:
    card, identity, node = card_of()
    assert fed.read_card(fed.write_card(card, identity, node)) == card


def test_a_card_may_carry_white_space_from_the_mail_around_it() -> None:
    card, identity, node = card_of()
    assert fed.read_card(b"\r\n " + fed.write_card(card, identity, node) + b"\r\n") == card


def test_a_card_needs_both_private_keys() -> None:
    card, identity, node = card_of()
    with pytest.raises(OperatorError) as caught:
        fed.read_card(fed.write_card(card, Ed25519PrivateKey.generate(), node))
    assert caught.value.exit_code == ExitCode.AUTH
    assert (
        code_of(fed.read_card, fed.write_card(card, identity, ec.generate_private_key(ec.SECP384R1())))
        == "card-invalid"
    )


def test_a_card_is_no_federation_file() -> None:
    card, identity, node = card_of()
    assert code_of(fed.read_federation, fed.write_card(card, identity, node)) == "federation-invalid"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"kind":"cameo-public-card"}',
        b"[" * 100_000,
        b"9" * 10_000,
        b" " * (fed.MAX_FILE_BYTES + 1),
        b'{"body":NaN,"kind":"cameo-public-card","node_signature":"","signature":""}',
        b'{"body":{},"kind":"cameo-public-card","node_signature":1,"signature":[]}',
    ],
)
def test_garbage_is_refused_by_both_readers(raw: bytes) -> None:
    assert code_of(fed.read_card, raw) == "card-invalid"
    assert code_of(fed.read_federation, raw) == "federation-invalid"


def test_pretty_printing_counts_as_a_change() -> None:
    card, identity, node = card_of()
    pretty = json.dumps(json.loads(fed.write_card(card, identity, node)), indent=1).encode()
    with pytest.raises(OperatorError, match="canonical"):
        fed.read_card(pretty)


def test_a_doubled_key_is_refused() -> None:
    card, identity, node = card_of()
    raw = fed.write_card(card, identity, node).replace(b'"kind"', b'"kind":"x","kind"', 1)
    assert code_of(fed.read_card, raw) == "card-invalid"


def test_a_point_off_the_curve_is_refused() -> None:
    card, identity, node = card_of()
    for byte in range(8):  # half of all x have no point; eight tries miss with probability 1/256
        bad = card.model_copy(update={"node_key": "02" + f"{byte:096x}"})
        assert code_of(fed.read_card, fed.write_card(bad, identity, node)) == "card-invalid"


def test_node_key_pem_is_what_was_generated() -> None:
    node = ec.generate_private_key(ec.SECP384R1()).public_key()
    assert load_pem_public_key(fed.node_key_pem(fed.node_key_hex(node))) == node


def test_a_federation_comes_back() -> None:
    key = Ed25519PrivateKey.generate()
    federation = federation_of(key)
    assert fed.read_federation(fed.write_federation(federation, key)) == federation


def test_a_federation_signed_by_another_key_is_refused() -> None:
    federation = federation_of(Ed25519PrivateKey.generate())
    with pytest.raises(OperatorError) as caught:
        fed.read_federation(fed.write_federation(federation, Ed25519PrivateKey.generate()))
    assert caught.value.exit_code == ExitCode.AUTH


def test_a_number_written_as_text_is_refused_although_it_is_signed() -> None:
    key = Ed25519PrivateKey.generate()
    body = federation_of(key).model_dump(mode="json")
    body["cohort"]["threshold"] = "3"
    text = fed.canonical_json(body)
    signature = key.sign(b"cameo/file/cameo-federation\0" + text).hex()
    raw = fed.canonical_json({"kind": "cameo-federation", "body": body, "signature": signature})
    with pytest.raises(OperatorError, match="another way"):
        fed.read_federation(raw)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("host", "no host"),
        ("host", "-x.org"),
        ("host", "1.2.3"),
        ("host", "a.org\n"),
        ("host", "fe80::1%eth0"),
        ("host", "a" * 254),
        ("fleet_port", 0),
        ("fleet_port", 65536),
        ("serial", 0),
        ("issued", "yesterday"),
        ("ca_pem", "no certificate"),
        ("ca_pem", LEAF_PEM),
        ("ca_pem", CA_PEM + CA_PEM),
        ("coordinator", "00"),
        ("name", "Demo federation"),
        ("extra", 1),
    ],
)
def test_every_field_is_checked(change: str, value: object) -> None:
    with pytest.raises(ValueError, match=change):
        federation_of(Ed25519PrivateKey.generate(), **{change: value})


def test_address_brackets_ipv6() -> None:
    key = Ed25519PrivateKey.generate()
    assert federation_of(key).address == "coordinator.example.org:9092"
    assert federation_of(key, host="2001:db8::1").address == "[2001:db8::1]:9092"


def test_a_site_is_found_by_name() -> None:
    federation = federation_of(Ed25519PrivateKey.generate())
    site = federation.site("hospital-2")
    assert site is not None
    assert site.index == 2
    assert federation.site("hospital-9") is None


@pytest.mark.parametrize(("n", "t", "c"), [(3, 3, 1), (4, 3, 1), (5, 4, 1), (6, 5, 1), (9, 7, 1), (128, 86, 1)])
def test_defaults_of_a_cohort(n: int, t: int, c: int) -> None:
    assert (fed.default_threshold(n), fed.default_colluders(n)) == (t, c)


def test_ca_fingerprint_is_of_the_certificate() -> None:
    from cameo_protocol.envelope import fingerprint

    der = x509.load_pem_x509_certificate(CA_PEM.encode()).public_bytes(Encoding.DER)
    assert fed.ca_fingerprint(CA_PEM) == fingerprint(der)
