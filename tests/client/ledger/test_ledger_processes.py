"""Many processes on one ledger, and processes that are killed: exact sums, nothing unledgered, nothing repeated."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_kit import DELTA, FULL, PLAN, again, fresh, releases

from cameo_client.ledger import Caps
from cameo_protocol.errors import OperatorError, Reject
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import Release

PROCESSES, RESERVATIONS = 10, 200 if FULL else 20
KILLS = 300 if FULL else 60


def forked(work: Callable[[], None]) -> int:
    """Run it in a child process of its own; the child ends with status 0 when work returns. Returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def cost(count: int) -> float:
    return epsilon([Release(sigma=40.0, q=1.0, count=count)], DELTA)


def test_reservations_of_many_processes_are_exact(tmp_path: Path) -> None:
    """The cap has room for half of what all processes ask for, to the very last one."""
    path, room = tmp_path / "heart.ledger", PROCESSES * RESERVATIONS // 2
    caps = Caps(dataset=cost(room), year=1000.0)
    fresh(path).shut()

    def ask(name: int) -> None:
        with again(path) as ledger:
            for number in range(RESERVATIONS):
                try:
                    ledger.reserve(f"run-{name}-{number}", PLAN, releases(1), caps)
                except OperatorError as error:
                    if error.code != "budget-spent":
                        raise

    children = [forked(lambda name=name: ask(name)) for name in range(PROCESSES)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
    with again(path) as ledger:
        assert len(ledger.open_runs()) == room
        assert ledger.verify().entries == room + 1
        assert ledger.held() == pytest.approx(cost(room), rel=1e-12)


def test_commits_of_many_processes_on_one_run_are_exact(tmp_path: Path) -> None:
    """Each round is asked for by all processes and charged to exactly one of them."""
    path, rounds = tmp_path / "heart.ledger", 40 if FULL else 15
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(rounds), Caps(dataset=8.0, year=8.0))

    def spend(name: int) -> None:
        with again(path) as ledger, (tmp_path / f"won-{name}").open("w") as won:
            for round_no in range(rounds):
                try:
                    ledger.commit("run-1", round_no, "train", releases(1))
                except Reject:
                    continue
                won.write(f"{round_no}\n")

    children = [forked(lambda name=name: spend(name)) for name in range(PROCESSES)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES
    won = [line for name in range(PROCESSES) for line in (tmp_path / f"won-{name}").read_text().split()]
    assert sorted(map(int, won)) == list(range(rounds))
    with again(path) as ledger:
        assert ledger.spent() == pytest.approx(cost(rounds), rel=1e-12)


def hospital(path: Path, uploads: Path, *, ledger_first: bool) -> None:
    """Round after round until killed: resume behind the last known round, release, never the same round twice."""
    with again(path) as ledger, uploads.open("ab", buffering=0) as out:
        ledger.reserve("run-1", PLAN, releases(10**6), Caps(dataset=1e5, year=1e5))
        known = [int(line) for line in uploads.read_bytes().split()] if not ledger_first else []
        first = max([ledger.report()["runs"][0]["rounds"], *(r + 1 for r in known)])
        for round_no in range(first, first + 10**5):
            if not ledger_first:
                out.write(b"%d\n" % round_no)
            try:
                ledger.commit("run-1", round_no, "train", releases(1))
            except Reject:
                continue
            if ledger_first:
                out.write(b"%d\n" % round_no)


def wait_for_growth(file: Path) -> None:
    """Until the child releases again; a loaded machine may take its time."""
    size, patience = file.stat().st_size, time.monotonic() + 60
    while file.stat().st_size == size:
        assert time.monotonic() < patience
        time.sleep(0.001)


def unledgered_and_repeated(tmp_path: Path, kills: int, *, ledger_first: bool) -> tuple[int, int, int]:
    """(releases, of them not in the ledger, of them sent twice) after that many SIGKILLs at random moments."""
    path, uploads = tmp_path / "heart.ledger", tmp_path / "uploads"
    fresh(path).shut()
    uploads.touch()
    rng = random.Random()  # when a kill comes is chance anyway
    for _ in range(kills):
        child = forked(lambda: hospital(path, uploads, ledger_first=ledger_first))
        wait_for_growth(uploads)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        again(path).shut()
    sent = [int(line) for line in uploads.read_bytes().split()]
    with again(path) as ledger:
        missing = 0
        for round_no in set(sent):
            try:
                ledger.commit("run-1", round_no, "train", releases(1))
                missing += 1
            except Reject as error:
                missing += error.code != "round-already-spent"
    return len(sent), missing, len(sent) - len(set(sent))


def test_a_killed_hospital_has_released_nothing_unledgered_and_nothing_twice(tmp_path: Path) -> None:
    for batch in range(KILLS // 30):
        folder = tmp_path / str(batch)
        folder.mkdir()
        sent, missing, repeated = unledgered_and_repeated(folder, 30, ledger_first=True)
        assert sent > 30
        assert (missing, repeated) == (0, 0)


def test_a_kill_right_between_commit_and_upload_leaves_the_round_spent_and_unsent(tmp_path: Path) -> None:
    """The one point at which the two records differ: charged, not sent, and never sent later."""
    path, uploads = tmp_path / "heart.ledger", tmp_path / "uploads"
    fresh(path).shut()
    uploads.touch()

    def dies_at(last: int) -> None:
        with again(path) as ledger, uploads.open("ab", buffering=0) as out:
            ledger.reserve("run-1", PLAN, releases(10**6), Caps(dataset=1e5, year=1e5))
            for round_no in (ledger.report()["runs"][0]["rounds"], last):
                ledger.commit("run-1", round_no, "train", releases(1))
                if round_no == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                out.write(b"%d\n" % round_no)

    kills = KILLS if FULL else 20
    for kill in range(kills):
        child = forked(lambda last=2 * kill + 1: dies_at(last))  # type: ignore[misc]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with again(path) as ledger:
            assert ledger.report()["runs"][0]["rounds"] == 2 * kill + 2, "spent stays"
            with pytest.raises(Reject, match="round-already-spent"):
                ledger.commit("run-1", 2 * kill + 1, "train", releases(1))
    assert [int(line) for line in uploads.read_bytes().split()] == list(range(0, 2 * kills, 2))


def test_the_wrong_order_would_be_caught(tmp_path: Path) -> None:
    """The control: bytes first, ledger second, under the same kills."""
    sent, missing, _ = unledgered_and_repeated(tmp_path, 30, ledger_first=False)
    assert sent > 0
    assert missing > 0
