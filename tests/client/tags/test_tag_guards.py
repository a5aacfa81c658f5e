"""Every guard, blocked and passed; their order; and that the first failure is the one recorded."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from cameo_client.tags.contact import CONTACT_GUARDS
from cameo_client.tags.guards import GUARDS, sampled
from cameo_client.tags.lint import bind_pack
from cameo_client.tags.policy import Situation
from cameo_client.tags.reasons import GUARD_NAMES, REASONS
from cameo_client.tags.world import Memory, Quality
from cameo_protocol.errors import OperatorError

HIGH: dict[str, Any] = {"sbp": 150.0}
RISK = {
    "name": "risk_t2d_12m",
    "min_version": 2,
    "max_age_days": 100,
    "require": ["calibrated", "no_drift", "within_budget"],
}
EDUCATION: dict[str, Any] = {"purpose": "health_education"}


def fate(kit: Any, rule: dict[str, Any], row: dict[str, Any] | None = None, **changes: Any) -> str:
    """The fate of one patient under one rule."""
    outcome = kit.run([rule], [HIGH if row is None else row], **changes)
    return str(kit.fates(outcome, rule["tag"]["name"])[0])


@pytest.mark.parametrize(
    ("when", "changed", "approved", "expected"),
    [
        ("segment = 2", (), 0, "stored"),
        ("segment = 2", (2,), 0, "blocked model-segment-changed"),
        ("segment = 2", (2,), 2, "stored"),
        ("segment = 2", (1, 3), 0, "stored"),
        ("segment IN (2, 3)", (3,), 0, "blocked model-segment-changed"),
        ("segment <> 1", (1,), 0, "blocked model-segment-changed"),
        ("NOT segment = 1", (1,), 0, "blocked model-segment-changed"),
        ("segment >= 2", (1,), 0, "blocked model-segment-changed"),
        ("segment BETWEEN 2 AND 3", (1,), 0, "blocked model-segment-changed"),
        ("segment_strength >= 0.4", (1, 2, 3), 0, "stored"),
        ("segment_strength >= 0.4 AND segment IS NOT NULL", (1, 2, 3), 0, "stored"),
        ("segment = 2", (2,), None, "stored"),
    ],
)
def test_4_a_segment_that_means_another_since_the_approval(
    kit: Any, when: str, changed: tuple[int, ...], approved: int | None, expected: str
) -> None:
    """Changed on day 1 of the three; approved: on which day, None: nobody says when."""
    model = {"name": "segment", "min_version": 1, "max_age_days": 365}
    row, rule = {"segment": 2.0, "segment_strength": 0.9}, kit.rule(when=when, model=model)
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    days = [noon - timedelta(days=2 - day) for day in range(3)]
    models = kit.models("segment", changed=tuple((number, days[1]) for number in changed))
    sha = bind_pack(kit.text(rule), "pack.yaml", kit.schema, today=date(2026, 6, 1))[0].sha256()
    at = {} if approved is None else {sha: days[approved]}
    assert fate(kit, rule, row, models=models, approved_at=at) == expected


def test_all_guards_pass(kit: Any) -> None:
    assert fate(kit, kit.rule()) == "stored"
    assert fate(kit, kit.rule(), {"sbp": 120.0}) == "-"
    assert fate(kit, kit.rule(), {}) == "-"


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({}, {"approved_packs": set()}, "blocked pack-not-approved"),
        ({}, {"approved_packs": {"0" * 64}}, "blocked pack-not-approved"),
        ({"status": "draft"}, {}, "blocked rule-not-active"),
        ({"status": "reviewed"}, {}, "blocked rule-not-active"),
        ({"status": "retired"}, {}, "blocked rule-not-active"),
        ({"effective": {"from": "2026-06-02"}}, {}, "blocked rule-out-of-dates"),
        ({"effective": {"from": "2026-06-01", "until": "2026-06-01"}}, {}, "stored"),
        ({"effective": {"from": "2025-01-01", "until": "2026-05-31"}}, {}, "blocked rule-out-of-dates"),
        ({"review_by": "2026-06-01"}, {}, "stored"),
        ({"review_by": "2026-05-31"}, {}, "blocked evidence-expired"),
    ],
)
def test_1_pack_in_force(kit: Any, changes: dict[str, Any], given: dict[str, Any], expected: str) -> None:
    assert fate(kit, kit.rule(**changes), **given) == expected


@pytest.mark.parametrize(
    ("flag", "reason"),
    [("objected", "patient-objected"), ("deceased", "patient-deceased"), ("record_locked", "record-locked")],
)
def test_2_patient_may_be_tagged(kit: Any, flag: str, reason: str) -> None:
    assert fate(kit, kit.rule(), {**HIGH, flag: True}) == f"blocked {reason}"
    assert fate(kit, kit.rule(), {**HIGH, flag: False}) == "stored"


def test_3_data_quality(kit: Any) -> None:
    assert fate(kit, kit.rule(), quality=Quality(90.0)) == "stored"
    assert fate(kit, kit.rule(), quality=Quality(89.9)) == "blocked quality-below-floor"
    assert fate(kit, kit.rule(), quality=Quality(float("nan"))) == "blocked quality-below-floor"
    assert fate(kit, kit.rule(), quality=Quality(95, frozenset({"p0"}))) == "blocked record-quality-below-floor"
    assert fate(kit, kit.rule(), quality=Quality(95, frozenset({"p1"}))) == "stored"
    fresh = kit.policy.model_copy(update={"max_snapshot_age_days": 12})
    assert fate(kit, kit.rule(), policy=fresh) == "stored"
    assert fate(kit, kit.rule(), policy=fresh, snapshot=date(2026, 5, 19)) == "blocked facts-stale"
    assert fate(kit, kit.rule(), policy=fresh, snapshot=None) == "blocked facts-stale"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 2}, "stored"),
        ({"version": 1}, "blocked model-version"),
        ({"released": datetime.fromisoformat("2026-02-21T12:00:00+00:00")}, "stored"),
        ({"released": datetime.fromisoformat("2026-02-20T12:00:00+00:00")}, "blocked model-too-old"),
        ({"audited": False}, "blocked model-not-audited"),
        ({"calibrated": False}, "blocked model-not-calibrated"),
        ({"drifted": True}, "blocked model-drifted"),
        ({"within_budget": False}, "blocked model-over-budget"),
    ],
)
def test_4_model_is_good(kit: Any, changes: dict[str, Any], expected: str) -> None:
    rule = kit.rule(when="risk_t2d_12m >= 0.3", model=RISK)
    models = kit.models("risk_t2d_12m", **{"version": 2, **changes})
    assert fate(kit, rule, {"risk_t2d_12m": 0.4}, models=models) == expected


def test_4_a_column_without_its_model(kit: Any) -> None:
    rule = kit.rule(when="risk_t2d_12m >= 0.3", model={**RISK, "min_version": 1})
    assert fate(kit, rule, {"risk_t2d_12m": 0.4}) == "blocked model-missing"
    assert fate(kit, rule, {"risk_t2d_12m": 0.4}, models=kit.models("segment")) == "blocked model-missing"
    assert fate(kit, rule, {}, models=kit.models("risk_t2d_12m")) == "-"
    lax = kit.rule(when="risk_t2d_12m >= 0.3", model={"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 9})
    loose = kit.models("risk_t2d_12m", drifted=True, within_budget=False)
    assert fate(kit, lax, {"risk_t2d_12m": 0.4}, models=loose) == "stored"


def test_4_audit_and_calibration_are_asked_for_whatever_the_rule_says(kit: Any) -> None:
    lax = kit.rule(when="risk_t2d_12m >= 0.3", model={"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 9})
    for missing in ("audited", "calibrated"):
        bad = kit.models("risk_t2d_12m", **{missing: False})
        assert fate(kit, lax, {"risk_t2d_12m": 0.4}, models=bad) == f"blocked model-not-{missing}"
    groups = kit.rule(when="segment = 1", model={"name": "segment", "min_version": 1, "max_age_days": 9})
    assert fate(kit, groups, {"segment": 1.0}, models=kit.models("segment", calibrated=False)) == "stored"


def test_5_purpose_fits_also_when_the_catalogue_changed_after_the_lint(kit: Any) -> None:
    """The lint refuses it first; the guard holds if the columns' purposes were narrowed since."""
    from cameo_client.tags.apply import apply
    from cameo_client.tags.bind import bind_rule
    from cameo_client.tags.pack import parse_pack
    from cameo_client.tags.world import Circumstances

    genetic = {"when": "gck_variant = 'pathogenic'", "review": "two_person"}
    for changes, row, reason in (
        ({"purpose": "service_reminder"}, HIGH, "purpose-forbids-column"),
        ({**genetic, "purpose": "research"}, {"gck_variant": "pathogenic"}, "purpose-forbids-column"),
        ({**EDUCATION, "sensitivity": "genetic", "review": "two_person"}, HIGH, "genetic-care-only"),
    ):
        pack, _, _ = parse_pack(kit.text(kit.rule(**changes)), "p")
        assert pack is not None
        bound = [bind_rule(rule, pack, kit.schema) for rule in pack.rules]
        given = Circumstances(policy=kit.policy, consent=kit.book(), quality=Quality(99), now=kit.noon, snapshot=None,
                              approved_packs={pack.sha256()})  # fmt: skip
        assert kit.fates(apply(kit.frame(row), bound, kit.schema, given), "bp-high") == [f"blocked {reason}"]


