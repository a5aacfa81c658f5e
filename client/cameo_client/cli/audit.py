"""`cameo-node audit`: who did what in this hospital, and that nobody changed it since."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, new_app, say

if TYPE_CHECKING:
    from cameo_client.home import NodeHome
    from cameo_protocol.audit_store import AuditLog

app = new_app("The hash-chained log of who did what.")


@app.command()
def verify(
    seen: Annotated[
        str | None, typer.Option("--seen", metavar="HASH", help="A hash that the coordinator has seen of this log.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check every entry of this log.

    The first bad entry is named, also one that is not what the coordinator has countersigned. Exit code 6 when the log
    does not hold, or when its end was cut off. HASH comes from `cameo audit-log seen`: so an end that was cut off
    together with the receipts is found too.

    \b
    Example:
      cameo-node audit verify
      cameo-node audit verify --seen 5f0c…
    """
    from cameo_client.home import load_identity
    from cameo_client.membership import identity_bytes, load_federation
    from cameo_client.node.witness import check_receipt, require

    digest = _digest(seen) if seen is not None else None
    with _opened(home) as (place, log):
        say(f"checking {log.head().entries} entries …")
        head = log.verify()
        countersigned = False
        if place.federation.exists():
            coordinator = bytes.fromhex(load_federation(place).coordinator)
            countersigned = check_receipt(log, place.receipt, coordinator, identity_bytes(load_identity(place)))
        if digest is not None:
            require(log, digest)
    value = {"sound": True, "entries": head.entries, "last": head.last.hex(), "countersigned": countersigned}
    by = "held against the coordinator's newest receipt" if countersigned else "never countersigned yet"
    emit(value, as_json, lambda: f"{head.entries} entries, all sound; {by}\nlast  {head.last.hex()}")


@app.command()
def export(home: Home = None) -> None:
    """Write every entry to standard output.

    One JSON object a line, oldest first; docs/operators.md lists the kinds.

    \b
    Example:
      cameo-node audit export > audit.jsonl
    """
    with _opened(home) as (_, log):
        write_lines(log)


@app.command()
def head(home: Home = None, as_json: AsJson = False) -> None:
    """How many entries there are, and the hash of the last.

    \b
    Example:
      cameo-node audit head --json
    """
    with _opened(home) as (_, log):
        now = log.head()
    value = {"entries": now.entries, "last": now.last.hex(), "heads_told": now.told, "at": iso(now.at)}
    emit(value, as_json, lambda: "\n".join(f"{key.replace('_', ' '):<10}  {item}" for key, item in value.items()))


def write_lines(log: AuditLog) -> None:
    """Every entry as a line of JSON on stdout."""
    for entry, after in log.entries():
        row: dict[str, Any] = {
            "schema_version": 1, "entry": after.entries, "at": iso(entry.at), "kind": entry.kind, "who": entry.who,
            "about": entry.about, "facts": dict(entry.facts), "hash": after.last.hex(),
        }  # fmt: skip
        sys.stdout.write(json.dumps(row) + "\n")


def iso(milliseconds: int) -> str:
    """A time as people read it, UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@contextmanager
def _opened(home: Path | None) -> Iterator[tuple[NodeHome, AuditLog]]:
    from cameo_client.audit import open_audit
    from cameo_client.home import open_home

    place = open_home(home)
    with open_audit(place) as log:
        yield place, log


def _digest(text: str) -> bytes:
    from cameo_protocol.errors import OperatorError

    try:
        digest = bytes.fromhex(text.strip())
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise OperatorError("option-invalid", what="--seen is no hash of 64 hex digits", do="cameo audit-log seen")
    return digest
