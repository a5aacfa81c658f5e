"""Options that several commands of the coordinator take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cameo_protocol.console import repeated

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", callback=repeated, help="State folder. Default: $XDG_STATE_HOME/cameo-coordinator."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]
Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="DIR",
        callback=repeated,
        help="Call a coordinator on another machine, with this operator profile.",
    ),
]
