"""Each finding of the lint, provoked; with its line, and a sound rule that draws none."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml

from cameo_client.tags.finding import Finding, errors
from cameo_client.tags.lint import bind_pack, lint
from cameo_client.tags.pack import Pack, parse_pack
from cameo_protocol.errors import OperatorError

TODAY = date(2026, 6, 1)


def findings(kit: Any, *rules: dict[str, Any], previous: Pack | None = None, **header: Any) -> tuple[Finding, ...]:
    return lint(kit.text(*rules, **header), "p.yaml", kit.schema, today=TODAY, previous=previous)[2]


def codes(kit: Any, *rules: dict[str, Any], **header: Any) -> set[str]:
    return {finding.code for finding in findings(kit, *rules, **header)}


RISK = {"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 100}


def test_a_sound_rule_has_no_finding(kit: Any) -> None:
    assert findings(kit, kit.rule()) == ()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"when": "spb >= 140"}, "column-unknown"),
        ({"when": "sbp >= 1400"}, "implausible"),
        ({"when": "TRUE"}, "predicate-constant"),
        ({"unless": "ckd_stage = 'g9'"}, "enum-value-unknown"),
        ({"when": "sbp > 150 AND sbp < 140"}, "never-true"),
        ({"when": "sbp >= 140", "unless": "sbp >= 120"}, "never-true"),
        ({"when": "sbp > 260"}, "never-true"),
        ({"when": "visits_12m > 3 AND visits_12m < 4"}, "never-true"),
        ({"when": "visits_12m > 3 OR visits_12m <= 3.5"}, "always-true"),
        ({"when": "sbp >= 60"}, "always-true"),
        ({"when": "sbp >= 140 OR sbp < 140"}, "always-true"),
        ({"when": "dx_t2d OR NOT dx_t2d"}, "always-true"),
        ({"when": "sbp IS NULL OR sbp IS NOT NULL"}, "always-true"),
        ({"when": "risk_t2d_12m >= 0.3"}, "model-undeclared"),
        ({"when": "risk_t2d_12m >= 0.3", "model": {**RISK, "name": "risk_lapse"}}, "model-mismatch"),
        ({"model": RISK}, "model-mismatch"),
        ({"when": "risk_t2d_12m >= 0.3 AND risk_lapse > 0.5", "model": RISK}, "model-several"),
        ({"purpose": "marketing", "review": "always"}, "purpose-forbids-column"),
        ({"when": "gck_variant = 'pathogenic'", "review": "always"}, "review-too-weak"),
        ({"when": "gck_variant = 'pathogenic'", "purpose": "research", "review": "two_person"}, "genetic-care-only"),
        ({"when": "dx_depression", "purpose": "marketing", "review": "two_person"}, "mental-never-sells"),
        ({"when": "risk_t2d_12m >= 0.3", "model": RISK, "purpose": "marketing"}, "review-too-weak"),
        ({"when": "risk_t2d_12m >= 0.3", "model": RISK, "sensitivity": "health"}, "sensitivity-lowered"),
        ({"funding": "third_party"}, "third-party-is-marketing"),
        (
            {"contact": "safety", "cooldown_days": 1, "when": "visits_12m > 3", "purpose": "service_reminder"},
            "safety-is-care",
        ),
        ({"contact": "patient"}, "cooldown-missing"),
        ({"owner": "same role", "reviewer": "same  role"}, "self-review"),
        ({"review_by": "2026-05-31"}, "evidence-expired"),
        ({"explain": "Your age is {age}."}, "explain-column"),
        ({"explain": "Your reading {sbp.__class__} was high."}, "explain-brace"),
        ({"explain": "Your reading {} was high."}, "explain-brace"),
        ({"explain": "This will cure you."}, "explain-banned"),
        ({"explain": "Come before it is too late."}, "explain-banned"),
        ({"explain_staff": "A guaranteed success."}, "explain-banned"),
        ({"tests": [{"given": {"sbp": 150}, "expect": "true"} for _ in range(2)]}, "tests-one-sided"),
        ({"tests": [{"given": {"spb": 1}, "expect": "true"}, {"given": {}, "expect": "false"}]}, "column-unknown"),
        ({"tests": [{"given": {"sbp": 1500}, "expect": "true"}, {"given": {}, "expect": "false"}]}, "implausible"),
        ({"tests": [{"given": {"sbp": "high"}, "expect": "true"}, {"given": {}, "expect": "false"}]}, "type-mismatch"),
        ({"tests": [{"given": {"ldl": 3}, "expect": "true"}, {"given": {}, "expect": "false"}]}, "tests-unused-fact"),
        ({"hysteresis": {"column": "sbp", "enter": 150, "exit": 130}}, "hysteresis-mismatch"),
        ({"hysteresis": {"column": "dbp", "enter": 140, "exit": 130}}, "hysteresis-mismatch"),
        ({"hysteresis": {"column": "sbp", "enter": 140, "exit": 150}}, "hysteresis-order"),
        ({"hysteresis": {"column": "sbp", "enter": 140, "exit": 140}}, "hysteresis-order"),
        ({"hysteresis": {"column": "sbp", "enter": 140, "exit": 14}}, "implausible"),
        ({"when": "sbp = 140", "hysteresis": {"column": "sbp", "enter": 140, "exit": 130}}, "hysteresis-order"),
    ],
)
def test_each_fault_has_its_code(kit: Any, changes: dict[str, Any], code: str) -> None:
    found = findings(kit, kit.rule(**changes))
    assert code in {finding.code for finding in found}
    assert all(finding.line > 3 and finding.rule == "bp-high" and finding.do for finding in found)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"when": None}, "pack-field-missing"),
        ({"extra": 1}, "pack-field-unknown"),
        ({"tag": {"name": "bp-high", "dimension": "dynamic", "category": "disease"}}, "pack-field-missing"),
        (
            {"tag": {"name": "BP high", "dimension": "dynamic", "category": "disease", "ttl_days": 1}},
            "pack-field-invalid",
        ),
        ({"purpose": "selling"}, "pack-field-invalid"),
        ({"version": "1"}, "pack-field-invalid"),
        ({"version": True}, "pack-field-invalid"),
        ({"version": 0}, "pack-field-invalid"),
        ({"priority": -1}, "pack-field-invalid"),
        ({"evidence": []}, "pack-field-invalid"),
        ({"review_by": "soon"}, "pack-field-invalid"),
        ({"effective": {"from": "2026-02-01", "until": "2026-01-01"}}, "pack-field-invalid"),
        ({"tests": []}, "pack-field-invalid"),
        ({"id": "a b"}, "pack-field-invalid"),
    ],
)
def test_form_faults_name_the_field_and_its_line(kit: Any, changes: dict[str, Any], code: str) -> None:
    text = kit.text(kit.rule(**changes))
    pack, document, found = parse_pack(text, "p.yaml")
    assert pack is None
    assert {finding.code for finding in found} == {code}
    assert all(finding.line >= document.line(("rules", 0)) for finding in found)


def test_the_line_is_the_fields_own(kit: Any) -> None:
    text = kit.text(kit.rule(), kit.rule(id="second", when="spb >= 140"))
    (finding,) = (one for one in lint(text, "p.yaml", kit.schema, today=TODAY)[2] if one.code == "column-unknown")
    assert text.splitlines()[finding.line - 1].strip() == "when: spb >= 140"
    assert finding.text().startswith(f"p.yaml:{finding.line}: error column-unknown [second]: ")
    assert "did you mean sbp" in finding.text()


def test_rules_are_held_against_each_other(kit: Any) -> None:
    def pair(one: dict[str, Any], two: dict[str, Any]) -> set[str]:
        return codes(kit, kit.rule(id="one", **one), kit.rule(id="two", **two))

    group = {"exclusive_group": "bp"}
    assert pair({}, {}) >= {"rule-subsumed"}
    assert pair({**group, "priority": 5}, {**group, "priority": 5}) >= {"priority-tie"}
    assert pair({**group, "priority": 6}, {**group, "priority": 5, "when": "sbp >= 150"}) >= {"rule-unreachable"}
    other = {"when": "sbp >= 150", "purpose": "health_education"}
    found = findings(kit, kit.rule(id="one", **group, priority=60), kit.rule(id="two", **group, **other))
    assert [(finding.code, finding.level) for finding in found] == [("rule-unreachable", "warning")]
    assert pair({**group, "priority": 5}, {**group, "priority": 6, "when": "sbp >= 150"}) == {"rule-overlap"}
    assert pair({**group, "when": "sbp < 120"}, {**group, "when": "sbp > 130"}) == set()
    assert codes(kit, kit.rule(), kit.rule()) >= {"rule-twice", "tag-twice"}


def test_a_pack_for_other_facts_is_refused(kit: Any) -> None:
    assert codes(kit, kit.rule(), facts_schema="heart@1") == {"schema-mismatch"}
    assert codes(kit, kit.rule(), facts_schema="cardiometabolic@2") == {"schema-mismatch"}


def test_changed_logic_needs_a_higher_version(kit: Any) -> None:
    old = Pack.model_validate(yaml.safe_load(kit.text(kit.rule())))

    def against(rule: dict[str, Any], version: str = "1.0.1") -> set[str]:
        return {f.code for f in errors(findings(kit, rule, previous=old, version=version))}

    assert against(kit.rule(), "1.0.0") == set()
    assert against(kit.rule(explain="Another text."), "1.0.0") == {"pack-version"}
    assert against(kit.rule(explain="Another text.")) == set()
    assert against(kit.rule(when="sbp >= 150")) == {"rule-version"}
    assert against(kit.rule(when="sbp >= 150", version=2)) == set()
    assert against(kit.rule(on_unknown="review")) == {"rule-version"}
    assert against(kit.rule(version=2), "0.9.0") == {"pack-version"}


def test_the_hash_follows_the_content_not_the_layout(kit: Any) -> None:
    text = kit.text(kit.rule())
    one, two = parse_pack(text, "a")[0], parse_pack("# a comment\n" + text.replace("'", '"'), "b")[0]
    assert one is not None
    assert two is not None
    assert one.sha256() == two.sha256()
    changed = parse_pack(kit.text(kit.rule(priority=51)), "c")[0]
    assert changed is not None
    assert changed.sha256() != one.sha256()


def test_a_pack_with_an_error_cannot_be_used(kit: Any) -> None:
    with pytest.raises(OperatorError) as caught:
        bind_pack(kit.text(kit.rule(when="spb > 1", reviewer="clinic")), "p.yaml", kit.schema, today=TODAY)
    assert caught.value.code == "tag-pack-invalid"
    assert "did you mean sbp" in caught.value.what
