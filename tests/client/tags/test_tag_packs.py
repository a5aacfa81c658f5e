"""The shipped packs: they lint, their examples hold, and the demo sees stored, blocked and waiting tags."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from cameo_client.data.catalogue import load_catalogue
from cameo_client.tags import author

TODAY = date(2026, 6, 1)


@pytest.mark.parametrize(("name", "least"), [("heart", 7), ("cardiometabolic", 16)])
def test_shipped_pack_is_sound(packs: Any, name: str, least: int) -> None:
    catalogue, path = load_catalogue(name), packs / f"{name}.yaml"
    linted = author.lint([path], catalogue, today=TODAY)
    assert linted["ok"], linted["findings"]
    assert {finding["level"] for finding in linted["findings"]} <= {"note"}
    tested = author.test([path], catalogue, today=TODAY)
    assert tested["ok"], [case for case in tested["cases"] if not case["passed"]]
    audit = author.audit_pack(path, catalogue, today=TODAY)
    assert len(audit["rules"]) >= least
    for rule in audit["rules"]:
        expected = {case["expected"] for case in tested["cases"] if case["rule"] == rule["rule"]}
        assert expected == {"true", "false", "unknown"}
        assert rule["owner"] != rule["reviewer"]


def test_the_twelve_rules_are_there(packs: Any) -> None:
    audit = author.audit_pack(packs / "cardiometabolic.yaml", load_catalogue("cardiometabolic"), today=TODAY)
    rules = {rule["rule"]: rule for rule in audit["rules"]}
    twelve = {
        "bp-elevated-both": ("care_management", "none"),
        "bp-elevated-any": ("care_management", "none"),
        "metformin-adherence-medium": ("care_management", "none"),
        "t2d-newly-diagnosed": ("health_education", "none"),
        "htn-dyslipidaemia-weight": ("health_education", "none"),
        "lung-screening": ("health_education", "always"),
        "glucose-3d-off-target": ("care_management", "none"),
        "bp-3d-teleconsult": ("care_management", "none"),
        "steps-active": ("health_education", "none"),
        "t2d-risk-high": ("health_education", "sample"),
        "insulin-need-3m": ("marketing", "always"),
        "follow-up-lapse": ("service_reminder", "none"),
    }
    assert {name: (rules[name]["purpose"], rules[name]["review"]) for name in twelve} == twelve
    assert rules["insulin-need-3m"]["scopes"] == ["marketing"]
