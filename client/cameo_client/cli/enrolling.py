"""`cameo-node join`, `leave`, `pause` and `resume`: into a federation with one token, and out of it."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cameo_client.cli.joining import reviewed
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
    from cameo_protocol.federation import Federation

# How often a hospital that waits for approval asks, in seconds.
ASK_S = 2.0
STANDARD_INPUT = "-"
MAX_TOKEN_BYTES = 1024


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (join, leave, pause, resume):
        app.command()(command)


def join(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", hidden=True)],
    token: Annotated[
        str | None, typer.Option("--token", metavar="T", help="From the invitation; good once. -: from standard input.")
    ] = None,
    *,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="File that holds the token instead.")
    ] = None,
    name: SiteName = None,
    source: Source = None,
    data: Data = None,
    mapping: Mapping = None,
    password_file: PasswordFile = None,
    password_env: PasswordEnv = None,
    pseudonym_key_file: PseudonymKeyFile = None,
    page_port: PagePort = None,
    yes: Yes = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Join a federation with the token of an invitation.

    HOST:PORT is the coordinator's join port, as in the invitation. Makes the keys, which stay here; knocks; waits until
    the coordinator has compared this hospital's fingerprint; shows the other hospitals' fingerprints to compare; writes
    federation.json, policy.yaml, a systemd unit and a compose file. It may be interrupted at any moment: the same
    command goes on.

    A new hospital needs --name, --source and --data. Other users of the machine can read a command line: where there
    are any, give the token with --token-file FILE or, on standard input, with --token -.

    Exit code 5 when the other side is not the coordinator that the token names, 6 when the data is not there.

    \b
    Example:
      cameo-node join coordinator.example.org:9094 --token T --name hospital-a \\
        --source table --data heart.csv --mapping heart
    """
    from cameo_client.enrolment import Token, enter, parse_address

    parse_address(address)  # before keys are made
    ticket = Token.parse(_token(token, token_file))
    place = _set_up(home, name, (source, data, mapping, password_file, password_env), pseudonym_key_file, page_port)
    raw = enter(place, address, ticket, lambda: datetime.now(UTC), pause_a_little, say)
    piped = token == STANDARD_INPUT  # the officer's answer may have to come from elsewhere
    federation = reviewed(place, raw, yes=yes, quiet=as_json and yes, or_terminal=piped).federation
    value = _written(place, federation)
    emit(value, as_json, lambda: _joined(value))


def _written(place: NodeHome, federation: Federation) -> dict[str, Any]:
    from cameo_client.service_files import write_service_files

    files = [str(path) for path in write_service_files(place)]
    return {
        "federation": federation.name,
        "serial": federation.serial,
        "home": str(place.root),
        "service_files": files,
    }


def _joined(value: dict[str, Any]) -> str:
    from cameo_client.service_files import install_line, shell_word

    unit, compose = map(Path, value["service_files"])
    return (
        f"joined: federation {value['federation']}, issue {value['serial']}, state in {value['home']}\n"
        f"To keep it running: {install_line(unit)}\n"
        f"                 or: docker compose -f {shell_word(compose)} up -d\n"
        "Next: cameo-node doctor, then cameo-node start"
    )


def _token(token: str | None, file: Path | None) -> str:
    """The token's text: as given, from standard input, or from a file; exactly one of them."""
    from cameo_client.home import read_file
    from cameo_protocol.errors import OperatorError

    if (token is None) == (file is None):
        raise OperatorError(
            "option-invalid", what="join takes one of --token and --token-file", do="see: cameo-node join --help"
        )
    if file is not None:
        return read_file(file, at_most=MAX_TOKEN_BYTES).decode("utf-8", "replace")
    return sys.stdin.readline(MAX_TOKEN_BYTES) if token == STANDARD_INPUT else token or ""


def pause_a_little() -> None:
    """Between two questions to the coordinator."""
    time.sleep(ASK_S)


