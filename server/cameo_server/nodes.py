"""The roster's hospitals as Flower nodes: who is let in, and under which node id it is reached."""

from __future__ import annotations

from dataclasses import dataclass

from cameo_protocol.errors import ExitCode, OperatorError
from cameo_protocol.federation import node_key_pem
from cameo_protocol.plan import RunPlan
from cameo_server.flower.control import Control
from cameo_server.home import CoordinatorHome
from cameo_server.membership import list_sites


@dataclass(frozen=True)
class Doors:
    """What `let_in_members` did. fresh: names let in now; barred: members whose key Flower locked out for good."""

    fresh: tuple[str, ...]
    barred: frozenset[str]


def let_in_members(home: CoordinatorHome, control: Control) -> Doors:
    """Register every member that Flower does not know yet, and lock out nodes whose hospital was removed.

    Flower never lets a key in twice. The roster refuses removed keys, so only a roster that was put back, or made by an
    older version, can hold one; the others are let in all the same.
    """
    known = {node.public_key: node for node in control.list_nodes()}
    members = {node_key_pem(member.node_key): member for member in list_sites(home)}
    for key, node in known.items():
        if key not in members:
            control.unregister_node(node.node_id)
    fresh, barred = [], set()
    for key, member in members.items():
        if key in known:
            continue
        try:
            control.register_node(key, member.name)
            fresh.append(member.name)
        except OperatorError as error:
            if error.code != "flower-refused":
                raise
            barred.add(member.name)
    return Doors(tuple(fresh), frozenset(barred))


def contacts(home: CoordinatorHome, control: Control) -> dict[str, bool]:
    """Hospital -> whether its node is connected, as the SuperLink sees it; a hospital that never came is left out."""
    seen = {node.public_key: node.status == "online" for node in control.list_nodes()}
    keys = {member.name: node_key_pem(member.node_key) for member in list_sites(home)}
    return {name: seen[key] for name, key in keys.items() if key in seen}


def node_ids(home: CoordinatorHome, control: Control, plan: RunPlan) -> dict[int, int]:
    """Shamir index -> Flower node id of every hospital of a plan; a hospital that was not let in is an error."""
    by_key = {node.public_key: node.node_id for node in control.list_nodes()}
    members = {member.index: member for member in list_sites(home)}
    ids: dict[int, int] = {}
    for site in plan.cohort.sites:
        member = members.get(site.index)
        node = by_key.get(node_key_pem(member.node_key)) if member and member.identity == site.identity else None
        if node is None:
            raise OperatorError(
                "site-not-registered",
                what=f"hospital {site.name} of the plan is no member that the SuperLink knows",
                do="cameo site list, then make a new plan: cameo run",
                exit=ExitCode.AUTH,
            )
        ids[site.index] = node
    return ids
