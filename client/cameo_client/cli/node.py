"""`cameo-node start` and `ledger`: taking part in runs, and what that has cost."""

from __future__ import annotations

from typing import Annotated

import typer

from cameo_client.cli.options import AsJson, Home
from cameo_protocol.console import emit, say, serve

MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        min=1,
        max=65535,
        help="Prometheus metrics, on this machine only. Default: none.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(start)
    app.command()(ledger)


def start(home: Home = None, metrics_port: MetricsPort = None) -> None:
    """Take part in runs until Ctrl-C or SIGTERM.

    Connects to the coordinator, answers what policy.yaml allows, and writes tags when a model is published. Exit code
    0 after SIGTERM, 130 after Ctrl-C, 5 when the coordinator has revoked this hospital, 2 when the node runs already.

    \b
    Example:
      cameo-node start
    """
    from cameo_client.home import open_home
    from cameo_client.node.service import run_node

    place = open_home(home)
    serve(lambda stop: run_node(place, stop, say, metrics_port))


def ledger(home: Home = None, as_json: AsJson = False) -> None:
    """What has been spent, reserved and left of the privacy budget.

    The chain of entries is checked on the way: a ledger with a changed or missing entry is refused.

    \b
    Example:
      cameo-node ledger
    """
    import time

    from cameo_client.home import load_config, open_home
    from cameo_client.ledger import Caps, Ledger, render
    from cameo_client.node.service import LEDGER_DELTA
    from cameo_client.policy_file import load_policy
    from cameo_protocol.errors import OperatorError

    place = open_home(home)
    if not place.ledger.exists():
        raise OperatorError(
            "ledger-none", what="this node has not been started yet, so nothing is spent", do="cameo-node start"
        )
    caps = load_policy(place.policy).policy.caps
    limits = Caps(dataset=caps.epsilon_per_data_set, year=caps.epsilon_per_year)
    dataset = load_config(place).data.name
    with Ledger.open(place.ledger, dataset=dataset, delta=LEDGER_DELTA, clock=time.time) as book:
        found = book.report(limits)
    emit(found, as_json, lambda: render(found))
