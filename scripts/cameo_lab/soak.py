"""Kills one part of a running federation again and again, and checks after each run that nothing was lost or doubled.

`python -m cameo_lab.soak NAME --kills N`: NAME is coordinator, superlink, server-app or hospital. Real processes of the
real command lines, SIGKILL at random moments. scripts/soak.sh is the way in.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from cameo_client.home import NodeHome
from cameo_client.node.service import open_ledger
from cameo_lab.demo import driver
from cameo_lab.demo.processes import Children, call_json, interruptible
from cameo_lab.demo.progress import Progress
from cameo_lab.demo.setting import DemoOptions, Setting, prepare
from cameo_protocol.console import say
from cameo_protocol.errors import CameoError, ExitCode, OperatorError
from cameo_protocol.facts import feature_names
from cameo_protocol.plan import parse_plan
from cameo_protocol.stages import RoundCall
from cameo_server.definitions import read_catalogue
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import RunStore
from cameo_server.run.training import Models

NAMES = ("coordinator", "superlink", "server-app", "hospital")
RUN_WAIT_S = 400.0
# Hospitals that were killed are waited for, and rounds that they missed are made up for.
PATIENT = ("deadlines.regroup=120", "training.spare=20")
# The module or program that a part's process runs; the coordinator and hospitals are children of ours.
MARKS = {"superlink": "cameo_server.flower.superlink", "server-app": "flwr-serverapp"}
Say = Callable[[str], None]


@dataclass
class Soak:
    """A federation that is killed piece by piece. kills: how many in all; a run gets `per_run` of them."""

    name: str
    kills: int
    out: Path
    rounds: int = 12
    per_run: int = 3
    say: Say = say
    draw: random.Random = field(default_factory=random.Random)
    done: int = 0

    def __post_init__(self) -> None:
        self.layout = driver.Layout(self.out)

    @property
    def home(self) -> CoordinatorHome:
        """The coordinator's folder."""
        return CoordinatorHome(self.layout.coordinator)

    def carry_out(self) -> None:
        """Run after run until all kills are done; an `OperatorError` "soak-failed" says what did not hold."""
        self.out.mkdir(parents=True, exist_ok=True)
        with interruptible(), Progress(self.say) as progress, Children(self.out / "logs") as children:
            setting = prepare(DemoOptions(out=self.out, rounds=self.rounds), self.out)
            setting = replace(setting, overrides=(*setting.overrides, *PATIENT))
            driver._set_up(self.layout, setting, children, progress)
            self._raise_caps(setting)
            driver._start(self.layout, setting, children, progress)
            driver._audited(children, progress)
            while self.done < self.kills:
                run = self._start_run(setting)
                killed = self._harm(run, setting, children)
                self._await_end(run)
                faults = check_run(self.layout, run, setting)
                self.say(f"run {run}: {killed} kills, {'nothing lost or doubled' if not faults else '; '.join(faults)}")
                if faults:
                    raise OperatorError(
                        "soak-failed", what=f"run {run}: {'; '.join(faults)}", do=f"look into {self.out}"
                    )

    def _start_run(self, setting: Setting) -> str:
        home = ["--home", str(self.layout.coordinator)]
        run: str = call_json(["cameo", "run", "--no-follow", *home, *setting.overrides])["run"]
        return run

    def _raise_caps(self, setting: Setting) -> None:
        """Many runs over the same made-up patients: their officers allow any loss."""
        for site in setting.sites:
            path = NodeHome(self.layout.hospital(site.name)).policy
            path.write_text(re.sub(r"(epsilon_per_\w+:) \d+", r"\1 10000", path.read_text()))

    def _harm(self, run: str, setting: Setting, children: Children) -> int:
        """Kill as often as this run is due, each time after some progress; returns how often."""
        killed, seen = 0, 0
        until = time.monotonic() + RUN_WAIT_S
        while killed < self.per_run and self.done < self.kills and not self._ended(run):
            if time.monotonic() > until:
                return killed
            rounds = len(list((self.home.runs / run).glob("round-*.json")))
            if rounds <= seen:
                time.sleep(0.05)
                continue
            time.sleep(self.draw.uniform(0, 1.5))
            if self._kill(setting, children):
                killed, seen = killed + 1, rounds
                self.done += 1
        return killed

    def _kill(self, setting: Setting, children: Children) -> bool:
        if self.name in MARKS:
            below = psutil.Process(children.running["coordinator"].pid).children(recursive=True)
            killed = False
            for each in below:
                with contextlib.suppress(psutil.Error):  # it has ended by itself
                    if MARKS[self.name] in " ".join(each.cmdline()):
                        each.kill()
                        killed = True
            return killed
        victim = "coordinator" if self.name == "coordinator" else self.draw.choice(setting.sites).name
        process = children.running[victim]
        process.kill()
        process.wait()
        if victim == "coordinator":
            children.start(
                victim, ["cameo", "coordinator", "start", "--listen", driver.HOST, "--home", str(self.home.root)]
            )
        else:
            children.start(victim, ["cameo-node", "start", "--home", str(self.layout.hospital(victim))])
        return True

    def _ended(self, run: str) -> bool:
        return any(
            event["event"] in ("published", "finished", "stopped") for event in RunStore(self.home.runs / run).events()
        )

    def _await_end(self, run: str) -> None:
        until = time.monotonic() + RUN_WAIT_S
        while not self._ended(run):
            if time.monotonic() > until:
                raise OperatorError(
                    "soak-failed", what=f"run {run} did not end within {RUN_WAIT_S:.0f} s", do=f"look into {self.out}"
                )
            time.sleep(0.2)


