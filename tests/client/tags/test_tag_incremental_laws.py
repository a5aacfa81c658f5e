"""Evaluating the changed patients only leaves the same store as evaluating everybody, whatever happens in between."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cameo_client.tags.apply import apply
from cameo_client.tags.incremental import affected, load, marks
from cameo_client.tags.lint import bind_pack
from cameo_client.tags.record import write
from cameo_client.tags.store import TagStore
from cameo_client.tags.world import Circumstances, Quality

PATIENTS = 5
ROW = st.fixed_dictionaries(
    {
        "sbp": st.none() | st.sampled_from([110.0, 135.0, 145.0]),
        "age": st.sampled_from([12.0, 40.0]),
        "steps_rate_30d": st.sampled_from([0.6, 0.75, 0.9]),
        "objected": st.booleans() | st.just(False),
        "ckd_stage": st.sampled_from(["none", "g3"]) | st.none(),
        "risk_t2d_12m": st.sampled_from([0.1, 0.5]),
    }
)
STEP = st.one_of(
    st.tuples(st.just("facts"), st.integers(0, PATIENTS - 1), ROW),
    st.tuples(st.just("yes"), st.integers(0, PATIENTS - 1), st.sampled_from(["health_education", "research"])),
    st.tuples(st.just("no"), st.integers(0, PATIENTS - 1), st.sampled_from(["care", "health_education"])),
    st.tuples(st.just("guardian"), st.integers(0, PATIENTS - 1), st.none()),
    st.tuples(st.just("verdict"), st.sampled_from(["approved", "rejected"]), st.none()),
    st.tuples(st.just("gone"), st.integers(0, PATIENTS - 1), st.none()),
    st.tuples(st.just("hours"), st.sampled_from([1, 7, 30, 24 * 9]), st.none()),
    st.tuples(st.just("model"), st.none(), st.none()),
    st.tuples(st.just("record"), st.integers(0, PATIENTS - 1), st.none()),
)


def rules(kit: Any) -> list[dict[str, Any]]:
    model = {"name": "risk_t2d_12m", "min_version": 1, "max_age_days": 100}
    message = {"contact": "patient", "cooldown_days": 2}
    band = {"column": "steps_rate_30d", "enter": 0.8, "exit": 0.7}
    education = {"purpose": "health_education"}
    return [
        kit.rule(id="told", when="sbp >= 140", priority=3, exclusive_group="bp", **message),
        kit.rule(id="lower", when="sbp >= 130", priority=2, exclusive_group="bp", **education, **message),
        kit.rule(id="banded", when="steps_rate_30d >= 0.8", hysteresis=band, **education),
        kit.rule(id="reviewed", when="ckd_stage = 'g3'", review="always", on_unknown="review"),
        kit.rule(id="scored", when="risk_t2d_12m >= 0.3", model=model, purpose="research", **message),
    ]


class Ward:
    """The world that both stores see, changed step by step."""

    def __init__(self, kit: Any, rows: list[dict[str, Any]]) -> None:
        self.kit, self.rows, self.gone = kit, rows, set[int]()
        self.book, self.now, self.poor, self.models = kit.book(), kit.noon, frozenset[str](), kit.models("risk_t2d_12m")
        _, self.bound = bind_pack(kit.text(*rules(kit)), "p.yaml", kit.schema, today=date(2026, 6, 1))

    def facts(self) -> pl.DataFrame:
        frame = self.kit.frame(*self.rows)
        return frame.filter(~pl.col("pseudonym").is_in([f"p{row}" for row in self.gone]))

    def evaluate(self, store: TagStore, *, changed_only: bool) -> int:
        """How many were evaluated."""
        given = Circumstances(
            policy=self.kit.policy, consent=self.book, quality=Quality(97.0, self.poor), models=self.models,
            approved_packs={self.bound[0].pack_sha256}, now=self.now, snapshot=date(2026, 5, 20),
            memory=store.memory(self.kit.policy, self.now),
        )  # fmt: skip
        facts = self.facts()
        found = marks(facts, self.bound, self.kit.schema, given)
        only = affected(load(store), found, self.bound, given) if changed_only else None
        chosen = facts if only is None else facts.filter(pl.col("pseudonym").is_in(sorted(only)))
        write(store, apply(chosen, self.bound, self.kit.schema, given), only=only, marks=found)
        return chosen.height

    def step(self, stores: list[TagStore], what: str, whom: Any, how: Any) -> None:
        if what == "facts":
            self.rows[whom] = how
            self.gone.discard(whom)
        elif what == "yes":
            self.book.yes.setdefault(how, set()).add(f"p{whom}")
        elif what == "no":
            self.book.no.setdefault(how, set()).add(f"p{whom}")
        elif what == "guardian":
            self.book.guarded.add(f"p{whom}")
        elif what == "verdict":
            waiting = stores[0].tags(self.now, state="waiting")
            for store in stores if waiting else []:
                store.review(waiting[0].pseudonym, waiting[0].tag, "B. Doctor", whom, self.now)
        elif what == "gone":
            self.gone |= {whom} if len(self.gone) < PATIENTS - 1 else set()
        elif what == "hours":
            self.now += timedelta(hours=whom)
        elif what == "model":
            self.models = tuple(replace(model, version=model.version + 1) for model in self.models)
        else:
            self.poor ^= {f"p{whom}"}


def state(store: TagStore) -> Any:
    """What must be the same: tags, their history and the messages."""
    tags = [(t.pseudonym, t.tag, t.state, t.reason, t.because, t.since, t.rule_version) for t in store.every()]
    history = [sorted(tuple((k, v) for k, v in row.items() if k != "run") for row in store.history(f"p{i}"))
               for i in range(PATIENTS)]  # fmt: skip
    with store.transaction() as db:
        messages = db.execute("SELECT count(*), max(at) FROM contacts").fetchone()
    return tags, history, messages


def compare(ward: Ward, steps: list[tuple[str, Any, Any]]) -> None:
    """Two stores, one evaluated for the changed only, are alike after each step."""
    with (
        tempfile.TemporaryDirectory() as home,
        TagStore(Path(home) / "quick.sqlite") as quick,
        TagStore(Path(home) / "full.sqlite") as full,
    ):
        for step in [("hours", 0, None), *steps]:
            ward.step([quick, full], *step)
            ward.evaluate(quick, changed_only=True)
            ward.evaluate(full, changed_only=False)
            assert state(quick) == state(full)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROW, min_size=PATIENTS, max_size=PATIENTS), st.lists(STEP, min_size=1, max_size=6))
def test_the_changed_alone_give_what_everybody_gives(kit: Any, rows: Any, steps: Any) -> None:
    compare(Ward(kit, list(rows)), steps)


def test_what_changes_without_a_change_of_facts(kit: Any) -> None:
    """A message that waits for the morning, and the reason of a tag that is held from its second evaluation on."""
    ward = Ward(kit, [{"sbp": 145.0}, {"steps_rate_30d": 0.9}])
    ward.now = ward.now.replace(hour=2)
    compare(ward, [("yes", 1, "health_education"), ("hours", 1, None), ("hours", 7, None)])


def test_only_the_changed_are_evaluated(kit: Any, tmp_path: Path) -> None:
    calm = {"sbp": 110.0, "age": 40.0, "steps_rate_30d": 0.6, "ckd_stage": "none", "risk_t2d_12m": 0.1}
    ward = Ward(kit, [dict(calm) for _ in range(PATIENTS)])
    with TagStore(tmp_path / "tags.sqlite") as store:

        def evaluated(*steps: tuple[str, Any, Any]) -> int:
            for step in steps:
                ward.step([store], *step)
            return ward.evaluate(store, changed_only=True)

        assert evaluated() == PATIENTS
        assert evaluated() == 0
        assert evaluated(("facts", 2, {**calm, "bmi": 31.0})) == 0  # no rule and no guard reads it
        assert evaluated(("facts", 2, {**calm, "sbp": 135.0})) == 1
        assert evaluated(("facts", 1, {**calm, "risk_t2d_12m": 0.2})) == 1
        assert evaluated(("yes", 3, "health_education"), ("no", 4, "care")) == 2
        assert evaluated(("record", 0, None)) == 1
        assert evaluated(("hours", 1, None)) == 0
        assert evaluated(("gone", 1, None)) == 0
        assert evaluated(("model", None, None)) == PATIENTS - 1
        assert evaluated(("hours", 24, None)) == PATIENTS - 1
        assert ward.evaluate(store, changed_only=False) == PATIENTS - 1
