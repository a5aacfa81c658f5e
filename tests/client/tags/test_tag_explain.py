"""Why, and why not: for staff with the comparisons and the guard path, for the patient in words."""

from __future__ import annotations

from typing import Any

import pytest

from cameo_client.tags.explain import explain
from cameo_client.tags.reasons import REASONS
from cameo_client.tags.world import Memory
from cameo_protocol.errors import OperatorError

HIGH: dict[str, Any] = {"sbp": 150.0}
WORDS = {"explain": "Your reading was {sbp}.", "explain_staff": "Reading {sbp}, threshold 140 mmHg."}


def test_why(kit: Any) -> None:
    found = explain(kit.run([kit.rule(**WORDS)], [HIGH]), "p0", "bp-high")
    assert (found.verdict, found.reason, found.contact) == ("stored", "", "none")
    assert found.true == ("sbp >= 140 (is: 150 mmHg)",)
    assert found.staff == "Tagged: Reading 150 mmHg, threshold 140 mmHg."
    assert found.patient == "Your reading was 150 mmHg."
    assert [state for _, _, state in found.guards] == ["passed"] * 9


def test_why_not_because_the_rule_is_not_met(kit: Any) -> None:
    rule = kit.rule(when="sbp >= 140 AND NOT dx_htn AND dbp >= 90")
    found = explain(kit.run([rule], [{"sbp": 120.0, "dx_htn": True, "dbp": 95.0}]), "p0", "bp-high")
    assert found.verdict == "not-proposed"
    assert found.false == ("sbp >= 140 (is: 120 mmHg)", "NOT dx_htn (is: yes)")
    assert found.true == ("dbp >= 90 (is: 95 mmHg)",)
    assert found.staff == "Not tagged: the rule is not met. Not true: sbp >= 140 (is: 120 mmHg); NOT dx_htn (is: yes)."
    assert {state for _, _, state in found.guards} == {"not reached"}
    assert "120" not in found.patient


def test_why_not_because_something_is_unknown(kit: Any) -> None:
    found = explain(kit.run([kit.rule(**WORDS)], [{}]), "p0", "bp-high")
    assert found.verdict == "unknown"
    assert found.unknown == ("sbp >= 140 (is: not known)",)
    assert "Not known: sbp >= 140" in found.staff


def test_why_not_because_a_guard_stopped_it(kit: Any) -> None:
    found = explain(kit.run([kit.rule(purpose="health_education", **WORDS)], [HIGH]), "p0", "bp-high")
    assert (found.verdict, found.reason) == ("blocked", "consent-missing")
    assert [state for _, _, state in found.guards] == ["passed"] * 5 + ["failed"] + ["not reached"] * 3
    assert found.staff.startswith("Not stored (guard 6, consent-missing): no valid consent to this purpose.")
    assert found.patient == "We keep no such note about you. You have not agreed to this use."


def test_waiting(kit: Any) -> None:
    found = explain(kit.run([kit.rule(review="always", **WORDS)], [HIGH]), "p0", "bp-high")
    assert (found.verdict, found.reason) == ("waiting", "review-always")
    assert found.patient == "Nothing is decided yet. A member of staff is looking at this."


def test_a_patient_is_told_a_band_and_staff_the_number(kit: Any) -> None:
    rule = kit.rule(
        when="risk_t2d_12m >= 0.05", model={"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 9},
        explain="Your chance is {risk_t2d_12m}.", explain_staff="Risk {risk_t2d_12m}.",
    )  # fmt: skip
    rows = [{"risk_t2d_12m": risk} for risk in (0.07, 0.1, 0.3, 0.77)]
    outcome = kit.run([rule], rows, models=kit.models("risk_t2d_12m"))
    told = [explain(outcome, f"p{number}", "bp-high") for number in range(4)]
    assert [one.patient for one in told] == [
        "Your chance is low.", "Your chance is slightly raised.", "Your chance is raised.", "Your chance is high.",
    ]  # fmt: skip
    assert told[3].staff == "Tagged: Risk 0.77."


def test_one_who_has_the_tag_is_held_against_the_exit(kit: Any) -> None:
    rule = kit.rule(hysteresis={"column": "sbp", "enter": 140, "exit": 130})
    held = Memory(held={"pack/bp-high": frozenset({"p0"})})
    outcome = kit.run([rule], [{"sbp": 135.0}], memory=held)
    assert explain(outcome, "p0", "bp-high").true == ("sbp >= 130 (is: 135 mmHg)",)
    assert next(iter(outcome.decisions())).because == ("sbp >= 130",)
    fresh = kit.run([rule], [{"sbp": 135.0}])
    assert explain(fresh, "p0", "bp-high").false == ("sbp >= 140 (is: 135 mmHg)",)


def test_the_message_is_part_of_the_answer(kit: Any) -> None:
    rule = kit.rule(contact="patient", cooldown_days=1)
    assert explain(kit.run([rule], [HIGH]), "p0", "bp-high").contact == "due"
    capped = kit.run([rule], [HIGH], memory=Memory(contacts_today={"p0": 2}))
    assert explain(capped, "p0", "bp-high").contact == "contact-cap"


def test_every_reason_has_words_for_both_readers() -> None:
    for reason in REASONS.values():
        assert len(reason.staff) > 10
        if reason.effect != "no-contact" and reason.code != "patient-deceased":
            assert reason.patient.endswith("."), reason.code


def test_unknown_tag_and_patient(kit: Any) -> None:
    outcome = kit.run([kit.rule()], [HIGH])
    with pytest.raises(OperatorError, match="tag-unknown") as caught:
        explain(outcome, "p0", "nothing")
    assert "bp-high" in caught.value.do
    with pytest.raises(OperatorError, match="pseudonym-unknown") as caught:
        explain(outcome, "secret-name", "bp-high")
    assert "secret-name" not in str(caught.value) + caught.value.do
