"""`cameo site`: the roster of hospitals."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cameo_protocol.console import emit, new_app
from cameo_server.cli.options import AsJson, Home

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
    from cameo_server.home import open_home, read_file
    from cameo_server.membership import add_site

    member = add_site(open_home(home), read_file(file), datetime.now(UTC))
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


@app.command(name="list")
def list_(home: Home = None, as_json: AsJson = False) -> None:
    """List the hospitals with their numbers and fingerprints.

    \b
    Example:
      cameo site list
    """
    from cameo_server.home import open_home
    from cameo_server.membership import list_sites

    members = list_sites(open_home(home))

    def text() -> str:
        if not members:
            return "no hospital yet. Next: cameo site add public.json"
        width = max(len(member.name) for member in members)
        return "\n".join(f"{m.index:>3}  {m.name:<{width}}  {m.fingerprint()}  added {m.added}" for m in members)

    emit({"sites": [{**asdict(m), "fingerprint": m.fingerprint()} for m in members]}, as_json, text)


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
    from cameo_server.home import open_home
    from cameo_server.membership import remove_site

    member = remove_site(open_home(home), name, datetime.now(UTC))
    emit(
        {"name": member.name, "index": member.index, "fingerprint": member.fingerprint()},
        as_json,
        lambda: f"hospital {member.name} removed\nNext: cameo coordinator federation, and send the new file to all",
    )
