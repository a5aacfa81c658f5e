"""The hospital's side of joining: init, review, accept."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_client import membership as m
from cameo_client.home import DataConfig, NodeHome, load_config, load_identity, load_pseudonym_key, write_file
from cameo_client.policy_file import load_policy
from cameo_protocol.envelope import fingerprint
from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import Federation, read_card, write_federation
from cameo_protocol.plan import Cohort, Site

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
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
COORDINATOR = Ed25519PrivateKey.generate()


def new_node(root: Path, site: str = "hospital-1", key: bytes | None = None) -> NodeHome:
    home = NodeHome(root)
    m.init_node(home, site=site, data=DataConfig(kind="table", path="/data/x.csv"), now=NOW, pseudonym_key=key)
    return home


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return new_node(tmp_path / "node")


def roster(home: NodeHome, n: int = 4) -> list[Site]:
    own = m.identity_bytes(load_identity(home)).hex()
    return [Site(name=f"hospital-{i}", index=i, identity=own if i == 1 else f"{i:064x}") for i in range(1, n + 1)]


def federation_file(
    sites: list[Site], serial: int = 1, key: Ed25519PrivateKey = COORDINATOR, host: str = "c.example.org"
) -> bytes:
    federation = Federation(
        name="demo",
        serial=serial,
        issued="2026-11-24T08:00:00Z",
        host=host,
        fleet_port=9092,
        ca_pem=CA_PEM,
        coordinator=m.identity_bytes(key).hex(),
        cohort=Cohort(sites=tuple(sites), threshold=2 * len(sites) // 3 + 1, colluders=1),
    )
    return write_federation(federation, key)


def refused(home: NodeHome, raw: bytes) -> OperatorError:
    before = sorted(path.name for path in home.root.iterdir())
    with pytest.raises(OperatorError) as caught:
        m.review(home, raw)
    assert caught.value.do
    assert sorted(path.name for path in home.root.iterdir()) == before
    return caught.value


def test_init_makes_keys_that_only_the_owner_reads(home: NodeHome) -> None:
    keys = [home.identity_key, home.node_key, home.pseudonym_key]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3
    assert home.pseudonym_key.parent != home.identity_key.parent
    assert load_config(home).data == DataConfig(name="patients", kind="table", path="/data/x.csv")
    card = read_card(home.card.read_bytes())
    assert card.name == "hospital-1"
    assert card.identity == m.identity_bytes(load_identity(home)).hex()


def test_no_secret_is_in_what_leaves(home: NodeHome) -> None:
    public = home.card.read_bytes()
    for key in (home.identity_key, home.node_key, home.pseudonym_key):
        secret = key.read_bytes()
        assert all(line not in public for line in secret.splitlines() if len(line) > 30)
    assert b"/data" not in public


def test_two_hospitals_share_no_key(tmp_path: Path) -> None:
    one, two = new_node(tmp_path / "1"), new_node(tmp_path / "2")
    for path in ("identity_key", "node_key", "pseudonym_key"):
        assert getattr(one, path).read_bytes() != getattr(two, path).read_bytes()


def test_init_refuses_a_finished_home_and_goes_on_with_an_interrupted_one(home: NodeHome) -> None:
    with pytest.raises(OperatorError) as caught:
        new_node(home.root)
    assert caught.value.code == "already-initialised"
    keys = [home.identity_key.read_bytes(), home.node_key.read_bytes(), home.pseudonym_key.read_bytes()]
    home.config.unlink()
    new_node(home.root)
    assert [home.identity_key.read_bytes(), home.node_key.read_bytes(), home.pseudonym_key.read_bytes()] == keys


def test_an_imported_pseudonym_key_is_kept(tmp_path: Path) -> None:
    old = new_node(tmp_path / "old")
    key = load_pseudonym_key(old.pseudonym_key)
    again = new_node(tmp_path / "again", key=key)
    assert load_pseudonym_key(again.pseudonym_key) == key
    assert again.identity_key.read_bytes() != old.identity_key.read_bytes()


def test_a_pseudonym_key_is_never_replaced(home: NodeHome) -> None:
    home.config.unlink()
    key = home.pseudonym_key.read_bytes()
    with pytest.raises(OperatorError) as caught:
        new_node(home.root, key=bytes(32))
    assert caught.value.code == "pseudonym-key-differs"
    assert home.pseudonym_key.read_bytes() == key


def test_init_refuses_a_bad_name_before_it_writes(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        new_node(tmp_path / "node", site="St. Mary")
    assert caught.value.code == "option-invalid"
    assert not (tmp_path / "node").exists()


def test_the_first_review_shows_everyone(home: NodeHome) -> None:
    review = m.review(home, federation_file(roster(home)))
    assert review.first
    assert review.changed
    assert review.joined == {s.name: fingerprint(bytes.fromhex(s.identity)) for s in roster(home)}
    assert not home.policy.exists()


def test_accept_writes_a_valid_policy_and_the_file(home: NodeHome) -> None:
    raw = federation_file(roster(home))
    m.accept(home, m.review(home, raw))
    assert home.federation.read_bytes() == raw
    policy = load_policy(home.policy).policy
    assert policy.coordinator == fingerprint(m.identity_bytes(COORDINATOR))
    assert policy.peers == {s.name: fingerprint(bytes.fromhex(s.identity)) for s in roster(home)}
    member = m.load_membership(home)
    assert member.index == 1
    assert member.federation.cohort.sites == tuple(roster(home))


def test_the_same_file_again_changes_nothing(home: NodeHome) -> None:
    raw = federation_file(roster(home))
    m.accept(home, m.review(home, raw))
    assert not m.review(home, raw).changed


def test_a_grown_roster_shows_only_what_changed(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home))))
    review = m.review(home, federation_file(roster(home, 5), serial=2))
    assert not review.first
    assert list(review.joined) == ["hospital-5"]
    assert review.left == ()
    assert review.terms == (("threshold", "3", "4"),)


def test_a_left_peer_a_new_key_and_a_new_address_are_shown(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home))))
    sites = [s for s in roster(home) if s.name != "hospital-3"]
    sites[1] = sites[1].model_copy(update={"identity": "ff" * 32})
    review = m.review(home, federation_file(sites, serial=2, host="new.example.org"))
    assert list(review.joined) == ["hospital-2"]
    assert review.left == ("hospital-3",)
    assert review.terms == (("address", "c.example.org:9092", "new.example.org:9092"),)


def test_what_the_officer_wrote_stays(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home))))
    text = home.policy.read_text().replace("epsilon_per_year: 3 ", "epsilon_per_year: 2 ") + "# my note\n"
    home.policy.write_text(text)
    m.accept(home, m.review(home, federation_file(roster(home, 5), serial=2)))
    policy = load_policy(home.policy).policy
    assert policy.caps.epsilon_per_year == 2
    assert "hospital-5" in policy.peers
    assert home.policy.read_text().endswith("# my note\n")


def test_a_peer_that_the_officer_took_out_is_asked_for_again(home: NodeHome) -> None:
    raw = federation_file(roster(home))
    m.accept(home, m.review(home, raw))
    rows = [row for row in home.policy.read_text().splitlines(keepends=True) if "hospital-4" not in row]
    home.policy.write_text("".join(rows))
    assert list(m.review(home, raw).joined) == ["hospital-4"]


def test_a_roster_without_this_hospital_is_refused(home: NodeHome) -> None:
    assert refused(home, federation_file(roster(home)[1:])).code == "not-in-roster"


def test_a_roster_with_another_key_for_this_hospital_is_refused(home: NodeHome) -> None:
    sites = roster(home)
    sites[0] = sites[0].model_copy(update={"identity": "ff" * 32})
    error = refused(home, federation_file(sites))
    assert (error.code, error.exit_code) == ("not-in-roster", ExitCode.AUTH)


def test_another_coordinator_is_refused(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home))))
    error = refused(home, federation_file(roster(home), serial=2, key=Ed25519PrivateKey.generate()))
    assert (error.code, error.exit_code) == ("coordinator-changed", ExitCode.AUTH)


def test_an_older_file_is_refused(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home), serial=2)))
    assert refused(home, federation_file(roster(home, 5), serial=1)).code == "federation-old"


def test_garbage_is_refused(home: NodeHome) -> None:
    assert refused(home, b"garbage").code == "federation-invalid"


def test_a_policy_without_its_marks_is_refused_and_kept(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home))))
    text = home.policy.read_text().replace("# --- approved: end ---", "")
    home.policy.write_text(text)
    before = home.federation.read_bytes()
    review = m.review(home, federation_file(roster(home, 5), serial=2))
    with pytest.raises(OperatorError) as caught:
        m.accept(home, review)
    assert caught.value.code == "policy-marks"
    assert (home.policy.read_text(), home.federation.read_bytes()) == (text, before)


def test_membership_needs_an_accepted_file(home: NodeHome) -> None:
    with pytest.raises(OperatorError) as caught:
        m.load_membership(home)
    assert caught.value.code == "not-accepted"


def test_membership_refuses_files_that_do_not_fit_each_other(home: NodeHome) -> None:
    m.accept(home, m.review(home, federation_file(roster(home))))
    other = Ed25519PrivateKey.generate()
    write_file(home.federation, federation_file(roster(home), key=other))
    with pytest.raises(OperatorError) as caught:
        m.load_membership(home)
    assert (caught.value.code, caught.value.exit_code) == ("coordinator-not-approved", ExitCode.POLICY)
    write_file(home.federation, b"damaged")
    with pytest.raises(OperatorError, match="no JSON") as caught:
        m.load_membership(home)
    assert "move" in caught.value.do
