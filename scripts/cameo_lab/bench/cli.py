"""`cameo bench`: each command measures ours and others' in one run and prints ratios."""

from __future__ import annotations

from typing import Annotated

import typer

from cameo_lab.bench.data_cli import bench_data
from cameo_protocol.console import emit, new_app, say
from cameo_server.cli.options import AsJson

bench = new_app("Measurements side by side, as ratios of one run.")
bench.command(name="data")(bench_data)


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


@bench.command(name="secagg")
def bench_secagg(
    n: Annotated[int, typer.Option("--n", min=3, max=255, help="Hospitals.")] = 100,
    d: Annotated[int, typer.Option("--d", min=100, max=1 << 24, help="Numbers in a vector.")] = 1_000_000,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Also a whole round of 4 hospitals over TLS, as real processes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The secure sum beside Flower's SecAgg+, CKKS, a plain sum and the bare keystream.

    CPU time, medians. Flower's own classes do Flower's part, one opening of its server each (a minute or more at
    n = 100). JSON `ratios`: above 1 is faster than the other.

    \b
    Example:
      cameo bench secagg --json
    """
    from cameo_lab.bench.secagg import bench_secagg as measure
    from cameo_lab.bench.secagg import table

    found = measure(n, d, say, deployed=deployed)
    emit(found, as_json, lambda: table(found))
