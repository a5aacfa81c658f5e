"""The coordinator's commands. `cameo` itself is composed in the lab, which may know both sides."""

from __future__ import annotations

import typer

from cameo_server.cli import coordinator, following, people, runs, site


def register(app: typer.Typer) -> None:
    """Add the coordinator's commands to `cameo`."""
    app.add_typer(coordinator.app, name="coordinator")
    app.add_typer(site.app, name="site")
    app.add_typer(people.app, name="person")
    runs.register(app)
    following.register(app)
