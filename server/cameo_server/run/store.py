"""What a run leaves on the coordinator's disk: plan, events, checkpoints, opened sums, models.

Everything here is what the coordinator may see: plans, stage times, survivors, noisy sums, models.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cameo_protocol.errors import OperatorError
from cameo_server.home import make_folder, write_file

PLAN = "plan.json"
EVENTS = "events.jsonl"
CHECKPOINT = "checkpoint.npz"
STOP = "stop"
Arrays = dict[str, np.ndarray[Any, Any]]


class RunStore:
    """The folder runs/ID of one run."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock

    def create(self, plan: bytes) -> None:
        """Make the folder and write the plan; refuses a folder that already holds one."""
        make_folder(self.folder)
        if (self.folder / PLAN).exists():
            raise OperatorError(
                "run-exists", what=f"the run {self.folder.name} exists already", do="start it under another name"
            )
        write_file(self.folder / PLAN, plan)

    def plan(self) -> bytes:
        """The plan's canonical bytes as they were signed."""
        return (self.folder / PLAN).read_bytes()

    def event(self, event: str, /, **fields: Any) -> None:
        """Append one line to events.jsonl and flush it; followers read it as it grows."""
        line = json.dumps({"time": round(self._clock(), 3), "event": event, **fields}, allow_nan=False)
        try:
            with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OperatorError(
                "disk-write",
                what=f"cannot write {EVENTS}: {error.strerror}",
                do=f"free space on {self.folder}; then resume the run",
            ) from None

    def ask_to_stop(self) -> None:
        """Leave word for the run that it shall end before its next round."""
        write_file(self.folder / STOP, b"")

    def stop_asked(self) -> bool:
        """Whether somebody has left that word."""
        return (self.folder / STOP).exists()

    def events(self) -> Iterator[dict[str, Any]]:
        """All events so far; a last line that is still being written is left out."""
        return read_events(self.folder / EVENTS)

    def save_bytes(self, name: str, data: bytes) -> None:
        """Write a file of the run, atomically."""
        write_file(self.folder / name, data)

    def save_arrays(self, name: str, arrays: Arrays) -> None:
        """Write named arrays as one .npz file, atomically."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_file(self.folder / name, buffer.getvalue())

    def load_arrays(self, name: str) -> Arrays:
        """Read what `save_arrays` wrote; never unpickles."""
        with np.load(self.folder / name, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file, oldest first; none when the file does not exist yet."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
