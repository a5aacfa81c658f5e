"""`cameo audit-log`: who did what at the coordinator, and what it has seen of the hospitals' own logs."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from cameo_protocol.console import emit, new_app
from cameo_server.cli.options import AsJson, Home

app = new_app("The coordinator's hash-chained log of who did what.")


@app.command()
def verify(home: Home = None, as_json: AsJson = False) -> None:
    """Check every entry of this log.

    The first bad one is named. Exit code 6 when the log does not hold.

    \b
    Example:
      cameo audit-log verify
    """
    from cameo_server.audit import open_audit
    from cameo_server.home import open_home

    with open_audit(open_home(home)) as log:
        head = log.verify()
    value = {"sound": True, "entries": head.entries, "last": head.last.hex()}
    emit(value, as_json, lambda: f"{head.entries} entries, all sound\nlast  {head.last.hex()}")


@app.command()
def export(home: Home = None) -> None:
    """Write every entry to standard output.

    One JSON object a line, oldest first; docs/coordinator.md lists the kinds.

    \b
    Example:
      cameo audit-log export > audit.jsonl
    """
    from datetime import UTC, datetime

    from cameo_server.audit import open_audit
    from cameo_server.home import open_home

    with open_audit(open_home(home)) as log:
        for entry, after in log.entries():
            at = datetime.fromtimestamp(entry.at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            row: dict[str, Any] = {
                "schema_version": 1, "entry": after.entries, "at": at, "kind": entry.kind, "who": entry.who,
                "about": entry.about, "facts": dict(entry.facts), "hash": after.last.hex(),
            }  # fmt: skip
            sys.stdout.write(json.dumps(row) + "\n")


@app.command()
def head(home: Home = None, as_json: AsJson = False) -> None:
    """How many entries there are, and the hash of the last.

    \b
    Example:
      cameo audit-log head --json
    """
    from cameo_server.audit import open_audit
    from cameo_server.home import open_home

    with open_audit(open_home(home)) as log:
        now = log.head()
    emit({"entries": now.entries, "last": now.last.hex()}, as_json, lambda: f"{now.entries} entries, {now.last.hex()}")


@app.command()
def seen(home: Home = None, as_json: AsJson = False) -> None:
    """The newest hash that each hospital has told of its own audit log.

    A hospital checks its log against it: cameo-node audit verify --seen HASH

    \b
    Example:
      cameo audit-log seen
    """
    from cameo_server.home import open_home
    from cameo_server.run.heads import read_heads

    rows = read_heads(open_home(home))

    def text() -> str:
        width = max((len(row["site"]) for row in rows), default=0)
        return "\n".join(f"{row['site']:<{width}}  {row['audit']}" for row in rows) or "no hospital has told one yet"

    emit({"sites": rows}, as_json, text)


def register(cameo: typer.Typer) -> None:
    """Add these commands."""
    cameo.add_typer(app, name="audit-log")
