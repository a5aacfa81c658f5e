"""`cameo-node status` and `doctor`: how this node stands."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(status)
    app.command()(doctor)


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Who this node is and what it has accepted.

    \b
    Example:
      cameo-node status --json
    """
    from cameo_client.home import load_config, load_identity, open_home
    from cameo_client.membership import identity_bytes, load_membership
    from cameo_protocol.envelope import fingerprint

    place = open_home(home)
    config = load_config(place)
    value: dict[str, object] = {
        "site": config.site,
        "home": str(place.root),
        "fingerprint": fingerprint(identity_bytes(load_identity(place))),
        "source": config.data.kind,
        "accepted": place.federation.exists(),
    }
    if place.federation.exists():
        member = load_membership(place)
        caps = member.policy.policy.caps
        value |= {
            "federation": member.federation.name,
            "serial": member.federation.serial,
            "coordinator": member.federation.address,
            "index": member.index,
            "hospitals": [site.name for site in member.federation.cohort.sites],
            "epsilon_per_data_set": caps.epsilon_per_data_set,
            "epsilon_per_year": caps.epsilon_per_year,
        }
    value |= _process(place.root / "state.json")
    emit(value, as_json, lambda: _table(value))


def _process(path: Path) -> dict[str, object]:
    """What the node's process last wrote of itself, and whether that process is there."""
    try:
        state = json.loads(path.read_bytes())
        pid, agent, tags = int(state["pid"]), str(state["agent"]), dict(state["tags"])
    except (OSError, ValueError, KeyError, TypeError):
        return {"running": False, "agent": "never started"}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return {"running": False, "agent": "stopped", "tags": tags}
    except PermissionError:  # it runs, as another user
        pass
    return {"running": agent != "stopped", "agent": agent, "tags": tags}


def doctor(home: Home = None, as_json: AsJson = False) -> None:
    """Look for what would keep this node from taking part.

    The exit code is that of the first failure.

    \b
    Example:
      cameo-node doctor
    """
    from cameo_client.doctor import examine
    from cameo_client.home import open_home

    checks = examine(open_home(home), datetime.now(UTC))

    def text() -> str:
        width = max(len(check.name) for check in checks)
        rows = []
        for check in checks:
            rows.append(f"{check.state:<8} {check.name:<{width}}  {check.what}")
            if check.do:
                rows.append(f"{'':<8} {'':<{width}}  next: {check.do}")
        return "\n".join(rows)

    failed = [check for check in checks if check.state == "failed"]
    value = {"healthy": not failed, "checks": [asdict(check) for check in checks]}
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
