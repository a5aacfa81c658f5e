"""`cameo coordinator`: set up, look at, and run the coordinator of a federation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cameo_protocol.console import emit, new_app, say, serve
from cameo_server.cli.options import AsJson, Home

app = new_app("The coordinator: keys, the file for hospitals, processes.")


@app.command()
def init(
    host: Annotated[
        str, typer.Option("--host", metavar="NAME_OR_IP", help="Where hospitals reach this machine.")
    ] = "localhost",
    fleet_port: Annotated[int, typer.Option("--fleet-port", metavar="P", help="Port for hospitals.")] = 9092,
    operator_port: Annotated[
        int, typer.Option("--operator-port", metavar="P", help="Port of the operator interface.")
    ] = 9093,
    join_port: Annotated[int, typer.Option("--join-port", metavar="P", help="Port for hospitals that join.")] = 9094,
    page_port: Annotated[int, typer.Option("--page-port", metavar="P", help="Port of the dashboard, local.")] = 9095,
    name: Annotated[str, typer.Option("--name", metavar="FED", help="The federation: a-z 0-9 . _ -")] = "cameo",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make the CA, the server certificate and the plan-signing key.

    \b
    Example:
      cameo coordinator init --name heart-study --host coordinator.example.org
    """
    from cameo_protocol.envelope import fingerprint
    from cameo_server.home import CoordinatorHome, default_root
    from cameo_server.membership import init_coordinator, plan_key, public_key

    place = CoordinatorHome((home or default_root()).absolute())
    config = init_coordinator(
        place,
        federation=name,
        host=host,
        fleet_port=fleet_port,
        operator_port=operator_port,
        join_port=join_port,
        page_port=page_port,
        now=datetime.now(UTC),
    )
    found = fingerprint(public_key(plan_key(place)))
    value = {"federation": config.federation, "home": str(place.root), "fingerprint": found}
    emit(
        {
            **value,
            "host": config.host,
            "fleet_port": config.fleet_port,
            "operator_port": config.operator_port,
            "join_port": config.join_port,
            "page_port": config.page_port,
        },
        as_json,
        lambda: (
            f"coordinator of {config.federation}, state in {place.root}\n"
            f"fingerprint  {found}\n"
            "Next: cameo coordinator start; then cameo site invite NAME, once for every hospital"
        ),
    )


@app.command()
def federation(
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write the file for the hospitals.")
    ] = Path("federation.json"),
    threshold: Annotated[
        int | None, typer.Option(help="Answers that open a sum. Default: more than two thirds.")
    ] = None,
    colluders: Annotated[int | None, typer.Option(help="Colluding hospitals to be covered. Default: 1.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the signed file that every hospital gets.

    It names the coordinator, its CA and the present roster.

    \b
    Example:
      cameo coordinator federation --out federation.json
    """
    from cameo_protocol.federation import read_federation
    from cameo_server.audit import note
    from cameo_server.home import open_home, write_file
    from cameo_server.membership import issue_federation

    place = open_home(home)
    raw = issue_federation(place, datetime.now(UTC), threshold=threshold, colluders=colluders)
    write_file(out.absolute(), raw)
    issued = read_federation(raw)
    note(place, "federation-issued", about=f"issue {issued.serial}", fingerprint=issued.fingerprint())
    cohort = issued.cohort
    value = {
        "federation": issued.name,
        "serial": issued.serial,
        "path": str(out.absolute()),
        "fingerprint": issued.fingerprint(),
        "hospitals": [site.name for site in cohort.sites],
        "threshold": cohort.threshold,
        "colluders": cohort.colluders,
    }
    spare = len(cohort.sites) - cohort.threshold
    lost = f"{spare} may be lost in a round" if spare else "none may be lost in a round"
    emit(
        value,
        as_json,
        lambda: (
            f"federation {issued.name}, issue {issued.serial}, written to {out}\n"
            f"{len(cohort.sites)} hospitals, any {cohort.threshold} open a sum ({lost}),"
            f" {cohort.colluders} colluding covered\n"
            f"fingerprint  {issued.fingerprint()}\n"
            f"Next: send {out} to every hospital, and tell the fingerprint by phone"
        ),
    )


@app.command()
def start(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="Address of the fleet, operator and join ports.")
    ] = "0.0.0.0",  # noqa: S104 - hospitals are on other machines; reachable there: fleet, operator and join ports
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port", metavar="PORT", min=1, max=65535, help="Prometheus metrics, on loopback. Default: none."
        ),
    ] = None,
    home: Home = None,
) -> None:
    """Run the coordinator until Ctrl-C or SIGTERM.

    Open to other machines: the fleet port for hospitals, the operator port for hospitals and people with a
    certificate, and the join port for hospitals with a token. The dashboard, metrics and all else are reached on this
    machine only. The server certificate is renewed in its last 30 days, also while it runs.

    \b
    Example:
      cameo coordinator start
    """
    from cameo_server.home import open_home
    from cameo_server.launch import start_coordinator
    from cameo_server.membership import renew_server_certificate

    place = open_home(home)
    if renew_server_certificate(place, datetime.now(UTC)):
        say("the server certificate has been renewed")
    serve(lambda stop: start_coordinator(place, stop, say, fleet_host=listen, metrics_port=metrics_port))


@app.command()
def page(
    role: Annotated[Literal["coordinator", "researcher", "auditor"], typer.Option(help="What may be done.")] = (
        "coordinator"
    ),
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print a link to the dashboard.

    It opens the dashboard once, on this machine, within ten minutes.

    \b
    Example:
      cameo coordinator page
    """
    import os
    import time

    from cameo_protocol.web.links import Visitor, make_link
    from cameo_server.audit import note
    from cameo_server.dashboard.keys import page_key
    from cameo_server.home import load_config, open_home
    from cameo_server.launch import require_running

    place = open_home(home)
    require_running(place)
    code = make_link(page_key(place), Visitor(role, role), time.time(), os.urandom(16))
    note(place, "dashboard-link-made", about=role)
    url = f"http://localhost:{load_config(place).page_port}/login?link={code}"
    say("this link works once, on this machine, for ten minutes")
    emit({"url": url, "role": role}, as_json, lambda: url)


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """What this coordinator is set up for, and its certificates.

    \b
    Example:
      cameo coordinator status --json
    """
    from cameo_protocol.envelope import fingerprint
    from cameo_server.home import load_config, open_home
    from cameo_server.launch import running
    from cameo_server.membership import list_sites, load_certificate, plan_key, public_key
    from cameo_server.pki import days_left

    place = open_home(home)
    config, now = load_config(place), datetime.now(UTC)
    value: dict[str, object] = {
        "federation": config.federation,
        "home": str(place.root),
        "host": config.host,
        "fleet_port": config.fleet_port,
        "fingerprint": fingerprint(public_key(plan_key(place))),
        "running": running(place) is not None,
        "hospitals": len(list_sites(place)),
        "federation_file_issued": place.federation.exists(),
        "server_certificate_days": days_left(load_certificate(place, "server"), now),
        "ca_certificate_days": days_left(load_certificate(place, "ca"), now),
    }
    width = max(map(len, value))
    emit(value, as_json, lambda: "\n".join(f"{k.replace('_', ' '):<{width}}  {v}" for k, v in value.items()))
