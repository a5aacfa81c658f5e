"""`cameo-node init` and `accept`: joining a federation by hand, and approving what the coordinator has issued."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cameo_client.cli.options import (
    AsJson,
    Data,
    Home,
    Mapping,
    PagePort,
    PasswordEnv,
    PasswordFile,
    PseudonymKeyFile,
    SiteName,
    Source,
    Yes,
    data_config,
)
from cameo_protocol.console import confirm, emit, say

if TYPE_CHECKING:
    from cameo_client.home import NodeHome
    from cameo_client.membership import Review


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(init)
    app.command()(accept)


def init(
    name: SiteName,
    source: Source,
    data: Data,
    mapping: Mapping = None,
    password_file: PasswordFile = None,
    password_env: PasswordEnv = None,
    pseudonym_key_file: PseudonymKeyFile = None,
    page_port: PagePort = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make this hospital's keys and its public card, to join by hand.

    The keys stay here. public.json goes to the coordinator, who answers with federation.json. With a join token,
    `cameo-node join` does all of it.

    \b
    Example:
      cameo-node init --name hospital-a --source table --data /data/heart.csv --mapping heart
      cameo-node init --name hospital-b --source omop --data /data/cdm.duckdb --mapping cardiometabolic-omop
    """
    from cameo_client.home import DEFAULT_PAGE_PORT, NodeHome, default_root, load_pseudonym_key
    from cameo_client.membership import init_node
    from cameo_client.source import present

    place = NodeHome((home or default_root()).absolute())
    key = load_pseudonym_key(pseudonym_key_file) if pseudonym_key_file else None
    port = DEFAULT_PAGE_PORT if page_port is None else page_port
    config = data_config(source, data, mapping, password_file, password_env)
    if not place.config.exists():
        present(config)  # before keys are made
    card = init_node(place, site=name or "", data=config, now=datetime.now(UTC), pseudonym_key=key, page_port=port)
    value = {"site": card.name, "fingerprint": card.fingerprint(), "public_card": str(place.card)}
    told = (
        f"hospital {card.name}, state in {place.root}\nfingerprint  {card.fingerprint()}\n"
        f"Next: send {place.card} to the coordinator, and tell the fingerprint by phone.\n"
        "Then: cameo-node accept federation.json"
    )
    emit(value | {"home": str(place.root)}, as_json, lambda: told)


def accept(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", hidden=True)] = None,
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Approve the coordinator and the other hospitals.

    FILE is federation.json from the coordinator; without it, a node that has joined fetches the newest one. Shows
    fingerprints to compare by phone, then writes the approved lines of policy.yaml. When a federation has been
    accepted before, only what has changed is shown.

    \b
    Example:
      cameo-node accept
      cameo-node accept federation.json
    """
    from cameo_client.home import open_home, read_file

    place = open_home(home)
    if file is not None:
        raw = read_file(file)
    else:
        from cameo_client.enrolment import newest_federation

        raw = newest_federation(place)
    review = reviewed(place, raw, yes=yes, quiet=as_json and yes)
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
    if {what for what, _, _ in review.terms} & {"address", "CA"}:
        done += "\nA running node takes the new address or CA when it is started again."
    emit(value, as_json, lambda: done if review.changed else "nothing has changed since it was accepted")


def reviewed(place: NodeHome, raw: bytes, *, yes: bool, quiet: bool = False, or_terminal: bool = False) -> Review:
    """Show what a federation file changes, ask, and write what was approved; without a yes nothing is written."""
    from cameo_client import membership
    from cameo_client.audit import note
    from cameo_client.home import load_config
    from cameo_protocol.audit_log import MAX_TEXT

    review = membership.review(place, raw)
    if review.changed:
        if not quiet:
            say(_shown(review, load_config(place).site))
            if review.left and (runs := _runs_going_on(place)):
                say(
                    f"\nRun {', '.join(runs)} was planned with them: after a yes this hospital takes no further part"
                    " in it.\nTo let it end first, answer n, and accept when cameo-node ledger shows it closed."
                )
        if not yes:
            confirm("Approve?", or_terminal=or_terminal)
        membership.accept(place, review)
        federation = review.federation
        about = f"{federation.name}, issue {federation.serial}"
        note(place, "federation-accepted", about=about, joined=" ".join(review.joined)[:MAX_TEXT])
    return review


def _runs_going_on(place: NodeHome) -> tuple[str, ...]:
    """Runs that this hospital is in, as its ledger says."""
    from cameo_client.node.service import open_ledger

    if not place.ledger.exists():
        return ()
    with open_ledger(place) as ledger:
        return ledger.open_runs()


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
