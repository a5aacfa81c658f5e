"""The coordinator's commands. `cameo` itself is composed in the lab, which may know both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cameo_server.cli import audit_log, coordinator, following, people, runs, site

if TYPE_CHECKING:
    from cameo_server.run.release_gate import Auditor


def register(app: typer.Typer, auditor: Auditor) -> None:
    """Add the coordinator's commands to `cameo`. auditor: makes the audit that `cameo run` needs first."""
    app.add_typer(coordinator.app, name="coordinator")
    app.add_typer(site.app, name="site")
    app.add_typer(people.app, name="person")
    runs.register(app, auditor)
    following.register(app)
    audit_log.register(app)
