"""Options that several commands of `cameo-node` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="State folder. Default: $XDG_STATE_HOME/cameo-node."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of text.")]
