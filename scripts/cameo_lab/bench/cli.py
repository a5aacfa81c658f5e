"""`cameo bench`: each command measures ours and others' in one run and prints ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cameo_lab.bench.data_cli import bench_data
from cameo_lab.bench.tags_cli import bench_tags
from cameo_protocol.console import emit, new_app, say
from cameo_protocol.errors import OperatorError
from cameo_server.cli.options import AsJson

bench = new_app("Measurements side by side, as ratios of one run.")
bench.command(name="data")(bench_data)
bench.command(name="tags")(bench_tags)


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


@bench.command(name="dp")
def bench_dp(
    samples: Annotated[int, typer.Option(min=3, max=1000, help="Samples a median is taken of.")] = 11,
    patients: Annotated[int, typer.Option(min=100, max=100_000, help="Patients of the hospital.")] = 4000,
    as_json: AsJson = False,
) -> None:
    """A private training step beside a plain PyTorch step.

    The clipped sum of per-patient gradients of each shipped model: ours, Opacus' hooks and ghost clipping, against
    forward, backward and optimiser step without any privacy. CPU time. JSON `ratios`: above 1 is faster than plain.

    \b
    Example:
      cameo bench dp --json
    """
    from cameo_lab.bench.dp import bench_dp as measure
    from cameo_lab.bench.dp import table

    found = measure(samples, patients, say)
    emit(found, as_json, lambda: table(found))


@bench.command(name="utility")
def bench_utility(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Folder with UCI heart and SUPPORT2, or one of them."),
    ] = None,
    epsilon: Annotated[float, typer.Option(min=0.01, max=20, help="Privacy budget, all on the risk model.")] = 1.0,
    splits: Annotated[int, typer.Option(min=1, max=50, help="80/20 splits.")] = 5,
    draws: Annotated[int, typer.Option(min=1, max=50, help="Runs with fresh noise on each split.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Made-up patients, two splits, few rounds.")] = False,
    as_json: AsJson = False,
) -> None:
    """What privacy costs in AUC, beside what others do.

    Pooled regression without privacy, each hospital alone, ours with distributed and with local noise, and classic
    Opacus + FedAvg: five splits of the same patients, paired differences. About three minutes.

    \b
    Example:
      cameo bench utility --data-dir public-data --json
    """
    from cameo_lab.bench.utility import Measure, table
    from cameo_lab.bench.utility import bench_utility as measure

    if (data_dir is None) != quick:
        raise OperatorError(
            "usage", what="either public data or made-up patients are needed", do="pass --data-dir DIR, or --quick"
        )
    wanted = Measure(epsilon=epsilon, splits=splits, draws=draws)
    if quick:
        wanted = Measure(epsilon=epsilon, splits=2, draws=1, overrides=("training.rounds=5", "training.spare=1"))
    found = measure(data_dir, wanted, say)
    emit(found, as_json, lambda: table(found))


@bench.command(name="secagg")
def bench_secagg(
    n: Annotated[int, typer.Option("--n", min=3, max=255, help="Hospitals.")] = 100,
    d: Annotated[int, typer.Option("--d", min=100, max=1 << 24, help="Numbers in a vector.")] = 1_000_000,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Also a whole round of 4 hospitals over TLS, as real processes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The secure sum beside what others do.

    Flower's SecAgg+, CKKS, a plain sum and the bare keystream. CPU time, medians. Flower's own classes do Flower's
    part, one opening of its server each (a minute or more at n = 100). JSON `ratios`: above 1 is faster than the other.

    \b
    Example:
      cameo bench secagg --json
    """
    from cameo_lab.bench.secagg import bench_secagg as measure
    from cameo_lab.bench.secagg import table

    found = measure(n, d, say, deployed=deployed)
    emit(found, as_json, lambda: table(found))