def test_6_consent_default_is_no(kit: Any) -> None:
    rule = kit.rule(**EDUCATION)
    assert fate(kit, rule) == "blocked consent-missing"
    assert fate(kit, rule, consent=kit.book(care={"p0"}, marketing={"p0"})) == "blocked consent-missing"
    assert fate(kit, rule, consent=kit.book(health_education={"p1"})) == "blocked consent-missing"
    assert fate(kit, rule, consent=kit.book(health_education={"p0"})) == "stored"
    book = kit.book(health_education={"p0"})
    book.no["health_education"] = {"p0"}
    assert fate(kit, rule, consent=book) == "blocked consent-withdrawn"


def test_6_care_rests_on_another_basis_only_if_the_policy_says_so(kit: Any) -> None:
    bare = kit.policy.model_copy(update={"legal_basis": {}})
    assert fate(kit, kit.rule()) == "stored"
    assert fate(kit, kit.rule(), policy=bare) == "blocked consent-missing"
    assert fate(kit, kit.rule(), policy=bare, consent=kit.book(care={"p0"})) == "stored"
    book = kit.book()
    book.no["care"] = {"p0"}
    assert fate(kit, kit.rule(), consent=book) == "blocked consent-withdrawn"


def test_6_further_scopes_are_needed_as_well(kit: Any) -> None:
    rule = kit.rule(consent=["research"])
    assert fate(kit, rule) == "blocked consent-missing"
    assert fate(kit, rule, consent=kit.book(research={"p0"})) == "stored"


