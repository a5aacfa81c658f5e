"""Derive and guard together: facts and rules in, one decision for each (patient, tag) out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.contact import CONTACT_GUARDS, wants_contact
from cameo_client.tags.engine import PSEUDONYM, derive, literal_expr, literal_text, literals, prepare
from cameo_client.tags.guards import GUARDS, Guard
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.predicate import Leaf, columns
from cameo_client.tags.reasons import CODES, INDEX, REASONS
from cameo_client.tags.schema import Schema
from cameo_client.tags.world import Circumstances, Mask, World
from cameo_protocol.errors import Bug, OperatorError

State = Literal["stored", "waiting", "blocked"]
STATES: tuple[State, ...] = ("stored", "waiting", "blocked")
Codes = npt.NDArray[np.int16]
Answers = Mapping[tuple[Leaf, bool], Mask]
FEW = 64  # rows


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One candidate's fate. reason: "" when stored. contact: "due", "none", or the reason why not now.

    because: the comparisons that were true. expires: when a stored tag ends by itself.
    """

    pseudonym: str
    rule: BoundRule
    state: State
    reason: str
    contact: str
    because: tuple[str, ...]
    decided: datetime
    expires: datetime


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All decisions of one evaluation, wide: one array a rule, in the row order of `world.pseudonyms`.

    candidates: rows that the rule proposes. codes: index into `reasons.CODES` of the first guard that failed, 0
    when all passed. contact: the same for guards 10 and 11, for rules that lead to messages.
    """

    world: World
    answers: pl.DataFrame
    candidates: Mapping[str, Mask]
    codes: Mapping[str, Codes]
    contact: Mapping[str, Codes]

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return {name: row for row, name in enumerate(self.world.pseudonyms)}

    def row(self, pseudonym: str) -> int | None:
        """The row of a patient, or None."""
        return self._index.get(pseudonym)

    def state(self, key: str, state: State) -> Mask:
        """The rows of a rule that are in a state."""
        return np.asarray(self.candidates[key] & _IN_STATE[state][self.codes[key]], dtype=bool)

    def decisions(self, states: Sequence[State] = STATES) -> Iterator[Decision]:
        """The candidates in the given states, rule by rule; rows that were never proposed are not among them."""
        wanted = np.logical_or.reduce([_IN_STATE[state] for state in states])
        chosen = [
            (item, rows)
            for item in self.world.rules
            if len(rows := np.flatnonzero(self.candidates[item.key] & wanted[self.codes[item.key]]))
        ]
        few = self._true([item for item, _ in chosen]) if self.world.frame.height <= FEW else None
        for item, rows in chosen:
            yield from self._of_rule(item, rows, few)

    def _of_rule(self, item: BoundRule, rows: npt.NDArray[np.intp], few: Answers | None) -> Iterator[Decision]:
        now, ttl = self.world.given.now, timedelta(days=item.rule.tag.ttl_days)
        for row, because in zip(rows.tolist(), self._because(item, rows, few), strict=True):
            reason = CODES[int(self.codes[item.key][row])]
            yield Decision(
                pseudonym=self.world.pseudonyms[row],
                rule=item,
                state=_state_of(reason),
                reason=reason,
                contact=self._contact(item, row) if _state_of(reason) == "stored" else "none",
                because=because,
                decided=now,
                expires=now + ttl,
            )

    def _contact(self, item: BoundRule, row: int) -> str:
        if item.key not in self.contact:
            return "none"
        return CODES[int(self.contact[item.key][row])] or "due"

    def _true(self, items: Sequence[BoundRule]) -> Answers:
        """The signed comparisons of these rules, each with the rows where it is true: one pass over a small frame."""
        signed = list(
            dict.fromkeys(one for item in items for tree in (item.enter, item.stay) for one in literals(tree))
        )
        return dict(zip(signed, self.world.rows([literal_expr(*one).fill_null(False) for one in signed]), strict=True))

    def _because(self, item: BoundRule, rows: npt.NDArray[np.intp], few: Answers | None) -> list[tuple[str, ...]]:
        """The signed comparisons that were true, for the given rows only: going wide over all would cost memory.

        Patients who had the tag are held against the exit threshold, the others against the entry. few: all answers,
        where the frame is so small that asking once for all rules is cheaper.
        """
        held = self.world.members(self.world.given.memory.held.get(item.key, ()))[rows]
        found: list[tuple[str, ...]] = [()] * len(rows)
        for has, tree in ((False, item.enter), (True, item.stay)):
            chosen = np.flatnonzero(held == has)
            if not len(chosen):
                continue
            signed = literals(tree)
            texts = [literal_text(leaf, wanted) for leaf, wanted in signed]
            if few is not None:
                for position in chosen.tolist():
                    row = rows[position]
                    found[position] = tuple(text for text, one in zip(texts, signed, strict=True) if few[one][row])
                continue
            exprs = [literal_expr(*one).fill_null(False).alias(str(i)) for i, one in enumerate(signed)]
            frame = self.world.frame
            those = frame if len(chosen) == frame.height else frame[rows[chosen].tolist()]
            true = those.select(exprs)
            for position, values in zip(chosen.tolist(), true.iter_rows(), strict=True):
                found[position] = tuple(text for text, holds in zip(texts, values, strict=True) if holds)
        return found


def apply(facts: pl.DataFrame, rules: Sequence[BoundRule], schema: Schema, given: Circumstances) -> Outcome:
    """Decide every (patient, rule) of the frame.

    facts: one row a patient: `pseudonym`, the catalogue's columns, and the model columns there are.
    A tag is "stored" only if guards 1 to 9 all pass. The decision about one patient depends on that patient's row
    and on `given` only. Two rules of one tag name or key: `OperatorError`.
    """
    if given.now.tzinfo is None:
        raise Bug("tag-clock", what="a time without a zone")
    _check_unique(rules)
    frame = prepare(facts, schema, needed_columns(rules, schema, given.policy))
    answers = derive(frame, rules, given.memory.held)
    unknown = _masks(answers.select(pl.all().is_null()))
    world = World(
        frame=frame,
        pseudonyms=tuple(frame[PSEUDONYM].to_list()),
        schema=schema,
        rules=tuple(rules),
        given=given,
        unknown=unknown,
    )
    true = _masks(answers.select(pl.all().fill_null(False)))
    candidates = {
        item.key: true[item.key] | unknown[item.key] if item.rule.on_unknown == "review" else true[item.key]
        for item in rules
    }
    codes = run_guards(GUARDS, world, candidates)
    stored = {key: candidates[key] & (codes[key] == 0) for key in candidates}
    contact = run_guards(CONTACT_GUARDS, world, wants_contact(world, stored))
    return Outcome(world=world, answers=answers, candidates=candidates, codes=codes, contact=contact)


def run_guards(guards: Sequence[tuple[int, Guard]], world: World, candidates: Mapping[str, Mask]) -> dict[str, Codes]:
    """The first failure of each candidate as an index into `reasons.CODES`; 0 = every guard passed."""
    alive = {key: mask.copy() for key, mask in candidates.items()}
    left = {key for key, mask in alive.items() if mask.any()}
    codes = {key: np.zeros(len(world.pseudonyms), dtype=np.int16) for key in candidates}
    for number, guard in guards:
        for key, code, mask in guard(world, alive):
            if REASONS[code].guard != number:
                raise Bug("tag-guard", what=f"guard {number} gave the reason {code}, which is another guard's")
            if key not in left:
                continue
            hit = alive[key] & mask
            if hit.any():
                codes[key][hit] = INDEX[code]
                alive[key] ^= hit
                if not alive[key].any():
                    left.discard(key)
    return codes


@dataclass(frozen=True)
class Tally:
    """Decisions on one tag by state; blocked and waiting by reason code. Exact: for this hospital's own eyes only."""

    tag: str
    purpose: str
    stored: int
    waiting: Mapping[str, int]
    blocked: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """The tally for the store and `--json`."""
        return {
            "tag": self.tag,
            "purpose": self.purpose,
            "stored": self.stored,
            "waiting": dict(self.waiting),
            "blocked": dict(self.blocked),
        }


