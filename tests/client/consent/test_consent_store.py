"""The consent store: default no, the latest decision counts, withdrawal at once, append-only, the usage report."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cameo_client.consent.records import MADE_UP_NOTICE, NOTICE, ConsentRecord, Scope, Status, Use, made_up
from cameo_client.consent.store import ConsentStore, Purge
from cameo_protocol.errors import Bug, OperatorError

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ANN, BOB, CEM = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.sqlite") as opened:
        yield opened


def decide(who: str, status: Status, at: datetime, scope: Scope = "model_training", **more: object) -> ConsentRecord:
    return ConsentRecord(
        pseudonym=who, scope=scope, status=status, notice_version=NOTICE.version, notice_sha256=NOTICE.sha256,
        **{"method": "paper", "at": at} | more,  # type: ignore[arg-type]
    )  # fmt: skip


def may(store: ConsentStore, *who: str, scope: Scope = "model_training", now: datetime = NOW) -> list[bool]:
    return store.granted(who, scope, now).tolist()


def test_no_record_is_a_no(store: ConsentStore) -> None:
    assert may(store, ANN, BOB) == [False, False]
    assert store.granted([], "marketing", NOW).shape == (0,)
    assert store.withdrawn("model_training", NOW) == frozenset()


def test_a_grant_counts_for_its_scope_only(store: ConsentStore) -> None:
    assert store.add([decide(ANN, "granted", NOW - DAY)], now=NOW) == 1
    assert may(store, ANN, BOB) == [True, False]
    assert may(store, ANN, scope="marketing") == [False]


def test_withdrawal_takes_effect_before_the_next_question(store: ConsentStore) -> None:
    store.add([decide(ANN, "granted", NOW - DAY), decide(BOB, "granted", NOW - DAY)], now=NOW)
    store.add([decide(ANN, "withdrawn", NOW)], now=NOW)
    assert may(store, ANN, BOB) == [False, True]
    assert store.withdrawn("model_training", NOW) == {ANN}


def test_the_latest_time_counts_whatever_the_order_of_entry(store: ConsentStore) -> None:
    store.add([decide(ANN, "withdrawn", NOW - DAY)], now=NOW)
    store.add([decide(ANN, "granted", NOW - 2 * DAY)], now=NOW)  # an old form, found later
    assert may(store, ANN) == [False]
    store.add([decide(ANN, "granted", NOW - DAY)], now=NOW)  # same time, entered later
    assert may(store, ANN) == [True]


def test_a_refusal_dated_ahead_counts_now_and_a_grant_dated_ahead_does_not(store: ConsentStore) -> None:
    store.add([decide(ANN, "granted", NOW - DAY), decide(ANN, "withdrawn", NOW + DAY)], now=NOW)
    store.add([decide(BOB, "granted", NOW + DAY)], now=NOW)
    assert may(store, ANN, BOB) == [False, False]
    assert may(store, ANN, BOB, now=NOW + 2 * DAY) == [False, True]


def test_a_grant_ends_at_its_expiry(store: ConsentStore) -> None:
    store.add([decide(ANN, "granted", NOW - DAY, expires=NOW)], now=NOW)
    assert may(store, ANN, now=NOW - timedelta(milliseconds=1)) == [True]
    assert may(store, ANN) == [False]
    assert store.counts("model_training", NOW) == {"granted": 0, "expired": 1, "denied": 0, "withdrawn": 0}


def test_minors_need_a_guardian(store: ConsentStore) -> None:
    store.add([decide(ANN, "granted", NOW - DAY), decide(BOB, "granted", NOW - DAY, guardian="G-17")], now=NOW)
    found = store.granted([ANN, BOB, CEM], "model_training", NOW, minors=frozenset({ANN, BOB}))
    assert found.tolist() == [False, True, False]


def test_double_confirmation_where_asked(store: ConsentStore) -> None:
    store.add([decide(ANN, "granted", NOW - DAY, scope="marketing"),
               decide(BOB, "granted", NOW - DAY, scope="marketing", method="double_confirmed")], now=NOW)  # fmt: skip
    assert store.granted([ANN, BOB], "marketing", NOW, double_confirmed=True).tolist() == [False, True]


def test_made_up_decisions_say_so_everywhere(store: ConsentStore) -> None:
    assert not store.fictional()
    store.add(made_up([ANN], ("model_training", "care"), NOW - DAY), now=NOW)
    assert store.fictional()
    assert may(store, ANN) == [True]
    report = store.report(ANN)
    assert report.fictional
    assert {record.notice_sha256 for record in report.decisions} == {MADE_UP_NOTICE.sha256}
    assert "MADE UP" in MADE_UP_NOTICE.text


def test_nothing_can_be_changed_or_deleted(store: ConsentStore, tmp_path: Path) -> None:
    store.add([decide(ANN, "granted", NOW)], now=NOW)
    store.log_use(Use(at=NOW, scope="model_training", action="trained", reference="run-1"), [ANN])
    store.purge(NOW - 100 * DAY, now=NOW)
    raw = sqlite3.connect(tmp_path / "consent.sqlite")
    for table, column in (("consent", "status"), ("use", "action"), ("use_patient", "pseudonym"), ("purge", "uses")):
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)
    raw.close()


def test_the_usage_report_lists_every_decision_and_use(store: ConsentStore) -> None:
    store.add([decide(ANN, "granted", NOW - 3 * DAY), decide(ANN, "withdrawn", NOW)], now=NOW)
    one = Use(at=NOW - 2 * DAY, scope="model_training", action="trained", reference="run-1")
    two = Use(at=NOW - DAY, scope="health_education", action="tagged", reference="pack-2", ground="contract")
    store.log_use(one, [ANN, BOB, ANN])
    store.log_use(two, [ANN])
    report = store.report(ANN)
    assert [record.status for record in report.decisions] == ["granted", "withdrawn"]
    assert report.uses == (one, two)
    assert store.report(BOB).uses == (one,)
    assert store.report(CEM).uses == ()


def test_purging_keeps_the_decision_that_counts_and_is_logged(store: ConsentStore, tmp_path: Path) -> None:
    store.add([decide(ANN, "granted", NOW - 900 * DAY), decide(ANN, "withdrawn", NOW - 800 * DAY),
               decide(BOB, "granted", NOW - 700 * DAY)], now=NOW)  # fmt: skip
    store.log_use(Use(at=NOW - 850 * DAY, scope="model_training", action="trained", reference="old"), [ANN])
    store.log_use(Use(at=NOW - DAY, scope="model_training", action="trained", reference="new"), [ANN])
    assert store.purge(NOW - 365 * DAY, now=NOW) == (1, 1)
    assert may(store, ANN, BOB) == [False, True]
    assert [use.reference for use in store.report(ANN).uses] == ["new"]
    raw = sqlite3.connect(tmp_path / "consent.sqlite")
    assert raw.execute("SELECT consents, uses FROM purge").fetchall() == [(1, 1)]
    assert store.purges() == (Purge(NOW, NOW - 365 * DAY, 1, 1),)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("DELETE FROM consent")
    raw.close()


def test_a_batch_is_kept_whole_or_not_at_all(store: ConsentStore) -> None:
    def batch() -> Iterator[ConsentRecord]:
        yield decide(ANN, "granted", NOW)
        raise OperatorError("some-fault", what="line 2", do="correct it")

    with pytest.raises(OperatorError, match="some-fault"):
        store.add(batch(), now=NOW)
    assert list(store.records()) == []
    assert store.add([decide(ANN, "granted", NOW)], now=NOW) == 1


def test_it_survives_reopening_with_private_permissions(tmp_path: Path) -> None:
    path = tmp_path / "consent.sqlite"
    with ConsentStore.open(path) as first:
        first.add([decide(ANN, "granted", NOW, expires=NOW + DAY, guardian="G")], now=NOW)
        kept = list(first.records())
    with ConsentStore.open(path) as second:
        assert list(second.records()) == kept == [decide(ANN, "granted", NOW, expires=NOW + DAY, guardian="G")]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\1" * 5000])
def test_a_damaged_store_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "consent.sqlite"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match="consent-store-unreadable"):
        ConsentStore.open(path)


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE x (y)")
    other.commit()
    other.close()
    with pytest.raises(OperatorError, match="consent-store-unreadable"):
        ConsentStore.open(path)
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("x",)]


def test_a_locked_store_is_an_operator_error(tmp_path: Path) -> None:
    path = tmp_path / "consent.sqlite"
    with ConsentStore.open(path) as store:
        store._db.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperatorError, match="consent-store-write"):
            store.add([decide(ANN, "granted", NOW)], now=NOW)
        other.execute("ROLLBACK")
        other.close()
        assert store.add([decide(ANN, "granted", NOW)], now=NOW) == 1


def test_times_need_a_zone_and_words_are_checked() -> None:
    with pytest.raises(Bug):
        decide(ANN, "granted", datetime(2026, 1, 1))
    with pytest.raises(Bug):
        decide(ANN, "perhaps", NOW)  # type: ignore[arg-type]
    assert "G-17" not in repr(decide(ANN, "granted", NOW, guardian="G-17"))