def check_run(layout: driver.Layout, run: str, setting: Setting) -> list[str]:
    """What does not hold of a run that has ended, in words; empty = it was published and everything holds."""
    store = RunStore(CoordinatorHome(layout.coordinator).runs / run)
    plan = parse_plan(store.plan())
    events = list(store.events())
    ended = [event for event in events if event["event"] in ("round", "void")]
    faults = []
    if events[-1]["event"] != "published":
        faults.append(f"it ended with {events[-1]['event']}")
    if [event["round"] for event in ended] != list(range(1, len(ended) + 1)):
        faults.append("a round was told twice or not at all")
    calls = {event["round"]: _call(store, event["round"]) for event in ended}
    if len(set(calls.values())) != len(calls):
        faults.append("a round of an epoch was used twice")
    if sum(event["kind"] == "train" for event in ended) > plan.training.rounds + plan.training.spare:
        faults.append("more rounds were charged than the plan has")
    models = Models.initial(plan, len(feature_names(read_catalogue(plan.data.catalogue))))
    for event in ended:
        if event["event"] == "round" and event["kind"] == "train":
            models = models.after(plan, store.load_arrays(f"opening-{event['round']:04d}.npz")["total"])
    last = store.folder / f"model-{plan.training.rounds:04d}.npz"
    result = np.frombuffer(models.result(plan), dtype="<f4")
    if not last.exists() or not np.array_equal(store.load_arrays(last.name)["parameters"], result):
        faults.append("the model is not what the recorded openings come to")
    for site in setting.sites:
        faults += _ledger_faults(layout, site.name, run, [(calls[e["round"]], e) for e in ended])
    return faults


def _ledger_faults(
    layout: driver.Layout, name: str, run: str, ended: Sequence[tuple[tuple[int, int], dict[str, object]]]
) -> list[str]:
    """Every sum that a hospital is in is in its ledger; nothing is there of a round that was never asked for."""
    with open_ledger(NodeHome(layout.hospital(name))) as ledger:
        charged = ledger.rounds(run)
    summed = {call for call, event in ended if name in event.get("survivors", ())}  # type: ignore[operator]
    faults = []
    if summed - charged:
        faults.append(f"a sum holds a vector of {name} that its ledger does not know")
    if charged - {call for call, _ in ended}:
        faults.append(f"the ledger of {name} has a round that there never was")
    return faults


def _call(store: RunStore, number: int) -> tuple[int, int]:
    record = json.loads((store.folder / f"round-{number:04d}.json").read_bytes())
    call = RoundCall.decode(bytes.fromhex(record["call"]))
    return call.epoch, call.round_no


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--kills", type=int, default=0, help="default: 50 for the coordinator, 20 for the others")
    parser.add_argument("--out", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=None)
    chosen = parser.parse_args(arguments)
    kills = chosen.kills or (50 if chosen.name == "coordinator" else 20)
    soak = Soak(chosen.name, kills, chosen.out.absolute(), draw=random.Random(chosen.seed))  # noqa: S311 - when a kill comes
    try:
        soak.carry_out()
    except CameoError as error:
        say(str(error))
        return int(error.exit_code) if isinstance(error, OperatorError) else int(ExitCode.BUG)
    say(f"{chosen.name}: {soak.done} kills, nothing lost or doubled (95 % bound on a failure: {3 / soak.done:.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
