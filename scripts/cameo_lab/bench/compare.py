"""`cameo bench round`: a full private round of ours beside a stock Flower FedAvg round, same machine, same run.

Ours: the demo's federation of four hospitals; a round is upload, acknowledge, reveal and the opened sum, with noise
and masks. Stock: four SuperNodes and Flower's own FedAvg, one exchange a round, no privacy (`bench.round`).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RoundBench:
    """Medians in seconds of `rounds` rounds each."""

    ours: float
    stock: float
    rounds: int

    def as_dict(self) -> dict[str, float | int]:
        """ratio: ours over stock; below 1 our private round is faster than the stock round without privacy."""
        return {
            "ratio": round(self.ours / self.stock, 4),
            "ours_median_s": round(self.ours, 4),
            "stock_median_s": round(self.stock, 4),
            "rounds": self.rounds,
        }


def bench_round(rounds: int, say: Callable[[str], None]) -> RoundBench:
    """Run both, one after the other; each ends all its processes."""
    from cameo_lab.bench.round import stock_round_median

    say(f"ours: {rounds} rounds, four hospitals, masked and noisy")
    with tempfile.TemporaryDirectory(prefix="cameo-bench-") as folder:
        ours = statistics.median(own_rounds(Path(folder) / "ours", rounds, say))
    say(f"stock: {rounds} rounds, four SuperNodes, Flower's FedAvg (about 6 s a round)")
    return RoundBench(ours=ours, stock=stock_round_median(rounds=rounds), rounds=rounds)


def own_rounds(out: Path, rounds: int, say: Callable[[str], None]) -> list[float]:
    """Seconds of each training round of a demo, from its start to the opened sum."""
    from cameo_lab.demo.driver import run_demo
    from cameo_lab.demo.setting import DemoOptions
    from cameo_server.run.store import EVENTS, read_events

    result = run_demo(DemoOptions(out=out, rounds=rounds, open_report=False), say)
    (path,) = (result.out / "coordinator" / "runs").glob(f"*/{EVENTS}")
    return [e["total_seconds"] for e in read_events(path) if e["event"] == "round" and e["kind"] == "train"]
