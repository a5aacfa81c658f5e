"""`cameo person`: operator profiles for the people who start, watch and audit runs from other machines."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cameo_protocol.console import emit, new_app
from cameo_server.cli.options import AsJson, Home

app = new_app("People who call the operator interface from another machine.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write the profile.")],
    role: Annotated[
        Literal["researcher", "auditor", "coordinator"], typer.Option(help="What the person may do.")
    ] = "researcher",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write an operator profile for the person NAME.

    It holds a fresh key, a certificate for 90 days, the CA and the address. Hand the folder over on a safe way: whoever
    has it acts as NAME.

    \b
    Example:
      cameo person add maria --role researcher --out maria-profile
      cameo runs --profile maria-profile
    """
    from cameo_protocol.errors import OperatorError
    from cameo_server.api.client import make_profile
    from cameo_server.audit import note
    from cameo_server.enrolment import check_name
    from cameo_server.home import open_home

    if out.exists():
        raise OperatorError("folder-exists", what=f"{out} exists already", do="choose another --out")
    place = open_home(home)
    profile = make_profile(place, out.absolute(), check_name(name), role, datetime.now(UTC))
    note(place, "person-added", about=name, role=role)
    value = {"name": name, "role": role, "profile": str(profile.folder), "address": profile.address}
    there = f"cameo runs --profile {shlex.quote(str(out))}"
    emit(value, as_json, lambda: f"{name} is {role}: {out}\nNext, on that person's machine: {there}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)], home: Home = None, as_json: AsJson = False
) -> None:
    """Refuse every certificate of NAME from now on.

    \b
    Example:
      cameo person revoke maria
    """
    from cameo_server.audit import note
    from cameo_server.enrolment import revoke_person
    from cameo_server.home import open_home

    place = open_home(home)
    count = revoke_person(place, name, datetime.now(UTC))
    note(place, "person-revoked", about=name)
    emit({"name": name, "certificates": count}, as_json, lambda: f"{count} certificate(s) of {name} revoked")
