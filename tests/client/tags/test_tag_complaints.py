"""What people complain about in other systems, one test each; see the end of the design page on tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from cameo_client.consent.records import ConsentRecord
from cameo_client.consent.store import ConsentStore
from cameo_client.tags import desk, takeout
from cameo_client.tags.desk import Ward
from cameo_client.tags.guards import GUARDS, consent_given
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.record import write
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Circumstances, Memory, Quality

HIGH: dict[str, Any] = {"sbp": 150.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TagStore]:
    with TagStore(tmp_path / "tags.sqlite") as opened:
        yield opened


@pytest.fixture
def consents(tmp_path: Path) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.sqlite") as opened:
        yield opened


@pytest.fixture
def ward(heart: Any, consents: ConsentStore) -> Ward:
    return Ward(
        facts=heart.frame({"trestbps": 150.0, "chol": 260.0}), catalogue=heart.catalogue, snapshot=date(2026, 5, 20),
        quality=Quality(97.0), models=(), consents=consents, policy=heart.policy, now=heart.noon,
    )  # fmt: skip


def remember(kit: Any, store: TagStore, now: Any) -> dict[str, Any]:
    return {"memory": store.memory(kit.policy, now), "now": now}


def test_mautic_6729_a_cap_is_never_silently_ignored(kit: Any, store: TagStore) -> None:
    """Over all packs, over several applies of one day, and with the reason on the decision."""
    rules = [kit.rule(id=f"r{i}", contact="patient", cooldown_days=1, priority=i) for i in range(4)]
    first = kit.run(rules[:2], [HIGH])
    write(store, first)
    second = kit.run(rules, [HIGH], **remember(kit, store, kit.noon + timedelta(hours=3)))
    assert {one.rule.rule.id: one.contact for one in second.decisions()} == {
        "r0": "contact-cooldown", "r1": "contact-cooldown", "r2": "contact-cap", "r3": "contact-cap",
    }  # fmt: skip


def test_mautic_7881_re_entering_does_not_send_the_same_message_again(kit: Any, store: TagStore) -> None:
    rule = kit.rule(contact="patient", cooldown_days=30)
    for day, (row, contact) in enumerate(((HIGH, "due"), ({"sbp": 100.0}, None), (HIGH, "contact-cooldown"))):
        outcome = kit.run([rule], [row], **remember(kit, store, kit.noon + timedelta(days=day)))
        assert [one.contact for one in outcome.decisions()] == ([contact] if contact else [])
        write(store, outcome)


def test_posthog_matomo_22778_why_is_this_person_not_in_the_segment(store: TagStore, ward: Ward, packs: Path) -> None:
    pack = packs / "heart.yaml"
    desk.approve_pack(store, pack, ward.catalogue, "privacy officer", ward.now)
    desk.apply_packs([pack], ward, store)
    blocked = desk.explain([pack], ward, store, "p0", "cholesterol-high")
    assert (blocked["verdict"], blocked["reason"], blocked["stored"]) == ("blocked", "consent-missing", None)
    assert "no valid consent" in blocked["staff"]
    assert blocked["patient"] == "We keep no such note about you. You have not agreed to this use."
    not_met = desk.explain([pack], ward, store, "p0", "exercise-ischaemia")
    assert not_met["verdict"] in ("not-proposed", "unknown")
    assert not_met["false"] or not_met["unknown"]


def test_membership_is_never_stale(kit: Any, store: TagStore, ward: Ward, consents: ConsentStore, packs: Path) -> None:
    """Withdrawal and expiry take effect at once, whatever the next apply does."""
    pack = packs / "heart.yaml"
    yes = ConsentRecord(pseudonym="p0", scope="health_education", status="granted", notice_version="1",
                        notice_sha256="0" * 64, method="paper", at=ward.now)  # fmt: skip
    consents.add([yes], now=ward.now)
    desk.approve_pack(store, pack, ward.catalogue, "privacy officer", ward.now)
    desk.apply_packs([pack], ward, store)
    soon = ward.now + timedelta(seconds=1)
    consents.add([replace(yes, status="withdrawn", at=soon)], now=soon)
    _, answer = takeout.export_rows(store, consents, ward.policy, "Dr A", soon, form="csv")
    assert answer["rows"] == 1, "the care tag alone"
    late = ward.now + timedelta(days=3660)
    assert store.tags(late) == []
    assert takeout.export_rows(store, consents, ward.policy, "Dr A", late, form="csv")[1]["rows"] == 0


def test_tracardi_414_consent_is_no_optional_node(kit: Any) -> None:
    """It is one of the fixed guards, no evaluation is built without it, and no policy has a switch for it."""
    assert (6, consent_given) in GUARDS
    fields = Circumstances.__dataclass_fields__
    assert fields["consent"].default is fields["consent"].default_factory
    with pytest.raises(TypeError):
        Circumstances(policy=kit.policy, quality=Quality(97.0), now=kit.noon, snapshot=None)  # type: ignore[call-arg]
    assert not any("consent" in name or "guard" in name for name in TagPolicy.model_fields)
    for purpose in ("health_education", "service_reminder", "marketing", "research"):
        outcome = kit.run([kit.rule(purpose=purpose, when="visits_12m >= 3", review="none")], [{"visits_12m": 5}])
        assert not list(outcome.decisions(("stored", "waiting")))


def test_there_is_a_dry_run_and_every_decision_carries_its_rule_version(
    store: TagStore, ward: Ward, packs: Path
) -> None:
    pack = packs / "heart.yaml"
    desk.approve_pack(store, pack, ward.catalogue, "privacy officer", ward.now)
    dry, head = desk.dry_run([pack], ward, store), store.head()
    assert (store.tags(ward.now), store.last_run(), store.head()) == ([], None, head)
    _, done = desk.apply_packs([pack], ward, store)
    assert (dry["tags"], dry["added"], dry["removed"]) == (done["tags"], done["added"], done["removed"])
    for tag in store.tags(ward.now):
        assert (tag.rule_version, tag.pack_version, len(tag.pack_sha256)) == (1, "1.0.0", 64)
        rule = store.rule(tag.pack_sha256, tag.rule)
        assert rule is not None, "the very text that decided is kept"
        assert rule.version == tag.rule_version


def test_memory_is_part_of_a_decision_and_not_of_the_process(kit: Any, store: TagStore, tmp_path: Path) -> None:
    """The caps hold over processes: they come from the file."""
    write(store, kit.run([kit.rule(contact="patient", cooldown_days=5)], [HIGH]))
    with TagStore(tmp_path / "tags.sqlite") as other:
        assert other.memory(kit.policy, kit.noon) == store.memory(kit.policy, kit.noon) != Memory()
