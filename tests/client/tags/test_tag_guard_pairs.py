"""Every shipped rule by every guard: blocked by it, with that guard's own reason, and passed by it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from cameo_client.data.catalogue import load_catalogue
from cameo_client.tags.apply import Outcome, apply
from cameo_client.tags.author import load_rules
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.pack import SCOPE_OF
from cameo_client.tags.policy import Situation
from cameo_client.tags.predicate import columns
from cameo_client.tags.reasons import REASONS
from cameo_client.tags.schema import schema_of
from cameo_client.tags.world import Circumstances, Memory, Quality
from cameo_protocol.confdir import conf_dir

TODAY = date(2026, 6, 1)
PACKS = ("heart", "cardiometabolic")


@cache
def bound(pack: str) -> tuple[BoundRule, ...]:
    return tuple(load_rules([conf_dir() / "tags" / f"{pack}.yaml"], load_catalogue(pack), today=TODAY)[2])


CASES = [(pack, item.rule.id) for pack in PACKS for item in bound(pack)]


class Bench:
    """One rule with a patient for whom it is true, and circumstances in which every guard lets it pass."""

    def __init__(self, pack: str, rule_id: str, kit: Any) -> None:
        self.kit, self.schema = kit, schema_of(load_catalogue(pack))
        self.item = next(one for one in bound(pack) if one.rule.id == rule_id)
        example = next(case for case in self.item.rule.tests if case.expect == "true" and not case.held)
        self.row = {**self._calm(), **example.given}
        key = ("p0", self.item.key, self.item.rule.version)
        self.given: dict[str, Any] = {
            "policy": kit.policy,
            "consent": kit.book(**{scope: {"p0"} for scope in SCOPE_OF.values()}),
            "quality": Quality(97.0),
            "models": kit.models(*self.item.models, version=9),
            "approved_packs": {self.item.pack_sha256},
            "now": kit.noon,
            "snapshot": date(2026, 5, 20),
            "memory": Memory(approvals={key: 2}),
        }
        self.key = key

    def _calm(self) -> dict[str, Any]:
        """Facts in which no sensitive situation holds, each of them known."""
        found: dict[str, Any] = {}
        for situation in self.kit.policy.situations:
            tree = situation.tree(self.schema)
            for name in columns(tree) if tree is not None else ():
                column = self.schema.column(name)
                found[name] = False if column.kind == "bool" else next(v for v in column.values if v != "pathogenic")
        return found

    def run(self, *more: BoundRule, row: dict[str, Any] | None = None, schema: Any = None, **changes: Any) -> Outcome:
        frame = self.kit.frame({**self.row, **(row or {})})
        return apply(
            frame, [self.item, *more], schema or self.schema, Circumstances(**{**self.given, **changes})
        )  # fmt: skip

    def reason(self, *more: BoundRule, **changes: Any) -> str:
        """Why the tag is not stored; "" when it is."""
        fates = {one.rule.key: one for one in self.run(*more, **changes).decisions()}
        return fates[self.item.key].reason

    def contact(self, **changes: Any) -> str:
        (one,) = self.run(**changes).decisions()
        assert one.state == "stored"
        return one.contact

    def policy(self, **changes: Any) -> Any:
        return self.kit.policy.model_copy(update=changes)


@pytest.fixture(params=CASES, ids=[f"{pack}/{rule}" for pack, rule in CASES])
def bench(request: pytest.FixtureRequest, kit: Any, heart: Any) -> Bench:
    pack, rule_id = request.param
    return Bench(pack, rule_id, heart if pack == "heart" else kit)


def refused(bench: Bench, guard: int, **changes: Any) -> None:
    reason = bench.reason(**changes)
    assert reason, f"guard {guard} let it pass"
    assert REASONS[reason].guard == guard, reason


def test_the_rule_passes_every_guard(bench: Bench) -> None:
    assert bench.reason() == ""
    assert bench.contact() == ("none" if bench.item.rule.contact == "none" else "due")


def test_1_blocked(bench: Bench) -> None:
    refused(bench, 1, approved_packs=set())
    refused(bench, 1, now=datetime(2039, 1, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize("flag", ["objected", "deceased", "record_locked"])
def test_2_blocked(bench: Bench, flag: str) -> None:
    """By the fact that the policy names; where a catalogue lacks it nobody is stopped, until another fact is named."""
    policy = bench.kit.policy
    if policy.flags[flag] not in bench.schema.columns:
        assert bench.reason() == ""
        facts = [name for name, column in bench.schema.columns.items() if column.kind == "bool"]
        other = next(name for name in facts if name not in bench.item.columns)
        policy = bench.policy(flags={**policy.flags, flag: other})
    refused(bench, 2, policy=policy, row={policy.flags[flag]: True})
    assert bench.reason(policy=policy, row={policy.flags[flag]: False}) == ""
    assert bench.reason(policy=policy, row={policy.flags[flag]: None}) == "", "a flag that is null does not stop"


def test_3_blocked(bench: Bench) -> None:
    refused(bench, 3, quality=Quality(89.9))
    refused(bench, 3, quality=Quality(97.0, frozenset({"p0"})))
    refused(bench, 3, policy=bench.policy(max_snapshot_age_days=3))


def test_4_blocked_where_a_model_is_read_and_passed_where_none_is(bench: Bench) -> None:
    names = bench.item.models
    old = bench.kit.noon - timedelta(days=4000)
    for models in ((), bench.kit.models(*names, audited=False), bench.kit.models(*names, version=9, released=old)):
        if names:
            refused(bench, 4, models=models)
        else:
            assert bench.reason(models=models) == ""
    uncalibrated = bench.reason(models=bench.kit.models(*names, version=9, calibrated=False))
    risk = any(name != "segment" for name in names)
    assert uncalibrated == ("model-not-calibrated" if risk else "")


def test_5_blocked(bench: Bench) -> None:
    """The catalogue was narrowed after the pack was approved."""
    name = bench.item.columns[0]
    other = tuple(one for one in SCOPE_OF if one != bench.item.rule.purpose)
    narrowed = replace(bench.schema.column(name), purposes=other)
    refused(bench, 5, schema=replace(bench.schema, columns={**bench.schema.columns, name: narrowed}))


def test_6_blocked(bench: Bench) -> None:
    purpose = bench.item.rule.purpose
    book = bench.kit.book(**{scope: {"p0"} for scope in SCOPE_OF.values()})
    book.no = {SCOPE_OF[purpose]: {"p0"}}
    refused(bench, 6, consent=book)
    refused(bench, 6, consent=bench.kit.book(), policy=bench.policy(legal_basis={}))
    lawful = purpose in bench.kit.policy.legal_basis and not bench.item.rule.consent
    assert (bench.reason(consent=bench.kit.book()) == "") is lawful


def test_7_blocked(bench: Bench) -> None:
    holds = Situation(name="planted", when="age >= 18", stops=(bench.item.rule.purpose,))
    refused(bench, 7, row={"age": bench.row.get("age", 50.0)}, policy=bench.policy(situations=(holds,)))
    other = next(one for one in SCOPE_OF if one != bench.item.rule.purpose)
    spared = Situation(name="planted", when="age >= 18", stops=(other,))
    assert bench.reason(policy=bench.policy(situations=(spared,))) == ""


def test_8_blocked(bench: Bench) -> None:
    rule = bench.item.rule
    group = rule.exclusive_group or "planted"
    tag = rule.tag.model_copy(update={"name": "rival"})
    strong = rule.model_copy(update={"id": "rival", "tag": tag, "priority": 10_000, "exclusive_group": group})
    weak = strong.model_copy(update={"priority": -1})
    approvals = {**bench.given["memory"].approvals, ("p0", f"{bench.item.pack_id}/rival", rule.version): 2}
    own = bench.item
    bench.item = replace(own, rule=rule.model_copy(update={"exclusive_group": group}))
    memory = Memory(approvals=approvals)
    assert bench.reason(replace(own, rule=strong), memory=memory) == "exclusive-group"
    assert bench.reason(replace(own, rule=weak), memory=memory) == ""


def test_9_blocked(bench: Bench) -> None:
    refused(bench, 9, memory=Memory(rejections=frozenset({bench.key})))
    alone = bench.reason(memory=Memory())
    assert (alone in ("review-always", "review-two-person")) is (bench.item.rule.review in ("always", "two_person"))
    everybody = bench.policy(review_sample=1.0)
    assert (bench.reason(memory=Memory(), policy=everybody) == "") is (bench.item.rule.review == "none")


def test_10_and_11_stop_the_message_and_never_the_tag(bench: Bench) -> None:
    kind = bench.item.rule.contact
    approved = bench.given["memory"].approvals
    full = bench.contact(memory=Memory(approvals=approved, contacts_today={"p0": 2}))
    again = bench.contact(memory=Memory(approvals=approved, contacted={("p0", bench.item.key): bench.kit.noon}))
    night = bench.contact(now=bench.kit.noon.replace(hour=23))
    expected = {
        "none": ("none", "none", "none"),
        "patient": ("contact-cap", "contact-cooldown", "quiet-hours"),
        "safety": ("due", "contact-cooldown", "due"),
    }
    assert (full, again, night) == expected[kind]
