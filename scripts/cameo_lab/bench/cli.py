"""`cameo bench`: each command measures ours and others' in one run and prints ratios."""

from __future__ import annotations

from typing import Annotated

import typer

from cameo_protocol.console import emit, new_app, say
from cameo_server.cli.options import AsJson

bench = new_app("Measurements side by side, as ratios of one run.")


@bench.command(name="round")
def bench_round(
    rounds: Annotated[int, typer.Option(min=3, max=100, help="Rounds of each.")] = 8, as_json: AsJson = False
) -> None:
    """A full private round beside a stock Flower FedAvg round.

    Four hospitals with masks and noise, then four stock SuperNodes without any privacy, on this machine.

    \b
    Example:
      cameo bench round --json
    """
    from cameo_lab.bench.compare import bench_round as measure

    found = measure(rounds, say).as_dict()
    emit(
        {**found},
        as_json,
        lambda: (
            f"ours   {found['ours_median_s']:.2f} s a round (median of {found['rounds']})\n"
            f"stock  {found['stock_median_s']:.2f} s a round\n"
            f"ratio  {found['ratio']:.2f}"
        ),
    )
