"""The commands as the command line calls them, on the shipped packs, a real consent store and a real tag store."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cameo_client.consent.records import ConsentRecord
from cameo_client.consent.store import ConsentStore
from cameo_client.tags import author, desk, takeout
from cameo_client.tags.desk import Ward
from cameo_client.tags.policy import Exports
from cameo_client.tags.render import text
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Quality
from cameo_protocol.errors import ExitCode, OperatorError

TODAY = date(2026, 6, 1)
# p0 stored and blocked, p1 waiting, p2 nothing known, p3 consents to education
ROWS: list[dict[str, Any]] = [
    {"trestbps": 150.0, "chol": 260.0, "risk_heart_disease": 0.7, "segment": 1, "segment_strength": 0.9},
    {
        "trestbps": 120.0,
        "exang": True,
        "oldpeak": 2.0,
        "risk_heart_disease": 0.4,
        "segment": 2,
        "segment_strength": 0.3,
    },
    {},
    {"trestbps": 120.0, "chol": 260.0, "risk_heart_disease": 0.1, "segment": 3, "segment_strength": 0.6},
]


def record(name: str, scope: str, status: str, at: Any, **more: Any) -> ConsentRecord:
    return ConsentRecord(pseudonym=name, scope=scope, status=status, notice_version="1", notice_sha256="0" * 64,
                         method="paper", at=at, **more)  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TagStore]:
    with TagStore(tmp_path / "tags.sqlite") as opened:
        yield opened


@pytest.fixture
def consents(tmp_path: Path, heart: Any) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.sqlite") as opened:
        opened.add([record("p3", "health_education", "granted", heart.noon - timedelta(days=9))], now=heart.noon)
        yield opened


@pytest.fixture
def pack(packs: Path) -> Path:
    return packs / "heart.yaml"


@pytest.fixture
def ward(heart: Any, consents: ConsentStore) -> Ward:
    return Ward(
        facts=heart.frame(*ROWS),
        catalogue=heart.catalogue,
        snapshot=date(2026, 5, 20),
        quality=Quality(97.0),
        models=heart.models("risk_heart_disease", "segment"),
        consents=consents,
        policy=heart.policy,
        now=heart.noon,
    )


@pytest.fixture
def in_force(store: TagStore, pack: Path, heart: Any) -> dict[str, Any]:
    return desk.approve_pack(store, pack, heart.catalogue, "privacy officer", heart.noon)


def at(ward: Ward, **changes: Any) -> Ward:
    return Ward(**{**vars(ward), **changes})


def cells(answer: dict[str, Any]) -> dict[str, tuple[int, dict[str, int], dict[str, int]]]:
    return {tag["tag"]: (tag["stored"], tag["waiting"], tag["blocked"]) for tag in answer["tags"]}


def test_nothing_is_applied_before_a_pack_is_approved(store: TagStore, pack: Path, ward: Ward) -> None:
    with pytest.raises(OperatorError, match="pack-not-approved") as caught:
        desk.apply_packs([pack], ward, store)
    assert caught.value.exit_code == ExitCode.POLICY
    assert "cameo-node tags approve-pack --as NAME" in str(caught.value.do)
    dry = desk.dry_run([pack], ward, store)
    assert cells(dry)["bp-reading-high"] == (1, {}, {}), "whoever is to approve it sees what it would do"
    assert dry["not_approved"] == ["heart"]
    assert "the pack heart is not approved yet" in text(dry)
    assert desk.explain([pack], ward, store, "p0", "bp-reading-high")["reason"] == "pack-not-approved"


def test_the_whole_way(store: TagStore, pack: Path, ward: Ward, in_force: dict[str, Any]) -> None:
    assert "in force: heart 1.0.0" in text(in_force)
    dry = desk.dry_run([pack], ward, store)
    assert store.tags(ward.now) == []
    _, applied = desk.apply_packs([pack], ward, store)
    assert applied["tags"] == dry["tags"]
    assert (dry["added"], dry["removed"], dry["not_approved"]) == (applied["added"], 0, [])
    assert cells(applied) == {
        "heart-risk-high": (1, {}, {}),
        "heart-risk-moderate": (0, {}, {"consent-missing": 2}),
        "heart-group-one": (1, {}, {}),
        "heart-group-two": (0, {}, {}),
        "heart-group-three": (1, {}, {}),
        "bp-reading-high": (1, {}, {}),
        "cholesterol-high": (1, {}, {"consent-missing": 1}),
        "exercise-ischaemia": (0, {"review-always": 1}, {}),
        "heart-sport-offer": (0, {}, {"consent-missing": 1}),
    }
    assert "bp-reading-high" in text(applied)
    assert desk.apply_packs([pack], ward, store)[1]["unchanged"] == applied["added"]
    run = store.last_run()
    assert run is not None
    assert run["counts"] == applied["tags"]


def test_every_use_is_logged_for_the_patient(store: TagStore, pack: Path, ward: Ward, in_force: Any) -> None:
    desk.apply_packs([pack], ward, store)
    uses = ward.consents.report("p3").uses
    assert {(use.scope, use.ground == "consent") for use in uses} == {("care", False), ("health_education", True)}
    assert all(use.reference == "heart 1.0.0" for use in uses)
    assert ward.consents.report("p2").uses == ()


def test_only_the_changed_are_evaluated_when_asked(store: TagStore, pack: Path, ward: Ward, in_force: Any) -> None:
    first = desk.apply_packs([pack], ward, store, changed_only=True)[1]
    assert (first["evaluated"], first["patients"]) == (4, 4), "nothing to compare with"
    before = store.tags(ward.now)
    facts = ward.facts.with_columns(chol=pl.when(pl.col("pseudonym") == "p3").then(200.0).otherwise(pl.col("chol")))
    later = at(ward, facts=facts, now=ward.now + timedelta(minutes=5))
    answer = desk.apply_packs([pack], later, store, changed_only=True)[1]
    assert answer["evaluated"] < answer["patients"] == 4
    assert (answer["added"], answer["removed"], answer["changed"]) == (0, 1, 0)
    assert answer["unchanged"] == len(before) - 1
    assert {(tag.pseudonym, tag.tag) for tag in before} - {
        (tag.pseudonym, tag.tag) for tag in store.tags(later.now)
    } == {("p3", "cholesterol-high")}
    assert f"evaluated: {answer['evaluated']} of 4 patients" in text(answer)
    assert "evaluated:" not in text(first)
    run = store.last_run()
    assert run is not None
    assert run["counts"] == first["tags"], "the page shows tallies of all patients"


def test_quality_below_the_floor_writes_nothing_and_keeps_what_is(
    store: TagStore, pack: Path, ward: Ward, in_force: Any
) -> None:
    desk.apply_packs([pack], ward, store)
    before = store.tags(ward.now)
    with pytest.raises(OperatorError, match="quality-too-low") as caught:
        desk.apply_packs([pack], at(ward, quality=Quality(89.0)), store)
    assert caught.value.exit_code == ExitCode.QUALITY
    assert store.tags(ward.now) == before


def test_withdrawal_takes_effect_at_once_and_at_the_next_apply(
    store: TagStore, pack: Path, ward: Ward, in_force: Any
) -> None:
    desk.apply_packs([pack], ward, store)
    assert desk.enforce_consent(store, ward.consents, ward.policy, ward.now)["removed"] == 0
    later = ward.now + timedelta(hours=1)
    ward.consents.add([record("p3", "health_education", "withdrawn", later)], now=later)
    answer = desk.enforce_consent(store, ward.consents, ward.policy, later)
    assert text(answer) == "1 tags removed whose consent is gone"
    assert "cholesterol-high" not in {tag.tag for tag in store.tags(later)}
    assert {tag.pseudonym for tag in store.tags(later)} >= {"p3"}, "care rests on another basis"
    _, applied = desk.apply_packs([pack], at(ward, now=later), store)
    assert cells(applied)["cholesterol-high"] == (0, {}, {"consent-missing": 1, "consent-withdrawn": 1})
    ward.consents.add([record("p3", "care", "denied", later)], now=later)
    desk.enforce_consent(store, ward.consents, ward.policy, later)
    assert "p3" not in {tag.pseudonym for tag in store.tags(later)}


def test_consent_that_runs_out_is_enforced(store: TagStore, pack: Path, ward: Ward, in_force: Any) -> None:
    expiring = record("p0", "health_education", "granted", ward.now, expires=ward.now + timedelta(days=2))
    ward.consents.add([expiring], now=ward.now)
    desk.apply_packs([pack], ward, store)
    assert desk.enforce_consent(store, ward.consents, ward.policy, ward.now + timedelta(days=1))["removed"] == 0
    assert desk.enforce_consent(store, ward.consents, ward.policy, ward.now + timedelta(days=2))["removed"] == 1


def test_explain_from_todays_facts(store: TagStore, pack: Path, ward: Ward, in_force: Any) -> None:
    desk.apply_packs([pack], ward, store)
    why = desk.explain([pack], ward, store, "p0", "bp-reading-high")
    assert why["verdict"] == "stored"
    assert why["stored"]["because"] == ("trestbps >= 140",)
    assert [row["change"] for row in why["history"]] == ["added"]
    assert "in the patient's words: Your upper blood pressure" in text(why)
    not_met = desk.explain([pack], ward, store, "p1", "bp-reading-high")
    assert (not_met["verdict"], not_met["stored"]) == ("not-proposed", None)
    assert desk.explain([pack], ward, store, "p2", "bp-reading-high")["verdict"] == "unknown"
    assert desk.explain([pack], ward, store, "p0", "cholesterol-high")["reason"] == "consent-missing"
    with pytest.raises(OperatorError, match="pseudonym-unknown"):
        desk.explain([pack], ward, store, "p9", "bp-reading-high")
    json.dumps([why, not_met])


def test_the_patient_desk_is_told_what_the_patient_may_be_told(
    store: TagStore, pack: Path, ward: Ward, in_force: Any
) -> None:
    desk.apply_packs([pack], ward, store)
    whole = desk.explain([pack], ward, store, "p0", "bp-reading-high")
    part = desk.patients_part(whole)
    assert {"true", "false", "unknown", "staff", "guards", "stored", "contact"}.isdisjoint(part)
    assert "trestbps" not in json.dumps(part)
    assert (part["verdict"], part["patient"]) == ("stored", whole["patient"])
    assert text(part).endswith(whole["patient"])
    assert "trestbps" in text(whole)


def test_queue_and_approval(store: TagStore, pack: Path, ward: Ward, in_force: Any) -> None:
    desk.apply_packs([pack], ward, store)
    queue = desk.queue(store, ward.now)
    assert [(row["pseudonym"], row["tag"]) for row in queue["waiting"]] == [("p1", "exercise-ischaemia")]
    assert queue["by_tag"] == {"exercise-ischaemia": 1}
    assert text(queue).endswith("1 waiting")
    answer = desk.approve(store, "p1", "exercise-ischaemia", "Dr A", ward.now)
    assert "tags apply" in text(answer)
    assert desk.queue(store, ward.now)["waiting"][0]["approvals"] == 1
    _, applied = desk.apply_packs([pack], ward, store)
    assert cells(applied)["exercise-ischaemia"] == (1, {}, {})
    assert desk.queue(store, ward.now)["waiting"] == []


@pytest.mark.parametrize("person", ["", "  ", "x", "a\nb\nc", "x" * 61])
def test_a_verdict_needs_a_person(store: TagStore, ward: Ward, person: str) -> None:
    with pytest.raises(OperatorError, match="reviewer-unnamed"):
        desk.approve(store, "p1", "exercise-ischaemia", person, ward.now)


def test_a_pack_that_fails_its_lint_or_its_examples_is_not_approved(
    store: TagStore, heart: Any, tmp_path: Path
) -> None:
    path = tmp_path / "pack.yaml"
    rule = heart.rule(when="trestbps >= 140")

    def approving(changed: dict[str, Any], **header: Any) -> None:
        path.write_text(heart.text(changed, **header))
        desk.approve_pack(store, path, heart.catalogue, "officer", heart.noon)

    with pytest.raises(OperatorError, match="tag-test-failed"):
        approving(rule)
    good = [{"given": {"trestbps": 150}, "expect": True}, {"given": {"trestbps": 130}, "expect": False}]
    with pytest.raises(OperatorError, match="tag-pack-invalid"):
        approving({**rule, "tests": good, "when": "trestbps >= 1400"})
    approving({**rule, "tests": good})
    with pytest.raises(OperatorError, match="rule-version"):
        approving({**rule, "tests": good, "when": "trestbps >= 145"}, version="1.1.0")
    approving({**rule, "tests": good, "when": "trestbps >= 145", "version": 2}, version="1.1.0")


def test_lint_answers_and_holds_a_pack_against_the_one_in_force(
    store: TagStore, heart: Any, pack: Path, in_force: Any, tmp_path: Path
) -> None:
    changed = tmp_path / "heart.yaml"
    changed.write_text(pack.read_text().replace("when: trestbps >= 140", "when: trestbps >= 145"))
    assert author.lint([changed], heart.catalogue, today=TODAY)["ok"]
    found = author.lint([changed], heart.catalogue, today=TODAY, store=store)
    assert not found["ok"]
    assert {item["code"] for item in found["findings"] if item["level"] == "error"} == {"rule-version", "pack-version"}
    assert text(found).endswith("2 errors")
    assert text(author.lint([pack], heart.catalogue, today=TODAY, store=store)).endswith("no errors")


def test_test_shows_what_is_wrong(heart: Any, tmp_path: Path) -> None:
    path = tmp_path / "pack.yaml"
    path.write_text(heart.text(heart.rule(when="trestbps >= 140")))
    answer = author.test([path], heart.catalogue, today=TODAY)
    assert not answer["ok"]
    assert "pack/bp-high example 1: expected true, got unknown" in text(answer)
    assert text(answer).endswith("0 of 2 examples right")


def test_diff(heart: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    base = heart.rule(when="trestbps >= 140")
    old.write_text(heart.text(base, heart.rule(id="gone", when="chol > 200")))
    new.write_text(heart.text({**base, "when": "trestbps >= 145"}, heart.rule(id="fresh", when="chol > 200")))
    answer = author.diff(old, new)
    assert {(change["rule"], change["change"]) for change in answer["changes"]} == {
        ("bp-high", "changed"), ("gone", "removed"), ("fresh", "added"),
    }  # fmt: skip
    assert not answer["ok"]
    assert "- trestbps >= 140" in text(answer)
    assert "the logic changed but not the version" in text(answer)
    assert author.diff(old, old)["changes"] == []
    assert text(author.diff(old, old)).endswith("no rule changed")


def test_audit_pack(heart: Any, pack: Path) -> None:
    answer = author.audit_pack(pack, heart.catalogue, today=TODAY)
    assert answer["ok"]
    assert answer["facts_sha256"] == heart.catalogue.sha256()
    offer = next(rule for rule in answer["rules"] if rule["tag"] == "heart-sport-offer")
    assert (offer["purpose"], offer["review"], offer["sensitivity"]) == ("marketing", "always", "inferred_health")
    assert "owner cardiology lead" in text(answer)


def test_rows_go_out_logged_and_within_the_quota(store: TagStore, pack: Path, ward: Ward, in_force: Any) -> None:
    desk.apply_packs([pack], ward, store)
    entries = store.head()[0]
    given = (store, ward.consents, ward.policy, "Dr A", ward.now)
    data, answer = takeout.export_rows(*given, form="csv")
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    assert {row["state"] for row in rows} == {"stored"}
    assert len(rows) == answer["rows"] == len(store.tags(ward.now, state="stored"))
    assert store.head()[0] == entries + 1
    assert str(answer["rows"]) in text(answer)
    parquet, _ = takeout.export_rows(*given, form="parquet")
    assert pl.read_parquet(io.BytesIO(parquet)).height == len(rows)
    for limits, person in (
        (Exports(rows_per_day=3 * len(rows) - 1), "Dr B"),
        (Exports(rows_per_person=3 * len(rows) - 1), "dr  a"),
    ):
        tight = ward.policy.model_copy(update={"exports": limits})
        with pytest.raises(OperatorError, match="export-quota"):
            takeout.export_rows(store, ward.consents, tight, person, ward.now, form="csv")
        takeout.export_rows(store, ward.consents, tight, person, ward.now + timedelta(days=1), form="csv")
    takeout.export_rows(store, ward.consents, tight, "Dr B", ward.now, form="csv")


def test_counts_hide_the_few(store: TagStore, heart: Any, pack: Path, ward: Ward, in_force: Any) -> None:
    many = [dict(ROWS[0]) for _ in range(40)]
    desk.apply_packs([pack], at(ward, facts=heart.frame(*many)), store)
    given = (store, ward.consents, ward.policy, "Dr A", ward.now)
    answer = takeout.export_counts(*given)
    assert answer["tags"]["bp-reading-high"] == {"all": 40, "total": 40}
    groups = {f"p{number}": "f" if number < 30 else "m" for number in range(40)}
    split = takeout.export_counts(*given, groups)
    assert split["tags"]["bp-reading-high"] == {"f": None, "m": None, "total": 40}
    assert "hidden" in text(split)
    sexes = takeout.groups_of(heart.frame({"sex": "female"}, {"sex": "male"}, {}), "sex", ward.policy)
    assert sexes == {"p0": "female", "p1": "male"}
    for name in ("chol", "region", "nothing"):
        with pytest.raises(OperatorError, match="export-group"):
            takeout.groups_of(heart.frame({}), name, ward.policy)


def test_a_missing_or_foreign_file_is_an_error_not_a_traceback(heart: Any, tmp_path: Path) -> None:
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, binary):
        with pytest.raises(OperatorError, match="tag-pack-unreadable"):
            author.lint([path], heart.catalogue, today=TODAY)
