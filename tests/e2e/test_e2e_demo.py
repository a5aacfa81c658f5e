"""The real command line, real processes: hospitals that die in the middle, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from cameo_client.node.failpoints import VARIABLE
from cameo_lab.demo.processes import command

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def start_demo(out: Path, *, rounds: int, failpoints: str = "") -> subprocess.Popen[str]:
    arguments = ["demo", "--out", str(out), "--rounds", str(rounds), "--no-open"]
    # Tests that run in the background of a shell ignore Ctrl-C, and so would everything that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [*command("cameo"), *arguments],
        env={**os.environ, VARIABLE: failpoints},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def events(out: Path) -> list[dict[str, object]]:
    (path,) = (out / "coordinator" / "runs").glob("*/events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def processes_of(out: Path) -> list[psutil.Process]:
    """Every process whose command line names the demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(out) in part for part in process.info["cmdline"] or []):
            found.append(process)
    return found


def test_one_hospital_killed_in_a_round(tmp_path: Path) -> None:
    """SIGKILL between the charge and the upload: the sums go on over three, and the summary says who was lost."""
    demo = start_demo(tmp_path / "demo", rounds=4, failpoints="hospital-2:upload-charged@3")
    out, err = demo.communicate(timeout=580)
    assert demo.returncode == 0, f"{out}\n{err}"
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["lost"] == ["hospital-2"]
    assert summary["rounds"] == 4
    assert summary["uploads"]["clear"] == 0
    assert summary["uploads"]["masked"] == 4 + 4 + 3 + 3 + 3 + 3
    assert "hospital-2" in err + out
    rounds = [e for e in events(tmp_path / "demo") if e["event"] == "round"]
    assert [len(e["survivors"]) for e in rounds] == [4, 4, 3, 3, 3, 3]
    # The dead hospital had charged the round that it never uploaded: spent stays spent.
    spent = summary["epsilon"]["spent"]
    assert 0 < spent["hospital-2"] < spent["hospital-1"]
    report = (tmp_path / "demo" / "report.html").read_text()
    assert "hospital-2" in report
    assert processes_of(tmp_path / "demo") == []


def test_two_hospitals_killed_stop_the_run(tmp_path: Path) -> None:
    points = "hospital-1:reveal-asked@2,hospital-3:upload-asked@2"
    demo = start_demo(tmp_path / "demo", rounds=4, failpoints=points)
    out, err = demo.communicate(timeout=580)
    assert demo.returncode == 7, f"{out}\n{err}"
    assert "Traceback" not in err + out
    seen = events(tmp_path / "demo")
    (stopped,) = [e for e in seen if e["event"] == "stopped"]
    assert stopped["code"] == "cohort-incomplete"
    after = seen[seen.index(stopped) :]
    assert not [e for e in after if e["event"] == "round"], "nothing is opened after the stop"
    assert processes_of(tmp_path / "demo") == []


def test_interrupt_ends_every_process(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo = start_demo(out, rounds=30)
    until = time.monotonic() + 400
    while not list((out / "coordinator" / "runs").glob("*/opening-0001.npz")):
        assert time.monotonic() < until, "no round was opened in time"
        assert demo.poll() is None
        time.sleep(0.2)
    assert processes_of(out), "the processes are found by the folder in their command line"
    os.kill(demo.pid, signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    gone = [p for p in processes_of(out) if p.is_running()]
    assert gone == []
    assert events(out), "what happened is still readable"
