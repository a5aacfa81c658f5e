"""`cameo-node`, the hospital's command line. Heavy imports wait inside the commands, so that --help is quick."""

from __future__ import annotations

import sys

from cameo_client.cli import audit, backup, consent, data, enrolling, joining, node, officer, page, tags, watching
from cameo_protocol.console import execute, new_app

app = new_app(
    "One hospital of a Cameo federation: join, check, run, and look at what has been spent and tagged.\n\n"
    "\b\nFour commands from nothing to a running node; the second is in the coordinator's invitation:\n"
    "  scripts/install.sh\n"
    "  cameo-node join HOST:PORT --token T --name hospital-a --source table --data heart.csv --mapping heart\n"
    "  cameo-node doctor\n"
    "  cameo-node start"
    "\n\n\b\nExit codes (docs/errors.md):\n"
    "  0 done   1 our fault   2 usage or configuration   3 data quality   4 refused by a policy\n"
    "  5 keys, certificates   6 data source   7 the other side, or a run that was stopped   130 interrupted"
)
enrolling.register(app)
joining.register(app)
node.register(app)
backup.register(app)
watching.register(app)
page.register(app)
app.add_typer(data.app, name="data")
app.add_typer(consent.app, name="consent")
app.add_typer(tags.app, name="tags")
app.add_typer(officer.app, name="policy")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Entry point."""
    sys.exit(execute(app, "cameo-node"))
