"""From nothing to a run by tokens alone: real commands, each hospital with a user's state of its own.

Four hospitals: with three, every one must answer, and a run ends when one of them is revoked.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cameo_client.home import NodeHome
from cameo_client.node.service import open_ledger
from cameo_lab.bench.local import free_port
from cameo_lab.demo.processes import command
from cameo_server.home import CoordinatorHome
from cameo_server.launch import make_plan
from passed_audit import keep_passed_audit
from state_tables import exposed, undocumented

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
NAMES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
OVERRIDES = ("data=heart", "data.population=400", "training.rounds=6", "deadlines.regroup=5")
FINGERPRINT = re.compile(r"([0-9a-f]{4}-){9}[0-9a-f]{4}")


@dataclass
class Machine:
    """One user on one machine: a folder that is HOME, and what was typed there."""

    folder: Path
    typed: list[str] = field(default_factory=list)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        return {**kept, "HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder / "state")}

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run one command to its end; stdout."""
        done = self.start(*words)
        out, err = done.communicate(timeout=500)
        assert "Traceback" not in out + err
        assert done.returncode == code, f"{words}: {done.returncode}\n{out}\n{err}"
        return out + err if code else out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def start(self, *words: str) -> subprocess.Popen[str]:
        self.typed.append(" ".join(words))
        return subprocess.Popen(
            [*command(words[0]), *words[1:]],
            env=self.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def keep(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that stays; its output goes to a file of its last word."""
        self.typed.append(" ".join(words))
        with (self.folder / f"{words[-1]}.log").open("w") as log:
            process = subprocess.Popen(
                [*command(words[0]), *words[1:]],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def eventually(found: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, what
        time.sleep(0.1)
    return value


def heart_table(path: Path, number: int) -> None:
    """A table that the mapping `heart` reads, of people who never were."""
    rows = [
        f"{40 + (i + number) % 30},{i % 2},1,{120 + i % 60},{200 + i},0,0,150,0,1.5,2,0,3,{i % 3}\n" for i in range(60)
    ]
    path.write_text("".join(rows))


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    made = {name: Machine(tmp_path / name) for name in ("coordinator", *NAMES)}
    for number, machine in enumerate(made.values()):
        machine.folder.mkdir()
        heart_table(machine.folder / "patients.csv", number)
    with ExitStack() as stack:
        for machine in made.values():
            stack.callback(machine.end)
        yield made


def join(coordinator: Machine, hospital: Machine, name: str, invited: dict[str, str]) -> None:
    """Join, compare, approve: what two people do with a telephone between them."""
    source = ["--source", "table", "--data", "patients.csv", "--mapping", "heart", "--page-port", "0"]
    joining = hospital.start(
        "cameo-node", "join", invited["address"], "--token", invited["token"], "--name", name, *source, "--yes"
    )
    hospital.running.append(joining)
    assert joining.stderr is not None
    told = ""
    while not (spoken := FINGERPRINT.search(told)):
        line = joining.stderr.readline()
        assert line, told
        told += line
    approve = ("cameo", "site", "approve", name, "--fingerprint", spoken[0])
    assert coordinator.json(*approve)["state"] == "member"


def joined(hospital: Machine) -> None:
    joining = hospital.running.pop()
    out, err = joining.communicate(timeout=400)
    assert joining.returncode == 0, out + err
    assert "joined: federation study" in out
    assert "Compare each of these with the hospital itself" in err


def events(run: Path) -> list[dict[str, Any]]:
    path = run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_join_run_revoke_and_join_again(machines: dict[str, Machine]) -> None:
    coordinator = machines["coordinator"]
    ports = [f"--{name}-port={free_port()}" for name in ("fleet", "operator", "join", "page")]
    coordinator("cameo", "coordinator", "init", "--name", "study", "--host", "localhost", *ports)
    coordinator.keep("cameo", "coordinator", "start")
    eventually(lambda: "ready" in coordinator.log("start"), "the coordinator never was ready")
    invitations = {name: coordinator.json("cameo", "site", "invite", name) for name in NAMES}
    for name, invited in invitations.items():
        join(coordinator, machines[name], name, invited)
    for name in NAMES:
        joined(machines[name])

    first = machines[NAMES[0]]
    found = first.json("cameo-node", "doctor")
    assert found["healthy"], found
    left_to_people = {"consents": "consents-none", "rules": "rules-none"}
    assert {c["name"]: c["code"] for c in found["checks"] if c["code"] != "ok"} == left_to_people
    for name in NAMES:
        machines[name].keep("cameo-node", "start")
    assert [word.split()[1] for word in first.typed] == ["join", "doctor", "start"], "and the installation"
    for name in NAMES:
        eventually(lambda name=name: "online" in machines[name].log("start"), f"{name} never was online")

    _run_and_revoke(machines)
    _join_again(machines)


def _run_and_revoke(machines: dict[str, Machine]) -> None:
    coordinator = machines["coordinator"]
    home = CoordinatorHome(coordinator.folder / "state" / "cameo-coordinator")
    keep_passed_audit(home, make_plan(home, OVERRIDES))
    run = Path(coordinator.json("cameo", "run", "--no-follow", *OVERRIDES)["folder"])
    eventually(lambda: [e for e in events(run) if e["event"] in ("round", "stopped")], "no round was opened")
    coordinator("cameo", "site", "revoke", "hospital-3", "--yes")
    at_revocation = len([e for e in events(run) if e["event"] == "round"])
    eventually(lambda: [e for e in events(run) if e["event"] in ("published", "stopped")], "the run did not end")
    seen = events(run)
    assert seen[-1]["event"] == "published", seen[-3:]
    (lost,) = [e for e in seen if e["event"] == "lost"]
    assert lost["site"] == "hospital-3"
    assert lost["code"] in ("revoked", "no-answer"), "before the next round, or locked out of the one under way"
    rounds = [e for e in seen if e["event"] == "round"]
    assert all("hospital-3" not in e["survivors"] for e in rounds[at_revocation + 1 :]), "at most the round under way"
    assert all(len(e["survivors"]) == 3 for e in rounds[at_revocation + 1 :])
    assert seen[-1]["stored"] == ["hospital-1", "hospital-2", "hospital-4"]
    first = machines["hospital-1"].folder / "state" / "cameo-node"
    assert undocumented(home.root, "coordinator") == undocumented(first, "hospital") == []
    assert exposed(home.root, "coordinator") == exposed(first, "hospital") == []


def _join_again(machines: dict[str, Machine]) -> None:
    """The revoked node ends by itself and says why; with new keys the hospital is a new member."""
    coordinator, third = machines["coordinator"], machines["hospital-3"]
    node = third.running[-1]
    assert node.wait(60) == 5
    assert "certificate-refused" in third.log("start")
    home = NodeHome(third.folder / "state" / "cameo-node")
    with open_ledger(home) as ledger:
        spent, held = ledger.spent(), ledger.held()
    assert 0 < spent < held, "nobody told it that the run has ended"
    third("cameo-node", "leave", "--yes")
    assert not [key for key in (home.identity_key, home.node_key, home.operator_key) if key.exists()]
    assert not home.federation.exists()
    with open_ledger(home) as ledger:
        assert (ledger.spent(), ledger.held()) == (spent, spent)
    join(coordinator, third, "hospital-3", coordinator.json("cameo", "site", "invite", "hospital-3"))
    joined(third)
    assert third.json("cameo-node", "status")["index"] == 5
    first = machines["hospital-1"]
    assert set(first.json("cameo-node", "accept", "--yes")["joined"]) == {"hospital-3"}
