"""What a hospital's ledger promises, one example each."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from ledger_kit import CAPS, DATASET, DAY, DELTA, PLAN, Clock, again, fresh, releases

from cameo_client.ledger import Caps, Ledger
from cameo_protocol.errors import Bug, ExitCode, OperatorError, Reject
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import Release


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heart.ledger"


def cost(count: int, sigma: float = 40.0) -> float:
    return epsilon([Release(sigma=sigma, q=1.0, count=count)], DELTA)


def test_reserve_commit_close(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(33), CAPS)
    assert ledger.spent() == 0
    assert ledger.reserved() == ledger.held() == pytest.approx(cost(33))
    receipt = ledger.commit("run-1", 0, "train", releases(1), epoch=1)
    assert receipt.head == ledger.head()
    assert receipt.head.entries == 3
    assert ledger.spent() == pytest.approx(cost(1))
    assert ledger.reserved() == pytest.approx(cost(32))
    assert ledger.held() == pytest.approx(cost(33))
    ledger.close("run-1")
    assert ledger.reserved() == 0
    assert ledger.held() == ledger.spent() == pytest.approx(cost(1))
    ledger.close("run-1")  # a repeated end of the same run changes nothing
    assert ledger.head().entries == 4


def test_everything_is_there_after_reopening(path: Path) -> None:
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(33), CAPS)
        ledger.commit("run-1", 0, "train", releases(1))
        head, report = ledger.head(), ledger.report(CAPS)
    with again(path) as ledger:
        assert ledger.head() == head == ledger.verify()
        assert ledger.report(CAPS) == report
        assert ledger.open_runs() == ("run-1",)


def test_epsilon_is_composed_over_runs_and_never_added(path: Path) -> None:
    ledger = fresh(path)
    for run in ("run-1", "run-2"):
        ledger.reserve(run, PLAN, releases(30), CAPS)
        for round_no in range(30):
            ledger.commit(run, round_no, "train", releases(1))
        ledger.close(run)
    assert ledger.spent() == pytest.approx(cost(60))
    assert ledger.spent() < 2 * cost(30)


def test_over_the_cap_is_refused_with_what_is_left_and_who_can_change_it(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(300), CAPS)
    ledger.commit("run-1", 0, "train", releases(200))
    before = ledger.head()
    with pytest.raises(OperatorError) as caught:
        ledger.reserve("run-2", PLAN, releases(600), CAPS)
    error = caught.value
    assert (error.code, error.exit_code) == ("budget-spent", ExitCode.POLICY)
    left = 3.0 - cost(300)
    for number in (cost(600), cost(200), cost(300), cost(900), left):
        assert f"{number:.3f}" in error.what
    assert "the cap is 3" in error.what
    assert "data protection officer" in error.do
    assert "epsilon_per_year" in error.do
    assert ledger.head() == before
    assert ledger.left(CAPS).year == pytest.approx(left)
    assert ledger.left(CAPS).dataset == pytest.approx(8.0 - cost(300))


def test_a_run_that_costs_exactly_the_cap_is_accepted(path: Path) -> None:
    ledger = fresh(path)
    caps = Caps(dataset=cost(100), year=cost(100))
    ledger.reserve("run-1", PLAN, releases(100), caps)
    with pytest.raises(OperatorError, match="budget-spent"):
        ledger.reserve("run-2", PLAN, releases(1), caps)


def test_yearly_caps_throttle_and_the_data_sets_cap_stays(path: Path) -> None:
    clock = Clock()
    ledger = fresh(path, clock)
    small, caps = releases(300), Caps(dataset=cost(750), year=cost(400))

    def spend(run: str) -> None:
        ledger.reserve(run, PLAN, small, caps)
        ledger.commit(run, 0, "train", small)
        ledger.close(run)

    spend("run-1")
    clock.at += 364 * DAY
    with pytest.raises(OperatorError, match="in 365 days"):
        spend("run-2")
    clock.at += DAY
    spend("run-2")
    assert ledger.spent_in_year() == pytest.approx(cost(300))
    clock.at += 365 * DAY
    assert ledger.spent_in_year() == 0
    with pytest.raises(OperatorError, match="for this data set"):
        spend("run-3")
    assert ledger.spent() == pytest.approx(cost(600))
    assert len(ledger.report()["years"]) == 2


def test_a_clock_set_back_frees_nothing(path: Path) -> None:
    clock = Clock()
    ledger = fresh(path, clock)
    caps = Caps(dataset=8.0, year=cost(40))
    ledger.reserve("run-1", PLAN, releases(40), caps)
    ledger.commit("run-1", 0, "train", releases(40))
    ledger.close("run-1")
    clock.at -= 500 * DAY
    with pytest.raises(OperatorError, match="budget-spent"):
        ledger.reserve("run-2", PLAN, releases(1), caps)
    ledger.reserve("run-2", PLAN, releases(1), CAPS)
    entry = ledger.commit("run-2", 0, "train", releases(1)).entry
    assert entry.at == 1.7e9
    assert ledger.spent_in_year() == pytest.approx(cost(41))
    ledger.verify()


def test_a_round_is_spent_once(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    ledger.commit("run-1", 3, "train", releases(1), epoch=1)
    for kind in ("train", "evaluate"):
        with pytest.raises(Reject, match="round-already-spent"):
            ledger.commit("run-1", 3, kind, releases(1), epoch=1)
    ledger.commit("run-1", 3, "train", releases(1), epoch=2)
    ledger.reserve("run-2", PLAN, releases(10), CAPS)
    ledger.commit("run-2", 3, "train", releases(1), epoch=1)
    assert ledger.spent() == pytest.approx(cost(3))


def test_only_the_byte_identical_upload_may_be_sent_again(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    first = ledger.commit("run-1", 0, "train", releases(1), upload=b"a" * 32)
    assert ledger.commit("run-1", 0, "train", releases(1), upload=b"a" * 32) == first
    for kind, count, upload in (
        ("train", 1, b"b" * 32),
        ("train", 1, b""),
        ("train", 2, b"a" * 32),
        ("audit", 1, b"a" * 32),
    ):
        with pytest.raises(Reject, match="round-already-spent"):
            ledger.commit("run-1", 0, kind, releases(count), upload=upload)
    assert ledger.spent() == pytest.approx(cost(1))


def test_beyond_the_reserve_is_refused(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(2), CAPS)
    for asked in (releases(3), releases(1, sigma=39.0), releases(1, sigma=41.0), releases(1, task="segment")):
        with pytest.raises(Reject, match="reserve-exceeded"):
            ledger.commit("run-1", 0, "train", asked)
    ledger.commit("run-1", 0, "train", releases(2))
    with pytest.raises(Reject, match="reserve-exceeded"):
        ledger.commit("run-1", 1, "train", releases(1))


def test_only_admitted_open_runs_may_commit(path: Path) -> None:
    ledger = fresh(path)
    for act in (lambda: ledger.commit("run-1", 0, "train", releases(1)), lambda: ledger.close("run-1")):
        with pytest.raises(Reject, match="run-unknown"):
            act()
    ledger.reserve("run-1", PLAN, releases(2), CAPS)
    ledger.close("run-1")
    with pytest.raises(Reject, match="run-closed"):
        ledger.commit("run-1", 0, "train", releases(1))
    with pytest.raises(Reject, match="run-known"):
        ledger.reserve("run-1", PLAN, releases(2), CAPS)


def test_the_same_invitation_again_reserves_nothing_more(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    head = ledger.head()
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    assert ledger.head() == head
    for plan, wanted in (("q" * 64, releases(10)), (PLAN, releases(11))):
        with pytest.raises(Reject, match="run-known"):
            ledger.reserve("run-1", plan, wanted, CAPS)


def test_an_echo_ahead_of_the_ledger_is_a_rollback(path: Path, tmp_path: Path) -> None:
    with fresh(path) as ledger:
        ledger.check_echo(0, b"")
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
        ledger.commit("run-1", 0, "train", releases(1))
        old = ledger.head()
        ledger.check_echo(*old)
    backup = path.read_bytes()
    with again(path) as ledger:
        newer = ledger.commit("run-1", 1, "train", releases(1)).head
        ledger.check_echo(*old)
        ledger.check_echo(*newer)
        with pytest.raises(OperatorError, match="ledger-rolled-back"):
            ledger.check_echo(newer.entries, b"x" * 32)
    path.write_bytes(backup)
    with again(path) as ledger:
        ledger.check_echo(*old)
        with pytest.raises(OperatorError) as caught:
            ledger.check_echo(*newer)
        assert (caught.value.code, caught.value.exit_code) == ("ledger-rolled-back", ExitCode.POLICY)
        ledger.commit("run-1", 1, "train", releases(1))
        ledger.commit("run-1", 2, "train", releases(1))
        ledger.check_echo(*old)
    for count in (0, -1):
        with again(path) as ledger, pytest.raises(OperatorError, match="ledger-rolled-back"):
            ledger.check_echo(count, newer.hash)


def test_a_fork_of_the_history_is_a_rollback_too(path: Path) -> None:
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
    backup = path.read_bytes()
    with again(path) as ledger:
        seen = ledger.commit("run-1", 0, "train", releases(1)).head
    path.write_bytes(backup)
    with again(path, Clock(1.8e9)) as ledger:
        for round_no in range(3):
            ledger.commit("run-1", round_no, "train", releases(1))
        with pytest.raises(OperatorError, match="ledger-rolled-back"):
            ledger.check_echo(*seen)


def test_a_running_node_notices_an_older_or_another_file(path: Path, tmp_path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    backup = path.read_bytes()
    ledger.commit("run-1", 0, "train", releases(1))
    (tmp_path / "copy").write_bytes(backup)
    (tmp_path / "copy").rename(path)
    with pytest.raises(OperatorError, match="replaced or removed"):
        ledger.commit("run-1", 1, "train", releases(1))
    path.unlink()
    with pytest.raises(OperatorError, match="replaced or removed"):
        ledger.commit("run-1", 1, "train", releases(1))


def test_a_ledger_is_never_reset_or_taken_for_another(path: Path) -> None:
    with pytest.raises(OperatorError, match="ledger-missing"):
        again(path)
    fresh(path).shut()
    before = path.read_bytes()
    with pytest.raises(OperatorError, match="ledger-exists"):
        fresh(path)
    for dataset, delta, code in (("lung", DELTA, "ledger-other-dataset"), (DATASET, 1e-6, "ledger-other-delta")):
        with pytest.raises(OperatorError) as caught:
            Ledger.open(path, dataset=dataset, delta=delta, clock=Clock())
        assert caught.value.code == code
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_only_the_nodes_user_reads_the_file(path: Path) -> None:
    fresh(path).shut()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_or_foreign_file_is_no_ledger(path: Path, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE entry (seq)").connection.close()
    for content in (b"", b"not a database", (tmp_path / "other").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(OperatorError) as caught:
            again(path)
        assert (caught.value.code, caught.value.exit_code) == ("ledger-corrupt", ExitCode.DATA)
    path.unlink()
    path.mkdir()
    with pytest.raises(OperatorError, match="ledger-missing"):
        again(path)


def test_nothing_in_the_file_can_be_changed_by_ordinary_sql(path: Path) -> None:
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
    db = sqlite3.connect(path)
    for statement in ("DELETE FROM entry WHERE seq = 2", "UPDATE entry SET body = x'00' WHERE seq = 2"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            db.execute(statement)
    db.close()


def test_hands_in_the_file_are_named_by_their_entry(path: Path) -> None:
    with fresh(path) as ledger:
        ledger.reserve("run-1", PLAN, releases(10), CAPS)
        for round_no in range(4):
            ledger.commit("run-1", round_no, "train", releases(1))
    sound = path.read_bytes()
    for tampering, named in (
        ("DELETE FROM entry WHERE seq = 4", "entry 4: it is missing"),
        ("DELETE FROM entry WHERE seq = 6", "entry 6: not what the file's head says"),
        ("UPDATE entry SET body = (SELECT body FROM entry WHERE seq = 3) WHERE seq = 5", "entry 5: its hash"),
        ("UPDATE entry SET hash = zeroblob(32) WHERE seq = 1", "entry 1: its hash"),
        ("UPDATE head SET count = 3", "entry 4: not what the file's head says"),
        ("DELETE FROM head", "it has no head"),
        ("UPDATE entry SET body = 'text' WHERE seq = 2", "entry 2:"),
    ):
        path.write_bytes(sound)
        db = sqlite3.connect(path)
        triggers = [row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
        db.executescript(
            "DROP TRIGGER entry_stays; DROP TRIGGER entry_kept; " + ";".join([tampering.replace("'text'", "x'00'"), ""])
        )
        for trigger in triggers:
            db.execute(trigger)
        db.commit()
        db.close()
        with pytest.raises(OperatorError) as caught:
            again(path)
        assert caught.value.code == "ledger-corrupt"
        assert named in caught.value.what


def test_what_is_no_entry_is_our_own_bug(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(10), CAPS)
    twice = releases(1) + releases(1)
    for act in (
        lambda: ledger.reserve("", PLAN, releases(1), CAPS),
        lambda: ledger.reserve("a\nb", PLAN, releases(1), CAPS),
        lambda: ledger.reserve("run-2", PLAN, (), CAPS),
        lambda: ledger.reserve("run-2", PLAN, twice, CAPS),
        lambda: ledger.commit("run-1", -1, "train", releases(1)),
        lambda: ledger.commit("run-1", 0, "train", releases(1), upload=b"short"),
        lambda: ledger.commit("run-1", 2**31, "train", releases(1)),
    ):
        with pytest.raises(Bug, match="ledger-entry"):
            act()
    with pytest.raises(Bug, match="caps-invalid"):
        Caps(dataset=0.0, year=1.0)
    with pytest.raises(Bug, match="ledger-entry"):
        fresh(path.with_name("other"), delta=1.0)
    assert ledger.head().entries == 2


def test_threads_take_turns(path: Path) -> None:
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(64), CAPS)
    threads = [
        threading.Thread(target=lambda i=i: [ledger.commit("run-1", i * 8 + k, "train", releases(1)) for k in range(8)])
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.verify().entries == 66
    assert ledger.spent() == pytest.approx(cost(64))
