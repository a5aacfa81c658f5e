"""Laws of the whole rule layer, on random patients, consents and rules."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cameo_client.tags.apply import counts
from cameo_client.tags.explain import explain
from cameo_client.tags.pack import SCOPE_OF
from cameo_client.tags.world import Memory

apply_module = sys.modules["cameo_client.tags.apply"]

ROW = st.fixed_dictionaries(
    {
        "sbp": st.none() | st.sampled_from([110.0, 140.0, 165.0]),
        "dbp": st.none() | st.sampled_from([70.0, 90.0, 100.0]),
        "age": st.sampled_from([12.0, 30.0, 70.0]),
        "dx_htn": st.booleans(),
        "objected": st.booleans() | st.just(False),
        "surgery_30d": st.booleans(),
    }
)
RULE = st.fixed_dictionaries(
    {
        "when": st.sampled_from(["sbp >= 140", "dbp >= 90 OR sbp >= 160", "NOT dx_htn AND sbp < 150", "sbp IS NULL"]),
        "purpose": st.sampled_from(["care_management", "health_education", "research"]),
        "on_unknown": st.sampled_from(["skip", "review"]),
        "review": st.sampled_from(["none", "sample", "always"]),
        "exclusive_group": st.sampled_from([None, "group"]),
        "contact": st.sampled_from(["none", "patient", "patient"]),
        "cooldown_days": st.just(1),
    }
)
SCOPES = ("care", "health_education", "research")
WORLD = st.tuples(
    st.lists(ROW, min_size=1, max_size=6),
    st.lists(RULE, min_size=1, max_size=4, unique_by=lambda rule: rule["when"]),
    st.lists(st.sets(st.sampled_from(SCOPES)), min_size=6, max_size=6),
    st.lists(st.sets(st.sampled_from(SCOPES), max_size=1), min_size=6, max_size=6),
)
LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def build(kit: Any, world: Any) -> tuple[Any, Any]:
    """(outcome, consents)."""
    rows, changes, yes, no = world
    rules = [kit.rule(id=f"rule-{i}", priority=i, **c) for i, c in enumerate(changes)]
    book = kit.book(**{scope: {f"p{i}" for i in range(6) if scope in yes[i]} for scope in SCOPES})
    book.no = {scope: {f"p{i}" for i in range(6) if scope in no[i]} for scope in SCOPES}
    return kit.run(rules, rows, consent=book), book


@LAW
@given(WORLD)
def test_nothing_is_stored_or_waits_without_a_granted_scope(kit: Any, world: Any) -> None:
    outcome, book = build(kit, world)
    for one in outcome.decisions(("stored", "waiting")):
        for scope in one.rule.rule.scopes():
            assert one.pseudonym not in book.no[scope]
            if scope != "care":
                assert one.pseudonym in book.yes[scope]
        assert SCOPE_OF[one.rule.rule.purpose] in one.rule.rule.scopes()
        row = world[0][int(one.pseudonym[1:])]
        assert not row["objected"]
        assert row["age"] >= 18 or one.rule.rule.purpose == "care_management"


@LAW
@given(WORLD)
def test_states_are_a_partition_of_the_candidates(kit: Any, world: Any) -> None:
    outcome, _ = build(kit, world)
    for item, tally in zip(outcome.world.rules, counts(outcome), strict=True):
        masks = [outcome.state(item.key, state) for state in ("stored", "waiting", "blocked")]
        assert (sum(mask.astype(int) for mask in masks) == outcome.candidates[item.key]).all()
        sizes = [tally.stored, sum(tally.waiting.values()), sum(tally.blocked.values())]
        assert sizes == [int(mask.sum()) for mask in masks]
        assert "" not in {*tally.waiting, *tally.blocked}


@LAW
@given(WORLD)
def test_one_group_gives_one_kept_tag_and_a_day_gives_two_messages(kit: Any, world: Any) -> None:
    outcome, _ = build(kit, world)
    for name in outcome.world.pseudonyms:
        kept = [one for one in outcome.decisions(("stored", "waiting")) if one.pseudonym == name]
        assert sum(one.rule.rule.exclusive_group == "group" for one in kept) <= 1
        assert sum(one.contact == "due" for one in kept) <= 2


@LAW
@given(WORLD)
def test_a_patients_fate_depends_on_that_patient_only(kit: Any, world: Any) -> None:
    from cameo_client.tags.apply import apply

    together, _ = build(kit, world)
    for row, name in enumerate(together.world.pseudonyms):
        frame = kit.frame(*world[0])[[row]]
        alone = apply(frame, together.world.rules, kit.schema, together.world.given)
        theirs = {one.rule.key: one for one in together.decisions() if one.pseudonym == name}
        assert {one.rule.key: one for one in alone.decisions()} == theirs


@LAW
@given(WORLD)
def test_every_decision_and_every_non_decision_is_explained(kit: Any, world: Any) -> None:
    outcome, _ = build(kit, world)
    decided = {(one.pseudonym, one.rule.rule.tag.name): one for one in outcome.decisions()}
    for name in outcome.world.pseudonyms:
        for item in outcome.world.rules:
            found = explain(outcome, name, item.rule.tag.name)
            one = decided.get((name, item.rule.tag.name))
            if one is None:
                assert found.verdict in ("not-proposed", "unknown")
                assert found.false or found.unknown
            else:
                assert (found.verdict, found.reason, found.contact) == (one.state, one.reason, one.contact)
                failed = [number for number, _, state in found.guards if state == "failed"]
                assert len(failed) == (one.state != "stored")
            assert found.staff
            assert found.patient


@LAW
@given(WORLD)
def test_asking_for_the_reasons_of_all_rules_at_once_gives_the_same(kit: Any, world: Any) -> None:
    """As a small frame does, and rule by rule, as a large one does; some patients have a tag already."""
    outcome, _ = build(kit, world)
    held = {item.key: frozenset({"p0", "p3"}) for item in outcome.world.rules[:2]}
    given_ = replace(outcome.world.given, memory=Memory(held=held))
    outcome = apply_module.apply(kit.frame(*world[0]), outcome.world.rules, kit.schema, given_)
    together = list(outcome.decisions())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply_module, "FEW", 0)
        assert list(outcome.decisions()) == together
    kept = list(outcome.decisions(("stored",)))
    assert kept == [one for one in together if one.state == "stored"]
