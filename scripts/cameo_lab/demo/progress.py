"""What a person sees while a demo runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

TRAINING = "training, every update masked"


class Progress:
    """Stages one after the other; the training stage counts rounds. say: for lines that stay."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        console = Console(stderr=True)
        self._live = console.is_terminal
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not self._live,
        )
        self._task = self._bars.add_task("starting", total=1)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int = 1) -> None:
        """Begin a stage; the one before is done."""
        if self._live:
            self._bars.update(self._task, completed=self._bars.tasks[-1].total)
            self._task = self._bars.add_task(name, total=total)
        else:
            self._say(f"… {name}")

    def advance(self) -> None:
        """One step of the stage is done."""
        if self._live:
            self._bars.advance(self._task)

    def event(self, event: dict[str, Any]) -> None:
        """Show an event of the run."""
        match event["event"]:
            case "epoch":
                sites = ", ".join(event["sites"])
                self._say(f"keys set up for {event['rounds']} rounds: {sites}")
                self.stage(TRAINING, total=event["rounds"])
            case "round":
                self.advance()
                if not self._live and (event["step"] % 10 == 0 or event["kind"] != "train"):
                    self._say(f"  {event['kind']} round {event['round']}: {event['total_seconds']:.2f} s")
            case "lost":
                self._say(f"lost: {event['site']} at {event['stage']} ({event['code']})")
            case "void":
                self._say(f"round {event['round']} is void ({event['reason']}); it is charged and not repeated")
            case "admission" if event["answer"] != "accept":
                self._say(f"{event['site']} declined ({event['answer']})")
            case "returned":
                self._say(f"back again: {', '.join(event['sites'])}")
            case "waiting":
                self._say(f"too few hospitals are there; waiting for {', '.join(event['sites'])}")
            case _:
                pass