def test_6_minors_need_a_guardian(kit: Any) -> None:
    rule, row = kit.rule(**EDUCATION), {**HIGH, "age": 17.0}
    book = kit.book(health_education={"p0"})
    assert fate(kit, rule, row, consent=book) == "blocked consent-no-guardian"
    assert fate(kit, rule, {**HIGH, "age": 18.0}, consent=book) == "stored"
    assert fate(kit, rule, {**HIGH, "age": None}, consent=book) == "blocked consent-no-guardian"
    book.guarded = {"p0"}
    assert fate(kit, rule, row, consent=book) == "stored"


@pytest.mark.parametrize(
    "column", ["pregnancy_loss", "bereavement", "mental_acute", "surgery_30d", "end_of_life", "abuse"]
)
def test_7_sensitive_situations_stop_all_but_care(kit: Any, column: str) -> None:
    book = kit.book(health_education={"p0"})
    row = {**HIGH, column: True}
    assert fate(kit, kit.rule(**EDUCATION), row, consent=book) == "blocked sensitive-situation"
    assert fate(kit, kit.rule(**EDUCATION), consent=book) == "stored"
    assert fate(kit, kit.rule(), row) == "stored"


def test_7_for_marketing_unknown_stops_too(kit: Any) -> None:
    rule = kit.rule(when="visits_12m >= 3", purpose="marketing", review="none", sensitivity="normal")
    book = kit.book(marketing={"p0"})
    known = {"visits_12m": 4, "dx_depression": False, "gck_variant": "benign", "pcsk9_variant": "benign"}
    assert fate(kit, rule, known, consent=book) == "stored"
    assert fate(kit, rule, {**known, "hiv_sti": True}, consent=book) == "blocked sensitive-situation"
    assert fate(kit, rule, {**known, "gck_variant": "pathogenic"}, consent=book) == "blocked sensitive-situation"
    assert fate(kit, rule, {**known, "gck_variant": None}, consent=book) == "blocked sensitive-unknown"


def test_7_a_situation_that_the_facts_cannot_show_is_reported(kit: Any) -> None:
    from cameo_client.tags.guards import unobservable

    other = Situation(name="prison", when="in_prison", stops=("marketing",))
    policy = kit.policy.model_copy(update={"situations": (*kit.policy.situations, other)})
    assert unobservable(kit.run([kit.rule()], [HIGH], policy=policy).world) == ("prison",)


