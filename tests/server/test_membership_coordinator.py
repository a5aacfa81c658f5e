"""The coordinator's side of joining: init, roster, federation file."""

from __future__ import annotations

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import OperatorError
from cameo_protocol.federation import SiteCard, node_key_hex, read_federation, write_card
from cameo_server import membership as m
from cameo_server import pki
from cameo_server.home import CoordinatorHome, load_config, load_ec

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def card(name: str, identity: Ed25519PrivateKey | None = None, node: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    identity = identity or Ed25519PrivateKey.generate()
    node = node or ec.generate_private_key(ec.SECP384R1())
    return write_card(
        SiteCard(
            name=name,
            identity=m.public_key(identity).hex(),
            node_key=node_key_hex(node.public_key()),
            created="2026-11-24T08:00:00Z",
        ),
        identity,
        node,
    )


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    home = CoordinatorHome(tmp_path / "coordinator")
    m.init_coordinator(home, federation="demo", host="coordinator.example.org", fleet_port=9092, now=NOW)
    return home


def joined(home: CoordinatorHome, n: int) -> CoordinatorHome:
    for i in range(n):
        m.add_site(home, card(f"hospital-{i}"), NOW)
    return home


def code_of(caught: pytest.ExceptionInfo[OperatorError]) -> str:
    assert caught.value.do
    return caught.value.code


def test_init_makes_keys_that_only_the_owner_reads(home: CoordinatorHome) -> None:
    keys = [home.ca_key, home.server_key, home.plan_key]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    config = load_config(home)
    assert (config.federation, config.host, config.fleet_port) == ("demo", "coordinator.example.org", 9092)
    assert m.list_sites(home) == []


def test_init_refuses_a_finished_home(home: CoordinatorHome) -> None:
    with pytest.raises(OperatorError) as caught:
        m.init_coordinator(home, federation="demo", host="localhost", fleet_port=9092, now=NOW)
    assert code_of(caught) == "already-initialised"


def test_an_interrupted_init_goes_on_with_its_keys(home: CoordinatorHome) -> None:
    ca, plan = home.ca_cert.read_bytes(), home.plan_key.read_bytes()
    home.config.unlink()
    m.init_coordinator(home, federation="demo", host="localhost", fleet_port=9092, now=NOW)
    assert (home.ca_cert.read_bytes(), home.plan_key.read_bytes()) == (ca, plan)


@pytest.mark.parametrize(
    ("federation", "host", "port"), [("Demo!", "localhost", 9092), ("demo", "no host", 9092), ("demo", "localhost", 0)]
)
def test_init_refuses_bad_options_before_it_writes(tmp_path: Path, federation: str, host: str, port: int) -> None:
    home = CoordinatorHome(tmp_path / "c")
    with pytest.raises(OperatorError) as caught:
        m.init_coordinator(home, federation=federation, host=host, fleet_port=port, now=NOW)
    assert code_of(caught) == "option-invalid"
    assert not home.root.exists()


def test_sites_get_indices_in_order_and_never_twice(home: CoordinatorHome) -> None:
    joined(home, 3)
    assert m.remove_site(home, "hospital-2", NOW).index == 3
    assert m.add_site(home, card("hospital-2"), NOW).index == 4
    assert [(s.name, s.index) for s in m.roster(home)] == [("hospital-0", 1), ("hospital-1", 2), ("hospital-2", 4)]


def test_former_keys_are_found_by_the_name_that_stays(home: CoordinatorHome) -> None:
    assert m.former_identities(home) == {}
    keys = []
    for _ in range(2):
        keys.append(m.add_site(home, card("hospital-2"), NOW).identity)
        m.remove_site(home, "hospital-2", NOW)
    m.add_site(home, card("hospital-2"), NOW)
    assert m.former_identities(home) == {"hospital-2": tuple(keys)}


def test_a_taken_name_or_key_is_refused(home: CoordinatorHome) -> None:
    identity, node = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
    m.add_site(home, card("a", identity, node), NOW)
    for other, field in (
        (card("a"), "name"),
        (card("b", identity=identity), "identity"),
        (card("b", node=node), "node_key"),
    ):
        with pytest.raises(OperatorError, match=field) as caught:
            m.add_site(home, other, NOW)
        assert code_of(caught) == "site-known"
    assert len(m.list_sites(home)) == 1


def test_garbage_and_strangers_change_nothing(home: CoordinatorHome) -> None:
    with pytest.raises(OperatorError):
        m.add_site(home, b"garbage", NOW)
    with pytest.raises(OperatorError) as caught:
        m.remove_site(home, "nobody", NOW)
    assert code_of(caught) == "site-unknown"
    assert m.list_sites(home) == []


def test_the_roster_ends_at_255(home: CoordinatorHome) -> None:
    with m.open_roster(home) as db:
        db.execute("INSERT INTO sites VALUES (255, 'old', 'i', 'n', 'then', 'later')")
    with pytest.raises(OperatorError) as caught:
        m.add_site(home, card("a"), NOW)
    assert code_of(caught) == "roster-full"


def test_sites_added_at_once_get_different_indices(home: CoordinatorHome) -> None:
    cards = [card(f"hospital-{i}") for i in range(8)]
    threads = [threading.Thread(target=m.add_site, args=(home, raw, NOW)) for raw in cards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [member.index for member in m.list_sites(home)] == list(range(1, 9))


def test_a_federation_needs_three_hospitals(home: CoordinatorHome) -> None:
    with pytest.raises(OperatorError) as caught:
        m.issue_federation(joined(home, 2), NOW)
    assert code_of(caught) == "roster-too-small"
    assert not home.federation.exists()


def test_the_federation_file_says_what_the_home_holds(home: CoordinatorHome) -> None:
    raw = m.issue_federation(joined(home, 4), NOW)
    federation = read_federation(raw)
    assert federation.cohort.sites == m.roster(home)
    assert (federation.cohort.threshold, federation.cohort.colluders) == (3, 1)
    assert federation.ca_pem == home.ca_cert.read_text()
    assert federation.coordinator == m.public_key(m.plan_key(home)).hex()
    assert home.federation.read_bytes() == raw


def test_an_unchanged_roster_is_not_issued_again(home: CoordinatorHome) -> None:
    first = m.issue_federation(joined(home, 3), NOW)
    assert m.issue_federation(home, NOW + timedelta(days=1)) == first
    m.add_site(home, card("hospital-9"), NOW)
    assert read_federation(m.issue_federation(home, NOW)).serial == 2
    m.remove_site(home, "hospital-9", NOW)
    assert read_federation(m.issue_federation(home, NOW)).serial == 3


def test_a_damaged_copy_is_issued_anew_with_the_next_serial(home: CoordinatorHome) -> None:
    m.issue_federation(joined(home, 3), NOW)
    home.federation.write_bytes(b"damaged")
    assert read_federation(m.issue_federation(home, NOW)).serial == 2


@pytest.mark.parametrize(("threshold", "colluders"), [(5, None), (2, None), (3, 2), (4, -1), (4, 4)])
def test_an_unsound_choice_is_refused(home: CoordinatorHome, threshold: int, colluders: int | None) -> None:
    joined(home, 4)
    with pytest.raises(OperatorError) as caught:
        m.issue_federation(home, NOW, threshold=threshold, colluders=colluders)
    assert code_of(caught) == "cohort-unsound"


def test_the_server_certificate_is_renewed_in_its_last_month_by_the_same_ca(home: CoordinatorHome) -> None:
    ca, before = home.ca_cert.read_bytes(), home.server_cert.read_bytes()
    assert not m.renew_server_certificate(home, NOW + timedelta(days=59))
    assert m.renew_server_certificate(home, NOW + timedelta(days=61))
    assert home.ca_cert.read_bytes() == ca
    assert home.server_cert.read_bytes() != before
    renewed = m.load_certificate(home, "server")
    assert pki.days_left(renewed, NOW + timedelta(days=61)) == 90
    renewed.verify_directly_issued_by(m.load_certificate(home, "ca"))


def test_a_pair_torn_by_a_crash_is_renewed(home: CoordinatorHome) -> None:
    home.server_key.write_bytes(home.ca_key.read_bytes())
    assert m.renew_server_certificate(home, NOW)
    assert load_ec(home.server_key).public_key() == m.load_certificate(home, "server").public_key()


def test_a_damaged_roster_or_certificate_is_named(home: CoordinatorHome) -> None:
    home.roster.write_bytes(b"x" * 4096)
    with pytest.raises(OperatorError) as caught:
        m.list_sites(home)
    assert code_of(caught) == "roster-unreadable"
    home.server_cert.write_bytes(b"x")
    with pytest.raises(OperatorError) as caught:
        m.renew_server_certificate(home, NOW)
    assert code_of(caught) == "certificate-broken"
