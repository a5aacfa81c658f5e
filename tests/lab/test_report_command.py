"""`cameo report`: one file of what a coordinator has, hashed into the run's record."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_federation import SmallFederation, events, made_up_vectors, small_plan

from cameo_lab.cli import app
from cameo_protocol.console import execute
from cameo_server.home import CoordinatorHome
from cameo_server.run.store import RunStore

Report = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/r1 after a whole run of four hospitals, one of them lost after admission."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        plan = small_plan(4, "training.rounds=2", "training.spare=1")
        federation = SmallFederation(plan, root)
        made_up_vectors(patch, federation)
        store = federation.drive()
        federation.close()
    return store.folder


@pytest.fixture
def store(published: Path, tmp_path: Path) -> RunStore:
    home = CoordinatorHome(tmp_path / "home")
    home.config.parent.mkdir()
    home.config.touch()
    return RunStore(Path(shutil.copytree(published, home.runs / "r1")))


@pytest.fixture
def report(store: RunStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Report:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cameo", "report", *words, "--home", str(store.folder.parent.parent)])
        code = execute(app, "cameo")
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


def made(report: Report) -> dict[str, Any]:
    code, out, err = report("r1", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_report_lies_with_the_run_and_its_hash_in_the_record(store: RunStore, report: Report) -> None:
    found = made(report)
    path = store.folder / "report.html"
    assert found["report"] == str(path)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    (event,) = events(store, "report")
    assert (event["file"], event["sha256"]) == ("report.html", found["sha256"])


def test_the_same_run_gives_the_same_bytes_and_one_entry(store: RunStore, report: Report) -> None:
    first, second = made(report), made(report)
    assert first["sha256"] == second["sha256"]
    assert len(events(store, "report")) == 1


def test_it_holds_what_a_coordinator_has_and_nothing_else(store: RunStore, report: Report) -> None:
    made(report)
    text = (store.folder / "report.html").read_text()
    for shown in ("hospital-1", "Privacy", "Segments of patients", "cameo-node ledger", "How the run went"):
        assert shown in text, shown
    assert "This run gave it its number." in text
    assert "lab only" not in text
    assert "Tags</h2>" not in text
    assert "<script" not in text
    assert not re.findall(r"(?:src|href)=\"(?!#)", text)
    assert 'class="line"' in text or "norm" in text


def test_a_run_without_models_has_no_report(store: RunStore, report: Report) -> None:
    lines = (store.folder / "events.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["event"] not in ("published", "finished")]
    (store.folder / "events.jsonl").write_text("".join(kept))
    code, _, err = report("r1")
    assert code == 2
    assert "report-unpublished" in err
    assert not (store.folder / "report.html").exists()


@pytest.mark.parametrize("run", ["none", "../r1", "..", ""])
def test_a_run_that_is_not_there(report: Report, run: str) -> None:
    code, _, err = report(run)
    assert code == 2
    assert "run-unknown" in err