def counts(outcome: Outcome) -> tuple[Tally, ...]:
    """One tally a rule, in pack order."""
    return tuple(_tally(outcome, item) for item in outcome.world.rules)


def _tally(outcome: Outcome, item: BoundRule) -> Tally:
    by_state: dict[State, dict[str, int]] = {"stored": {}, "waiting": {}, "blocked": {}}
    codes, numbers = np.unique(outcome.codes[item.key][outcome.candidates[item.key]], return_counts=True)
    for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
        by_state[_state_of(CODES[code])][CODES[code]] = number
    stored = by_state["stored"].get("", 0)
    return Tally(item.rule.tag.name, item.rule.purpose, stored, by_state["waiting"], by_state["blocked"])


def needed_columns(rules: Sequence[BoundRule], schema: Schema, policy: TagPolicy) -> tuple[str, ...]:
    """Every column that rules and guards read and that the schema has."""
    wanted = [name for item in rules for name in item.columns]
    guard_columns = [*policy.flags.values(), *policy.fairness.columns, policy.age_column]
    guard_columns += [policy.quiet.column] if policy.quiet.column else []
    for situation in policy.situations:
        tree = situation.tree(schema)
        guard_columns += columns(tree) if tree is not None else ()
    wanted += [name for name in guard_columns if name in schema.columns]
    return tuple(dict.fromkeys(wanted))


def _masks(frame: pl.DataFrame) -> dict[str, Mask]:
    """Boolean columns without nulls as arrays, by name."""
    return {column.name: np.asarray(column.to_numpy(), dtype=bool) for column in frame.iter_columns()}


def _state_of(code: str) -> State:
    if not code:
        return "stored"
    return "waiting" if REASONS[code].effect == "waiting" else "blocked"


# Whether a reason code means the state.
_IN_STATE: Mapping[State, Mask] = {state: np.array([_state_of(code) == state for code in CODES]) for state in STATES}


def _check_unique(rules: Sequence[BoundRule]) -> None:
    for what, names in (("rule", [item.key for item in rules]), ("tag", [item.rule.tag.name for item in rules])):
        double = [name for name, number in Counter(names).items() if number > 1]
        if double:
            raise OperatorError(
                "tag-pack-clash",
                what=f"the {what} {double[0]} stands in two packs",
                do=f"rename the {what} in one pack, or leave one pack out",
            )
