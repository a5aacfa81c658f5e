"""`cameo-node init` and `accept`: joining a federation by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import confirm, emit, say

if TYPE_CHECKING:
    from cameo_client.membership import Review


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(init)
    app.command()(accept)


def init(
    name: Annotated[str, typer.Option("--name", metavar="SITE", help="Name in the federation: a-z 0-9 . _ -")],
    source: Annotated[str, typer.Option("--source", metavar="KIND", help="Kind of data source: table, omop or fhir.")],
    data: Annotated[
        str, typer.Option("--data", metavar="PATH", help="File, folder, or postgresql://USER@HOST/DATABASE.")
    ],
    mapping: Annotated[
        str | None,
        typer.Option(
            "--mapping", metavar="NAME", help="How its columns are read: a name in conf/sources, or FILE.yaml."
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", metavar="FILE", help="The database's password; only its owner may read it."),
    ] = None,
    password_env: Annotated[
        str | None, typer.Option("--password-env", metavar="NAME", help="Environment variable with that password.")
    ] = None,
    pseudonym_key_file: Annotated[
        Path | None,
        typer.Option(
            "--pseudonym-key-file",
            metavar="FILE",
            help="pseudonym/hmac.key of an earlier node, so that its patients keep their pseudonyms.",
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make this hospital's keys and its public card.

    The keys stay here. public.json goes to the coordinator, who answers with federation.json.

    \b
    Example:
      cameo-node init --name hospital-a --source table --data /data/heart.csv --mapping heart
      cameo-node init --name hospital-b --source omop --data /data/cdm.duckdb --mapping cardiometabolic-omop
    """
    from cameo_client.data.database import is_url
    from cameo_client.home import DataConfig, NodeHome, checked, default_root, load_pseudonym_key
    from cameo_client.membership import init_node
    from cameo_client.source import configured

    place = NodeHome((home or default_root()).absolute())
    key = load_pseudonym_key(pseudonym_key_file) if pseudonym_key_file else None
    config = checked(
        DataConfig,
        kind=source,
        path=data if is_url(data) else str(Path(data).absolute()),
        mapping=str(Path(mapping).absolute()) if mapping and mapping.endswith(".yaml") else mapping,
        password_file=str(password_file.absolute()) if password_file else None,
        password_env=password_env,
    )
    if not place.config.exists():
        configured(config)
    card = init_node(place, site=name, data=config, now=datetime.now(UTC), pseudonym_key=key)
    value = {"site": card.name, "fingerprint": card.fingerprint(), "public_card": str(place.card)}
    emit(
        {**value, "home": str(place.root)},
        as_json,
        lambda: (
            f"hospital {card.name}, state in {place.root}\n"
            f"fingerprint  {card.fingerprint()}\n"
            f"Next: send {place.card} to the coordinator, and tell the fingerprint by phone.\n"
            "Then: cameo-node accept federation.json"
        ),
    )


def accept(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    yes: Annotated[bool, typer.Option("--yes", help="Approve without a question (fingerprints compared).")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Approve the coordinator and the other hospitals.

    FILE is federation.json from the coordinator. Shows fingerprints to compare by phone, then writes the
    approved lines of policy.yaml. When a federation has been accepted before, only what has changed is shown.

    \b
    Example:
      cameo-node accept federation.json
    """
    from cameo_client import membership
    from cameo_client.home import load_config, open_home, read_file

    place = open_home(home)
    review = membership.review(place, read_file(file))
    if review.changed:
        if not as_json or not yes:
            say(_shown(review, load_config(place).site))
        if not yes:
            confirm("Approve?")
        membership.accept(place, review)
    federation = review.federation
    value = {
        "federation": federation.name,
        "serial": federation.serial,
        "coordinator": federation.fingerprint(),
        "changed": review.changed,
        "joined": review.joined,
        "left": list(review.left),
    }
    done = f"accepted: federation {federation.name}, issue {federation.serial}\nNext: cameo-node doctor"
    emit(value, as_json, lambda: done if review.changed else "nothing has changed since it was accepted")


def _shown(review: Review, own: str) -> str:
    """What the officer compares."""
    from cameo_protocol.federation import ca_fingerprint

    federation = review.federation
    rows = [f"federation {federation.name}, issue {federation.serial}, signed by its coordinator"]
    if review.first:
        rows += [
            "",
            "Compare this with the coordinator by phone:",
            f"  coordinator  {federation.fingerprint()}",
            f"  CA           {ca_fingerprint(federation.ca_pem)}",
            f"  address      {federation.address}",
            f"  any {federation.cohort.threshold} of {len(federation.cohort.sites)} hospitals open a sum;"
            f" covers {federation.cohort.colluders} colluding",
        ]
    if review.joined:
        rows += ["", "Compare each of these with the hospital itself, not with the coordinator:"]
        width = max(map(len, review.joined))
        rows += [
            f"  {name:<{width}}  {found}" + ("  (this hospital)" if name == own else "")
            for name, found in review.joined.items()
        ]
    rows += ["", *(f"No longer in the roster: {name}" for name in review.left)] if review.left else []
    rows += ["", *(f"Changed: {what} {before} -> {now}" for what, before, now in review.terms)] if review.terms else []
    return "\n".join(rows)
