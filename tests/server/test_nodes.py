"""Who is let in to Flower follows the roster, and one bad key keeps nobody else out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cameo_protocol.errors import OperatorError
from cameo_protocol.federation import SiteCard, node_key_hex, write_card
from cameo_server.flower.control import NodeSeen
from cameo_server.home import CoordinatorHome
from cameo_server.membership import add_site, init_coordinator, remove_site
from cameo_server.nodes import contacts, let_in_members

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Flower:
    """Flower's rules for nodes, as `tests/server/flower` shows them: a key that was locked out stays out."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, NodeSeen] = {}
        self.burnt: set[bytes] = set()
        self.away = False

    def list_nodes(self) -> tuple[NodeSeen, ...]:
        return tuple(self.nodes.values())

    def register_node(self, key: bytes, name: str) -> int:
        if self.away:
            raise OperatorError("superlink-unreachable", what="away", do="wait")
        if key in self.burnt or key in self.nodes:
            raise OperatorError("flower-refused", what="known", do="no")
        self.nodes[key] = NodeSeen(len(self.burnt) + len(self.nodes) + 1, name, "registered", key)
        return self.nodes[key].node_id

    def unregister_node(self, node_id: int) -> None:
        (key,) = [key for key, node in self.nodes.items() if node.node_id == node_id]
        self.burnt.add(key)
        del self.nodes[key]


def card(name: str) -> bytes:
    identity, node = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
    public = identity.public_key().public_bytes_raw().hex()
    body = SiteCard(
        name=name, identity=public, node_key=node_key_hex(node.public_key()), created="2026-01-01T00:00:00Z"
    )
    return write_card(body, identity, node)


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    found = CoordinatorHome(tmp_path / "home")
    init_coordinator(found, federation="study", host="localhost", fleet_port=1, now=NOW)
    return found


def test_members_are_let_in_once_and_removed_ones_are_locked_out(home: CoordinatorHome) -> None:
    flower: Any = Flower()
    for name in ("a", "b", "c"):
        add_site(home, card(name), NOW)
    assert let_in_members(home, flower).fresh == ("a", "b", "c")
    assert let_in_members(home, flower).fresh == ()
    remove_site(home, "b", NOW)
    assert let_in_members(home, flower).fresh == ()
    assert [node.name for node in flower.list_nodes()] == ["a", "c"]
    assert contacts(home, flower) == {"a": False, "c": False}
    add_site(home, card("b"), NOW)
    assert let_in_members(home, flower).fresh == ("b",)


def test_a_key_that_flower_has_locked_out_keeps_nobody_else_out(home: CoordinatorHome) -> None:
    flower: Any = Flower()
    add_site(home, card("a"), NOW)
    let_in_members(home, flower)
    flower.unregister_node(1)  # a roster that was put back names a key that Flower has locked out since
    add_site(home, card("b"), NOW)
    doors = let_in_members(home, flower)
    assert (doors.fresh, doors.barred) == (("b",), frozenset({"a"}))


def test_a_superlink_that_is_away_is_no_refusal(home: CoordinatorHome) -> None:
    flower: Any = Flower()
    add_site(home, card("a"), NOW)
    flower.away = True
    with pytest.raises(OperatorError, match="superlink-unreachable"):
        let_in_members(home, flower)
