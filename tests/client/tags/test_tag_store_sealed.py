"""The store at rest: nothing about a patient in the file's bytes, and nothing of it opens without its key."""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cameo_client import vault as vaults
from cameo_client.home import NodeHome
from cameo_client.tags.pack import parse_pack
from cameo_client.tags.record import write
from cameo_client.tags.store import StoredTag, TagStore
from cameo_client.vault import KEY, Kek, Vault
from cameo_protocol.errors import OperatorError

PEOPLE = ("pseudonym-one", "pseudonym-two")


@pytest.fixture
def filled(kit: Any, tmp_path: Path) -> Path:
    """A store with a stored and a waiting tag, a verdict, a message, an export and a look."""
    path = tmp_path / "tags.sqlite"
    rules = [kit.rule(contact="patient", cooldown_days=5), kit.rule(id="waits", review="two_person")]
    pack, _, _ = parse_pack(kit.text(*rules), "p")
    assert pack is not None
    with TagStore(path) as store:
        store.approve_pack(pack, "Officer Olga", kit.noon)
        outcome = kit.run(rules, [{"sbp": 150.0}, {"sbp": 160.0}])
        write(store, replace(outcome, world=replace(outcome.world, pseudonyms=PEOPLE)))
        store.review(PEOPLE[0], "waits", "Doctor Dora", "approved", kit.noon)
        store.log_export("Nurse Nina", "csv", store.tags(kit.noon, state="stored"), "0" * 64, kit.noon)
        store.log_access("Nurse Nina", "explained", [(PEOPLE[1], "bp-high")], kit.noon)
    return path


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


def test_no_pseudonym_tag_reason_or_person_in_the_bytes(filled: Path, kit: Any) -> None:
    db = sqlite3.connect(filled)
    assert db.execute("SELECT count(*) FROM tags").fetchone() == (4,)
    raw = everything(filled.parent)
    for word in (
        *PEOPLE,
        "bp-high",
        "waits",
        "review-two-person",
        "sbp",
        "Olga",
        "Dora",
        "Nina",
        "clinic",
        "explained",
    ):
        assert word.encode() not in raw, word
    with TagStore(filled) as store:
        assert {tag.pseudonym for tag in store.tags(kit.noon)} == set(PEOPLE)
        assert store.approvals(PEOPLE[0], "pack/waits", 1) == 1
        assert [row["action"] for row in store.accesses(PEOPLE[1])] == ["exported as csv", "explained"]
        assert {row["kind"] for row in store.entries()} == {"pack-approved", "applied", "reviewed", "exported", "seen"}


def test_a_copy_without_the_key_does_not_open(filled: Path, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen" / "tags.sqlite"
    stolen.parent.mkdir()
    shutil.copy(filled, stolen)
    with pytest.raises(OperatorError) as error:
        TagStore(stolen)
    assert error.value.code == "vault-key-wrong"
    with pytest.raises(OperatorError) as error:
        TagStore(filled, Vault(Kek(b"x" * KEY)))
    assert error.value.code == "vault-key-wrong"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tags SET body = (SELECT body FROM tags AS o WHERE o.who <> tags.who AND o.state = tags.state)",
        "UPDATE tags SET state = 'stored'",
        "UPDATE tags SET expires = '2099-01-01'",
        "UPDATE tags SET body = substr(body, 1, length(body) - 1)",
    ],
)
def test_a_row_that_was_changed_or_moved_does_not_open(filled: Path, kit: Any, change: str) -> None:
    """A waiting tag cannot be made a stored one, nor one patient's tag another's, by editing the file."""
    db = sqlite3.connect(filled)
    db.execute(change)
    db.commit()
    db.close()
    with TagStore(filled) as store, pytest.raises(OperatorError) as error:
        store.tags(kit.noon)
    assert error.value.code == "tag-store-unusable"


def test_the_chain_is_verified_without_a_key(filled: Path) -> None:
    from cameo_client.tags import chain

    assert chain.verify(sqlite3.connect(filled))[0] == 5


def test_a_new_key_wraps_the_stores_keys_again(filled: Path, kit: Any) -> None:
    home = NodeHome(filled.parent)
    with TagStore(filled) as store:
        before = store.tags(kit.noon)
    vaults.rotate(home, {})
    with TagStore(filled) as store:
        assert store.tags(kit.noon) == before
    vaults.finish(home, {})
    with TagStore(filled) as store:
        assert store.tags(kit.noon) == before


def test_fifty_thousand_tags(tmp_path: Path, kit: Any) -> None:
    """Sealing costs little: CPU seconds, generous, since the machine may be busy."""
    outcome = kit.run([kit.rule()], [{"sbp": 150.0}])
    with TagStore(tmp_path / "tags.sqlite") as store:
        write(store, outcome)
        (one,) = store.tags(kit.noon)
        many = [StoredTag(**{**vars(one), "pseudonym": f"{number:032x}"}) for number in range(50_000)]
        start = time.process_time()
        with store.transaction() as db:
            for tag in many:
                store.put(db, tag)
        written = time.process_time()
        assert len(store.tags(kit.noon)) == 50_001
        read = time.process_time()
    print(f"50,000 tags: {written - start:.2f} s to write, {read - written:.2f} s to read")
    assert written - start < 6
    assert read - written < 6