def _set_up(
    home: Path | None,
    name: str | None,
    options: tuple[str | None, str | None, str | None, Path | None, str | None],
    pseudonym_key_file: Path | None,
    page_port: int | None,
) -> NodeHome:
    """Keys and node.toml, from the options or as they are; options that say something else replace them in time."""
    from cameo_client.home import DEFAULT_PAGE_PORT, NodeHome, default_root, load_config, load_pseudonym_key
    from cameo_client.membership import amend_node, init_node, renew_keys
    from cameo_client.source import present
    from cameo_protocol.errors import OperatorError

    place, now = NodeHome((home or default_root()).absolute()), datetime.now(UTC)
    if place.config.exists():
        config = load_config(place)
        given = data_config(*options) if any(options) else config.data
        given, site = given.model_copy(update={"name": config.data.name}), name or config.site
        if (site, given) != (config.site, config.data):
            present(given)
            amend_node(place, site=site, data=given)
            say(f"{place.config} now names hospital {site} and the data of these options; the keys are the same")
        renew_keys(place, now)
        return place
    asked = {"--name": name, "--source": options[0], "--data": options[1]}
    missing = [flag for flag, value in asked.items() if not value]
    if missing:
        raise OperatorError(
            "option-missing",
            what=f"a new hospital needs {', '.join(missing)}",
            do="see: cameo-node join --help",
        )
    key = load_pseudonym_key(pseudonym_key_file) if pseudonym_key_file else None
    data = data_config(*options)
    present(data)  # before keys are made
    port = DEFAULT_PAGE_PORT if page_port is None else page_port
    init_node(place, site=name or "", data=data, now=now, pseudonym_key=key, page_port=port)
    return place


def leave(
    purge: Annotated[bool, typer.Option("--purge", help="Also remove tags and models.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Leave the federation, and remove this hospital's keys for good.

    Certificate, federation file and service files go too. The ledger, the consents, node.toml, policy.yaml and the
    pseudonym key stay. Nothing is revoked elsewhere: ask the coordinator for that. It is refused while the node runs.

    \b
    Example:
      cameo-node leave
    """
    from cameo_client.audit import note
    from cameo_client.home import load_config, open_home
    from cameo_client.leaving import KEPT, leave_federation
    from cameo_client.node.upkeep import REVOKED, Seen
    from cameo_client.running import alone

    place = open_home(home)
    with alone(place):
        if not yes:
            more = ", its tags and models" if purge else ""
            confirm(f"The keys of the node in {place.root}{more} will be removed for good. Leave?")
        # What the node's process heard last: leaving removes it.
        site, revoked = load_config(place).site, Seen.load(place).error == REVOKED
        gone = leave_federation(place, purge=purge)
        note(place, "federation-left")
    kept = {name: why for name, why in KEPT.items() if (place.root / name).exists()}
    value = {"home": str(place.root), "removed": list(gone.removed), "kept": kept, "runs_closed": list(gone.runs)}
    rows = [f"removed  {name}" for name in gone.removed]
    rows += [f"freed    what run {run} had reserved and not spent" for run in gone.runs]
    rows += [f"kept     {name}: {why}" for name, why in kept.items()]
    back = "To come back: cameo-node join, with a new token"
    asks = f"Next: ask the coordinator to run: cameo site revoke {site}\n{back}"
    ends = back if revoked else asks
    emit(value, as_json, lambda: "\n".join([*rows, ends]))


def pause(home: Home = None, as_json: AsJson = False) -> None:
    """Decline new runs until `cameo-node resume`.

    A run that this hospital is in goes on; the node stays connected.

    \b
    Example:
      cameo-node pause
    """
    from cameo_client.audit import note
    from cameo_client.home import open_home, write_file
    from cameo_client.running import PAUSED

    place = open_home(home)
    write_file(place.root / PAUSED, b"")
    note(place, "node-paused")
    emit({"paused": True}, as_json, lambda: "paused: new runs are declined\nNext: cameo-node resume")


def resume(home: Home = None, as_json: AsJson = False) -> None:
    """Take part in new runs again.

    \b
    Example:
      cameo-node resume
    """
    from cameo_client.audit import note
    from cameo_client.home import open_home
    from cameo_client.leaving import remove
    from cameo_client.running import PAUSED

    place = open_home(home)
    remove(place.root / PAUSED)
    note(place, "node-resumed")
    emit({"paused": False}, as_json, lambda: "resumed: new runs are answered as policy.yaml says")
