"""`cameo site`: the roster of hospitals."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cameo_protocol.console import emit, new_app
from cameo_server.cli.options import AsJson, Home, Profile

app = new_app("The hospitals of the federation.")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Add a hospital to the roster.

    FILE is the public.json of the hospital. Shows the fingerprint to compare with the hospital by phone.

    \b
    Example:
      cameo site add public.json
    """
    from cameo_server.audit import note
    from cameo_server.home import open_home, read_file
    from cameo_server.membership import add_site

    place = open_home(home)
    member = add_site(place, read_file(file), datetime.now(UTC))
    note(place, "site-added", about=member.name, fingerprint=member.fingerprint())
    emit(
        {**asdict(member), "fingerprint": member.fingerprint()},
        as_json,
        lambda: (
            f"hospital {member.name} added as number {member.index}\n"
            f"fingerprint  {member.fingerprint()}\n"
            "Compare it with the hospital by phone; if it differs: "
            f"cameo site remove {member.name}\n"
            "Next: cameo coordinator federation, when all hospitals have been added"
        ),
    )


@app.command()
def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="How long the token is good, as 72h or 30m.")
    ] = "72h",
    home: Home = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Make a join token for the hospital NAME; it is shown once.

    \b
    Example:
      cameo site invite hospital-a --ttl 72h
    """
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    request = pb.InviteSiteRequest(name=name, ttl_seconds=_seconds(ttl))
    with connected(home, profile) as client:
        made = client.call("InviteSite", request)
    value = {"name": name, "token": made.token, "expires": made.expires, "address": made.address}
    emit(
        value,
        as_json,
        lambda: (
            f"{name} may join until {made.expires}. Send it this, on a safe way:\n"
            f"  cameo-node join {made.address} --token {made.token} --name {name}"
            " --source KIND --data PATH --mapping NAME\n"
            "Where others can use that machine, --token-file FILE or --token - (standard input) instead of --token"
            " keeps the token off its command line\n"
            "Next, when it has knocked: cameo site list"
        ),
    )


@app.command()
def approve(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="F", help="What the hospital read out; otherwise you are asked."),
    ] = None,
    home: Home = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Let the waiting hospital NAME in.

    Only after its fingerprint has been compared with the hospital by phone: you are asked.

    \b
    Example:
      cameo site approve hospital-a
    """
    from cameo_protocol.console import confirm
    from cameo_protocol.errors import OperatorError
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    with connected(home, profile) as client:
        sites = client.call("ListSites", pb.ListSitesRequest()).sites
        waiting = [site for site in sites if site.name == name and site.state == "waiting"]
        if not waiting:
            raise OperatorError("site-not-waiting", what=f"no hospital {name} waits for approval", do="cameo site list")
        if fingerprint is None:
            confirm(
                f"{name} waits with fingerprint\n  {waiting[0].fingerprint}\nDid the hospital read out the same?",
                do="answer y on a terminal, or give what the hospital read out by phone: "
                f'cameo site approve {name} --fingerprint "F"',
            )
            fingerprint = waiting[0].fingerprint
        site = client.call("ApproveSite", pb.ApproveSiteRequest(name=name, fingerprint=fingerprint.strip()))
    emit(_row(site), as_json, lambda: f"hospital {site.name} is number {site.index}\nNext: cameo site list")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Take the hospital NAME out at once.

    Its certificates are refused from now on, and its place is gone from the next round on.

    \b
    Example:
      cameo site revoke hospital-c
    """
    from cameo_protocol.console import confirm
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    with connected(home, profile) as client:
        names = [site.name for site in client.call("ListSites", pb.ListSitesRequest()).sites]
        if name in names and not yes:  # of one that is not there, the coordinator says so
            confirm(f"{name} will be locked out at once, also from a run that is going on. Revoke it?")
        site = client.call("RevokeSite", pb.RevokeSiteRequest(name=name))
    emit(
        _row(site),
        as_json,
        lambda: (
            f"hospital {name} is revoked: its certificate and its keys are refused from now on\n"
            "A run that is going on leaves it out. When that has ended: cameo coordinator federation; the others then"
            " run: cameo-node accept"
        ),
    )


@app.command(name="list")
def list_(home: Home = None, profile: Profile = None, as_json: AsJson = False) -> None:
    """List the hospitals, with their numbers and fingerprints.

    Each is invited, waiting, member or revoked; a member may be online.

    \b
    Example:
      cameo site list
    """
    rows = _listed(home, profile)

    def text() -> str:
        if not rows:
            return "no hospital yet. Next: cameo site invite NAME"
        width = max(len(row["name"]) for row in rows)
        return "\n".join(
            f"{row['index'] or '':>3}  {row['name']:<{width}}  {row['state']:<8}"
            f"  {row['fingerprint'] or '-':<49}  {'online' if row['online'] else '':<6}  {row['since']}"
            for row in rows
        )

    emit({"sites": rows}, as_json, text)


def _listed(home: Path | None, profile: Path | None) -> list[dict[str, Any]]:
    """The sites as the running coordinator sees them; from the roster alone when none runs on this home."""
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected
    from cameo_server.enrolment import site_states
    from cameo_server.home import open_home
    from cameo_server.launch import running

    if profile is None and running(open_home(home)) is None:
        return [{**asdict(site), "online": False} for site in site_states(open_home(home), datetime.now(UTC))]
    with connected(home, profile) as client:
        return [_row(site) for site in client.call("ListSites", pb.ListSitesRequest()).sites]


def _row(site: Any) -> dict[str, Any]:
    return {
        "name": site.name,
        "state": site.state,
        "index": site.index,
        "fingerprint": site.fingerprint,
        "since": site.since,
        "certificate_days": site.certificate_days,
        "online": site.online,
    }


def _seconds(text: str) -> int:
    """Seconds of a time such as 30m, 72h or 3d."""
    from cameo_protocol.errors import OperatorError

    units = {"m": 60, "h": 3600, "d": 86400}
    if text[-1:] not in units or not text[:-1].isdigit() or len(text) > 8:
        raise OperatorError("option-invalid", what=f"--ttl {text!r} is no time", do="write it as 30m, 72h or 3d")
    return int(text[:-1]) * units[text[-1]]


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take the hospital NAME off the roster.

    Its number is not given out again.

    \b
    Example:
      cameo site remove hospital-c
    """
    from cameo_server.audit import note
    from cameo_server.home import open_home
    from cameo_server.membership import remove_site

    place = open_home(home)
    member = remove_site(place, name, datetime.now(UTC))
    note(place, "site-revoked", about=name, fingerprint=member.fingerprint())
    emit(
        {"name": member.name, "index": member.index, "fingerprint": member.fingerprint()},
        as_json,
        lambda: f"hospital {member.name} removed\nNext: cameo coordinator federation, and send the new file to all",
    )