def test_8_only_the_highest_priority_of_a_group_is_kept(kit: Any) -> None:
    rules = [
        kit.rule(id="both", when="sbp >= 140 AND dbp >= 90", exclusive_group="bp", priority=2),
        kit.rule(id="any", when="sbp >= 140 OR dbp >= 90", exclusive_group="bp", priority=1),
        kit.rule(id="free", when="sbp >= 130", priority=0),
    ]
    outcome = kit.run(rules, [{"sbp": 150.0, "dbp": 95.0}, {"sbp": 150.0, "dbp": 80.0}, {"sbp": 150.0}])
    assert kit.fates(outcome, "both") == ["stored", "-", "-"]
    assert kit.fates(outcome, "any") == ["blocked exclusive-group", "stored", "stored"]
    assert kit.fates(outcome, "free") == ["stored"] * 3


def test_8_a_rule_that_was_blocked_before_leaves_the_place_free(kit: Any) -> None:
    rules = [
        kit.rule(id="high", when="sbp >= 150", exclusive_group="bp", priority=2, **EDUCATION),
        kit.rule(id="low", exclusive_group="bp", priority=1),
    ]
    outcome = kit.run(rules, [{"sbp": 160.0}] * 2, consent=kit.book(health_education={"p1"}))
    assert kit.fates(outcome, "high") == ["blocked consent-missing", "stored"]
    assert kit.fates(outcome, "low") == ["stored", "blocked exclusive-group"]


def test_9_review(kit: Any) -> None:
    case = ("p0", "pack/bp-high", 1)
    one, two = Memory(approvals={case: 1}), Memory(approvals={case: 2})
    always, double = kit.rule(review="always"), kit.rule(review="two_person")
    assert fate(kit, always) == "waiting review-always"
    assert fate(kit, always, memory=one) == "stored"
    assert fate(kit, double) == "waiting review-two-person"
    assert fate(kit, double, memory=one) == "waiting review-two-person"
    assert fate(kit, double, memory=two) == "stored"
    rejected = Memory(rejections=frozenset({case}), approvals={case: 2})
    assert fate(kit, always, memory=rejected) == "blocked review-rejected"
    assert fate(kit, kit.rule(), memory=rejected) == "blocked review-rejected"
    assert fate(kit, kit.rule(review="always", version=2), memory=one) == "waiting review-always"


def test_9_unknown_goes_to_a_person_if_the_rule_says_so(kit: Any) -> None:
    case = ("p0", "pack/bp-high", 1)
    assert fate(kit, kit.rule(on_unknown="review"), {}) == "waiting review-unknown"
    assert fate(kit, kit.rule(on_unknown="review"), {}, memory=Memory(approvals={case: 1})) == "stored"
    assert fate(kit, kit.rule(on_unknown="skip"), {}) == "-"
    assert fate(kit, kit.rule(on_unknown="review"), {"sbp": 120.0}) == "-"


def test_9_the_sample_is_a_fixed_share(kit: Any) -> None:
    outcome = kit.run([kit.rule(review="sample")], [HIGH] * 2000)
    fates = kit.fates(outcome, "bp-high")
    waiting = [
        name for name, one in zip(outcome.world.pseudonyms, fates, strict=True) if one == "waiting review-sample"
    ]
    assert set(fates) == {"stored", "waiting review-sample"}
    assert 60 <= len(waiting) <= 140
    assert all(sampled(name, "pack/bp-high", 1, 0.05) for name in waiting)
    assert kit.fates(kit.run([kit.rule(review="sample")], [HIGH] * 2000), "bp-high") == fates


def test_the_order_is_fixed_and_the_reasons_belong_to_their_guards() -> None:
    names = [(number, guard.__name__) for number, guard in (*GUARDS, *CONTACT_GUARDS)]
    assert names == [
        (1, "pack_in_force"),
        (2, "patient_may_be_tagged"),
        (3, "data_quality"),
        (4, "model_is_good"),
        (5, "purpose_fits"),
        (6, "consent_given"),
        (7, "no_sensitive_situation"),
        (8, "no_conflict"),
        (9, "reviewed"),
        (10, "contact_cap"),
        (11, "quiet_hours"),
    ]
    assert {reason.guard for reason in REASONS.values()} == {number for number, _ in names}
    for reason in REASONS.values():
        wanted = {"blocked"} if reason.guard <= 8 else {"waiting", "blocked"} if reason.guard == 9 else {"no-contact"}
        assert reason.effect in wanted, reason.code
    assert list(GUARD_NAMES) == list(range(1, 15))


