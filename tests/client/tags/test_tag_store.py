"""The store: what is kept and what never is, history, reviews, messages, the chained log, damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cameo_client.tags.chain import GENESIS
from cameo_client.tags.pack import parse_pack
from cameo_client.tags.record import write
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Memory
from cameo_protocol.errors import OperatorError

HIGH: dict[str, Any] = {"sbp": 150.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tags.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[TagStore]:
    with TagStore(path) as opened:
        yield opened


def approve(kit: Any, store: TagStore, *rules: dict[str, Any], person: str = "officer") -> None:
    pack, _, findings = parse_pack(kit.text(*rules), "p")
    assert pack is not None, findings
    store.approve_pack(pack, person, kit.noon)


def remember(kit: Any, store: TagStore, days: float = 0) -> dict[str, Any]:
    now = kit.noon + timedelta(days=days)
    return {"memory": store.memory(kit.policy, now), "now": now}


def test_a_stored_tag_carries_all_that_led_to_it(kit: Any, store: TagStore) -> None:
    rule = kit.rule(when="risk_t2d_12m >= 0.3 AND NOT dx_t2d", version=3,
                    model={"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 9})  # fmt: skip
    models = kit.models("risk_t2d_12m", version=4, model_id="bundle", round=31)
    outcome = kit.run([rule], [{"risk_t2d_12m": 0.4, "dx_t2d": False}], models=models)
    assert write(store, outcome) == {"added": 1, "removed": 0, "changed": 0, "unchanged": 0}
    (tag,) = store.tags(kit.noon)
    assert (tag.pseudonym, tag.tag, tag.rule, tag.rule_version) == ("p0", "bp-high", "pack/bp-high", 3)
    assert (tag.state, tag.reason, tag.guard, tag.purpose) == ("stored", "", 0, "care_management")
    assert tag.because == ("risk_t2d_12m >= 0.3", "NOT dx_t2d")
    assert (tag.snapshot, tag.pack, tag.pack_version) == ("2026-05-20", "pack", "1.0.0")
    assert (tag.model, tag.model_version, tag.model_id, tag.model_round) == ("risk_t2d_12m", 4, "bundle", 31)
    assert tag.pack_sha256 == outcome.world.rules[0].pack_sha256
    assert tag.since == tag.decided == "2026-06-01T12:00:00.000000+00:00"
    assert tag.expires == "2026-08-30T12:00:00.000000+00:00"


def test_a_blocked_tag_leaves_no_trace_of_the_patient(kit: Any, store: TagStore, path: Path) -> None:
    """Not a row, not a byte: keeping the inference would be processing it."""
    outcome = kit.run([kit.rule(purpose="health_education")], [HIGH])
    assert kit.fates(outcome, "bp-high") == ["blocked consent-missing"]
    write(store, outcome)
    assert store.tags(kit.noon) == []
    assert store.history("p0") == []
    run = store.last_run()
    assert run is not None
    assert run["counts"] == [
        {"tag": "bp-high", "purpose": "health_education", "stored": 0, "waiting": {}, "blocked": {"consent-missing": 1}}
    ]
    index = store.cipher.index("who", "p0")
    store.close()
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    assert b"p0" not in everything
    assert index not in everything


def test_added_unchanged_changed_removed(kit: Any, store: TagStore) -> None:
    rule = kit.rule()
    assert write(store, kit.run([rule], [HIGH]))["added"] == 1
    again = kit.run([rule], [HIGH], **remember(kit, store, 1))
    assert write(store, again) == {"added": 0, "removed": 0, "changed": 0, "unchanged": 1}
    (tag,) = store.tags(kit.noon)
    assert tag.since[:10] == "2026-06-01"
    assert tag.decided[:10] == "2026-06-02"
    newer = kit.rule(version=2, explain="Another text.")
    assert write(store, kit.run([newer], [HIGH], **remember(kit, store, 2)))["changed"] == 1
    assert write(store, kit.run([newer], [{"sbp": 120.0}], **remember(kit, store, 3)))["removed"] == 1
    assert store.tags(kit.noon) == []
    assert [(row["change"], row["why"]) for row in store.history("p0")] == [
        ("added", ""), ("changed", ""), ("removed", "not-proposed"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "changes", "why"),
    [
        ({}, {}, "unknown"),
        ({**HIGH, "objected": True}, {}, "patient-objected"),
        ({**HIGH, "deceased": True}, {}, "patient-deceased"),
        (HIGH, {"approved_packs": set()}, "pack-not-approved"),
    ],
)
def test_history_says_why_a_tag_went(
    kit: Any, store: TagStore, row: dict[str, Any], changes: dict[str, Any], why: str
) -> None:
    write(store, kit.run([kit.rule()], [HIGH]))
    write(store, kit.run([kit.rule()], [row], **changes))
    assert store.tags(kit.noon) == []
    assert store.history("p0")[-1]["why"] == why


def test_a_patient_who_left_the_facts_loses_the_tag(kit: Any, store: TagStore) -> None:
    write(store, kit.run([kit.rule()], [HIGH, HIGH]))
    write(store, kit.run([kit.rule()], [HIGH]))
    assert [tag.pseudonym for tag in store.tags(kit.noon)] == ["p0"]
    assert store.history("p1")[-1]["why"] == "patient-not-in-facts"


def test_tags_of_other_rules_stay_until_they_expire(kit: Any, store: TagStore) -> None:
    write(store, kit.run([kit.rule()], [HIGH]))
    other = kit.rule(id="other")
    write(store, kit.run([other], [HIGH], **remember(kit, store, 10)))
    assert {tag.tag for tag in store.tags(kit.noon + timedelta(days=10))} == {"bp-high", "other"}
    assert {tag.tag for tag in store.tags(kit.noon + timedelta(days=90))} == {"other"}
    write(store, kit.run([other], [HIGH], **remember(kit, store, 90)))
    assert store.history("p0")[-1]["why"] == "expired"


def test_an_expired_tag_is_not_held(kit: Any, store: TagStore) -> None:
    write(store, kit.run([kit.rule()], [HIGH]))
    assert store.memory(kit.policy, kit.noon).held == {"pack/bp-high": frozenset({"p0"})}
    assert store.memory(kit.policy, kit.noon + timedelta(days=90)).held == {}


def test_review_makes_a_waiting_tag_stored_at_the_next_apply(kit: Any, store: TagStore) -> None:
    rule = kit.rule(review="two_person")
    approve(kit, store, rule)
    write(store, kit.run([rule], [HIGH]))
    for number, person in enumerate(("Dr A", "Dr A", "Dr B"), start=1):
        (tag,) = store.tags(kit.noon)
        assert tag.state == "waiting", number
        store.review("p0", "bp-high", person, "approved", kit.noon)
        write(store, kit.run([rule], [HIGH], **remember(kit, store)))
    (tag,) = store.tags(kit.noon)
    assert (tag.state, tag.reason) == ("stored", "")
    later = kit.run([rule], [HIGH], **remember(kit, store, 90))
    assert kit.fates(later, "bp-high") == ["waiting review-two-person"], "an approval lasts as long as the tag's term"


def test_a_rejection_removes_and_keeps_away(kit: Any, store: TagStore) -> None:
    rule = kit.rule(review="always")
    approve(kit, store, rule)
    write(store, kit.run([rule], [HIGH]))
    store.review("p0", "bp-high", "Dr A", "rejected", kit.noon)
    assert store.tags(kit.noon) == []
    assert store.history("p0")[-1]["why"] == "review-rejected"
    again = kit.run([rule], [HIGH], **remember(kit, store))
    assert kit.fates(again, "bp-high") == ["blocked review-rejected"]


def test_four_eyes(kit: Any, store: TagStore) -> None:
    rule = kit.rule(review="always", owner="dr owner")
    with pytest.raises(OperatorError, match="self-review"):
        approve(kit, store, rule, person="Dr  Owner")
    approve(kit, store, rule)
    write(store, kit.run([rule], [HIGH]))
    with pytest.raises(OperatorError, match="self-review"):
        store.review("p0", "bp-high", "DR OWNER", "approved", kit.noon)
    with pytest.raises(OperatorError, match="tag-not-waiting"):
        store.review("p0", "nothing", "Dr A", "approved", kit.noon)
    with pytest.raises(OperatorError, match="tag-not-waiting"):
        store.review("p0", "bp-high", "Dr A", "approved", kit.noon + timedelta(days=91))


def test_one_content_of_a_pack_is_in_force(kit: Any, store: TagStore) -> None:
    first, second = kit.rule(), kit.rule(when="sbp >= 150", version=2)
    approve(kit, store, first)
    one = store.approved_packs()
    approve(kit, store, second)
    two = store.approved_packs()
    assert len(one) == len(two) == 1
    assert one != two
    approve(kit, store, first)
    assert store.approved_packs() == one
    found = store.pack_in_force("pack")
    assert found is not None
    assert found.sha256() in one
    assert store.pack_in_force("other") is None


def test_messages_are_counted_since_midnight_in_the_policys_zone(kit: Any, store: TagStore) -> None:
    rule = kit.rule(contact="patient", cooldown_days=5)
    write(store, kit.run([rule], [HIGH]))
    memory = store.memory(kit.policy, kit.noon + timedelta(hours=9, minutes=59))  # 23:59 in Berlin
    assert memory.contacts_today == {"p0": 1}
    assert memory.contacted == {("p0", "pack/bp-high"): kit.noon}
    assert store.memory(kit.policy, kit.noon + timedelta(hours=10)).contacts_today == {}
    gone = kit.run([rule], [{"sbp": 120.0}], **remember(kit, store, 1))
    write(store, gone)
    back = kit.run([rule], [HIGH], **remember(kit, store, 2))
    assert [one.contact for one in back.decisions()] == ["contact-cooldown"]


def test_safety_messages_do_not_use_up_the_day(kit: Any, store: TagStore) -> None:
    write(store, kit.run([kit.rule(contact="safety", cooldown_days=1)], [HIGH]))
    assert store.memory(kit.policy, kit.noon).contacts_today == {}


def test_purge_keeps_the_term(kit: Any, store: TagStore) -> None:
    write(store, kit.run([kit.rule(contact="patient", cooldown_days=5)], [HIGH]))
    late = kit.noon + timedelta(days=91)
    assert store.purge(kit.noon, kit.noon - timedelta(days=1)) == 0
    assert store.purge(late, late) == 1
    assert store.history("p0") == []
    assert store.memory(kit.policy, late) == Memory()
    store.verify()


def test_the_log_is_a_chain(kit: Any, store: TagStore) -> None:
    assert store.verify() == store.head() == (0, GENESIS)
    approve(kit, store, kit.rule())
    write(store, kit.run([kit.rule()], [HIGH]))
    assert store.verify() == store.head()
    assert store.head()[0] == 2


@pytest.mark.parametrize(
    ("tamper", "entry"),
    [
        ("UPDATE log SET body = (SELECT body FROM log WHERE seq = 3) WHERE seq = 2", 2),
        ("UPDATE log SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 1", 1),
        ("DELETE FROM log WHERE seq = 1", 1),
        ("DELETE FROM log WHERE seq = 2", 2),
        ("UPDATE log SET seq = 9 WHERE seq = 3", 3),
    ],
)
def test_tampering_with_the_log_is_found(kit: Any, path: Path, tamper: str, entry: int) -> None:
    with TagStore(path) as store:
        approve(kit, store, kit.rule())
        write(store, kit.run([kit.rule()], [HIGH]))
        write(store, kit.run([kit.rule()], [HIGH]))
    db = sqlite3.connect(path)
    assert db.execute(tamper).rowcount == 1
    db.commit()
    db.close()
    with TagStore(path) as store, pytest.raises(OperatorError) as caught:
        store.verify()
    assert caught.value.code == "tag-log-broken"
    assert f"entry {entry} " in caught.value.what


def test_an_entry_that_was_rewritten_with_a_fitting_hash_is_found_by_the_next_one(kit: Any, path: Path) -> None:
    from cameo_client.tags.chain import _hash

    with TagStore(path) as store:
        approve(kit, store, kit.rule())
        write(store, kit.run([kit.rule()], [HIGH]))
    db = sqlite3.connect(path)
    seq, at, kind, body, previous, _ = db.execute("SELECT * FROM log WHERE seq = 1").fetchone()
    body = body[:-1] + bytes([body[-1] ^ 1])
    db.execute("UPDATE log SET body = ?, hash = ? WHERE seq = 1", (body, _hash(seq, at, kind, body, previous)))
    db.commit()
    db.close()
    with TagStore(path) as store, pytest.raises(OperatorError, match="entry 2 "):
        store.verify()


def test_a_write_that_fails_changes_nothing(kit: Any, store: TagStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from cameo_client.tags import chain

    write(store, kit.run([kit.rule()], [HIGH]))
    before, head = store.tags(kit.noon), store.head()

    def fail(*_: object) -> str:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(chain, "append", fail)
    with pytest.raises(OperatorError, match="tag-store-write"):
        write(store, kit.run([kit.rule()], [{"sbp": 100.0}]))
    assert (store.tags(kit.noon), store.head()) == (before, head)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\x00" * 2000])
def test_a_damaged_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(OperatorError, match="tag-store-unusable"):
        TagStore(path)


def test_a_store_of_another_version_is_refused(path: Path) -> None:
    TagStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(OperatorError, match="tag-store-unusable"):
        TagStore(path)


def test_the_file_is_for_its_owner_only(path: Path, store: TagStore) -> None:
    assert path.stat().st_mode & 0o077 == 0
