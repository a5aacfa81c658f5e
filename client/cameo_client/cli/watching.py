"""`cameo-node status` and `doctor`: how this node stands."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, say

if TYPE_CHECKING:
    from cameo_client.home import NodeHome


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(status)
    app.command()(doctor)


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Who this node is, what it has accepted, whether it runs.

    \b
    Example:
      cameo-node status --json
    """
    from cameo_client.home import load_config, load_identity, open_home
    from cameo_client.membership import identity_bytes
    from cameo_client.running import is_paused
    from cameo_protocol.envelope import fingerprint

    place = open_home(home)
    config = load_config(place)
    joined = place.identity_key.exists()
    value: dict[str, object] = {
        "site": config.site,
        "home": str(place.root),
        "fingerprint": fingerprint(identity_bytes(load_identity(place))) if joined else None,
        "source": config.data.kind,
        "accepted": place.federation.exists(),
    }
    if place.federation.exists():
        value |= _membership(place)
    value |= _process(place) | {"paused": is_paused(place)}
    emit(value, as_json, lambda: _table(value))


def _membership(place: NodeHome) -> dict[str, object]:
    """What was accepted, how long the certificate lasts, and what the node's process has seen since."""
    from cameo_client.enrolment import certificate_days
    from cameo_client.membership import load_membership
    from cameo_client.node.upkeep import Seen

    member, seen = load_membership(place), Seen.load(place)
    caps = member.policy.policy.caps
    certified = place.operator_cert.exists()
    return {
        "federation": member.federation.name,
        "serial": member.federation.serial,
        "newest_serial": max(member.federation.serial, seen.newest),
        "coordinator": member.federation.address,
        "index": member.index,
        "hospitals": [site.name for site in member.federation.cohort.sites],
        "epsilon_per_data_set": caps.epsilon_per_data_set,
        "epsilon_per_year": caps.epsilon_per_year,
        "certificate_days": certificate_days(place, datetime.now(UTC)) if certified else None,
        "upkeep_error": seen.error,
    }


def _process(place: NodeHome) -> dict[str, object]:
    """What the node's process last wrote of itself, and whether that process is there."""
    from cameo_client.running import is_running

    try:
        state = json.loads((place.root / "state.json").read_bytes())
        agent, tags = str(state["agent"]), dict(state["tags"])
    except (OSError, ValueError, KeyError, TypeError):
        return {"running": is_running(place), "agent": "never started"}
    if not is_running(place):
        return {"running": False, "agent": "stopped", "tags": tags}
    return {"running": True, "agent": agent, "tags": tags}


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Look for what would keep this node from taking part.

    A check that needs one that failed says nothing. The exit code is that of the first failure.

    \b
    Example:
      cameo-node doctor
    """
    from cameo_client.doctor import Examination
    from cameo_client.home import open_home
    from cameo_client.running import is_running

    place = open_home(home)
    look = Examination(place, lambda: datetime.now(UTC), say)
    checks = look.checks()
    failed = [check for check in checks if check.severity == "failed"]

    def text() -> str:
        width = max(len(check.name) for check in checks)
        rows = []
        for check in checks:
            code = "" if check.code == "ok" else f"  ({check.code})"
            rows.append(f"{check.severity:<8} {check.name:<{width}}  {check.what}{code}")
            if check.do:
                rows.append(f"{'':<8} {'':<{width}}  next: {check.do}")
        if not (failed or is_running(place)):
            rows.append("Next: cameo-node start")
        return "\n".join(rows)

    value = {"healthy": not failed, "checks": [asdict(check) for check in checks], "silent": look.silent}
    emit(value, as_json, text)
    if failed:
        raise typer.Exit(int(failed[0].exit))


def _table(value: dict[str, object]) -> str:
    width = max(map(len, value))
    shown = {key: _cell(item) for key, item in value.items()}
    return "\n".join(f"{key.replace('_', ' '):<{width}}  {item}" for key, item in shown.items())


def _cell(item: object) -> object:
    if isinstance(item, dict):
        return ", ".join(f"{key} {value}" for key, value in item.items() if value) or "none"
    return ", ".join(map(str, item)) if isinstance(item, list) else item