def test_the_first_failure_is_recorded(kit: Any) -> None:
    """Everything is wrong at once; put right one by one, in the order of the guards."""
    old = kit.noon - timedelta(days=500)
    wrong: dict[str, Any] = {
        "approved_packs": set(),
        "quality": Quality(50),
        "models": kit.models("risk_t2d_12m", released=old),
        "memory": Memory(rejections=frozenset({("p0", "pack/r", 1)})),
    }
    rule = kit.rule(
        id="r", when="risk_t2d_12m >= 0.3", review="always", purpose="health_education",
        model={"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 10},
    )  # fmt: skip
    row: dict[str, Any] = {"risk_t2d_12m": 0.5, "objected": True, "abuse": True}
    steps: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("blocked pack-not-approved", {}, {}),
        ("blocked patient-objected", {"approved_packs": None}, {}),
        ("blocked quality-below-floor", {}, {"objected": False}),
        ("blocked model-too-old", {"quality": Quality(95)}, {}),
        ("blocked consent-missing", {"models": kit.models("risk_t2d_12m")}, {}),
        ("blocked sensitive-situation", {"consent": kit.book(health_education={"p0"})}, {}),
        ("blocked review-rejected", {}, {"abuse": False}),
        ("waiting review-always", {"memory": Memory()}, {}),
        ("stored", {"memory": Memory(approvals={("p0", "pack/r", 1): 1})}, {}),
    ]
    for expected, better, healed in steps:
        wrong.update(better)
        if wrong.get("approved_packs", ()) is None:
            del wrong["approved_packs"]
        row.update(healed)
        assert fate(kit, rule, row, **wrong) == expected


def test_hysteresis_holds_until_the_exit(kit: Any) -> None:
    rule = kit.rule(hysteresis={"column": "sbp", "enter": 140, "exit": 130})
    rows = [{"sbp": 141.0}, {"sbp": 135.0}, {"sbp": 129.0}, {}]
    assert kit.fates(kit.run([rule], rows), "bp-high") == ["stored", "-", "-", "-"]
    held = Memory(held={"pack/bp-high": frozenset({"p0", "p1", "p2", "p3"})})
    assert kit.fates(kit.run([rule], rows, memory=held), "bp-high") == ["stored", "stored", "-", "-"]
    other = Memory(held={"pack/other": frozenset({"p1"})})
    assert kit.fates(kit.run([rule], rows, memory=other), "bp-high")[1] == "-"


def test_unless_takes_away_and_unknown_stays_unknown(kit: Any) -> None:
    rule = kit.rule(unless="dbp < 60")
    rows = [{"sbp": 150.0, "dbp": 80.0}, {"sbp": 150.0, "dbp": 50.0}, {"sbp": 150.0}, {"sbp": 120.0}]
    assert kit.fates(kit.run([rule], rows), "bp-high") == ["stored", "-", "-", "-"]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda f: f.drop("pseudonym"), "facts-without-pseudonym"),
        (lambda f: f.drop("sbp"), "facts-column-missing"),
        (lambda f: f.with_columns(sbp=f["sbp"].cast(str)), "facts-column-type"),
        (lambda f: f.vstack(f), "facts-pseudonym-double"),
    ],
)
def test_facts_of_the_wrong_shape_are_refused(kit: Any, spoil: Any, code: str) -> None:
    from cameo_client.tags.engine import prepare

    with pytest.raises(OperatorError) as caught:
        prepare(spoil(kit.frame(HIGH)), kit.schema, ["sbp"])
    assert caught.value.code == code


def test_one_tag_in_two_packs_is_refused(kit: Any) -> None:
    from cameo_client.tags.apply import apply
    from cameo_client.tags.lint import bind_pack

    outcome = kit.run([kit.rule()], [HIGH])
    _, again = bind_pack(kit.text(kit.rule(), id="second"), "q", kit.schema, today=date(2026, 6, 1))
    with pytest.raises(OperatorError) as caught:
        apply(kit.frame(HIGH), [*outcome.world.rules, *again], kit.schema, outcome.world.given)
    assert caught.value.code == "tag-pack-clash"
