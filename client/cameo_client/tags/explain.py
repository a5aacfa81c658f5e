"""Why a patient has a tag, and why not: the comparisons, the guard path, and the same in the patient's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cameo_client.tags.apply import Outcome
from cameo_client.tags.bind import BoundRule
from cameo_client.tags.engine import literal_expr, literal_text, literals
from cameo_client.tags.reasons import CODES, GUARD_NAMES, REASONS
from cameo_client.tags.wording import fill, show
from cameo_protocol.errors import OperatorError

Verdict = Literal["stored", "waiting", "blocked", "not-proposed", "unknown"]
STORAGE_GUARDS = 9


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One (patient, tag) answered. true, false, unknown: the rule's comparisons by their answer, with the value.

    models: what the rule reads of models: each one's name, its run, its id; run and id "" where none serves.
    guards: (number, name, "passed" | "failed" | "not reached"). staff, patient: whole sentences.
    """

    pseudonym: str
    tag: str
    rule: str
    rule_version: int
    pack: str
    pack_sha256: str
    verdict: Verdict
    reason: str
    contact: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    unknown: tuple[str, ...]
    models: tuple[Mapping[str, str], ...]
    guards: tuple[tuple[int, str, str], ...]
    staff: str
    patient: str


def explain(outcome: Outcome, pseudonym: str, tag: str) -> Explanation:
    """Answer for one patient of the outcome and one tag of its rules; neither known: `OperatorError`."""
    item = next((rule for rule in outcome.world.rules if rule.rule.tag.name == tag), None)
    if item is None:
        known = ", ".join(sorted(rule.rule.tag.name for rule in outcome.world.rules))
        raise OperatorError("tag-unknown", what=f"no rule gives the tag {tag!r}", do=f"use one of: {known}")
    row = outcome.row(pseudonym)
    if row is None:
        raise OperatorError(
            "pseudonym-unknown",
            what="no patient of that pseudonym in the facts",
            do="find it from the person id: cameo-node data pseudonym",
        )
    values = outcome.world.frame.row(row, named=True)
    answers = _answers(outcome, item, row, values)
    verdict = _verdict(outcome, item, row)
    reason = CODES[int(outcome.codes[item.key][row])] if verdict in ("stored", "waiting", "blocked") else ""
    contact = "none"
    if verdict == "stored" and item.key in outcome.contact:
        contact = CODES[int(outcome.contact[item.key][row])] or "due"
    return Explanation(
        pseudonym=pseudonym,
        tag=tag,
        rule=item.key,
        rule_version=item.rule.version,
        pack=f"{item.pack_id} {item.pack_version}",
        pack_sha256=item.pack_sha256,
        verdict=verdict,
        reason=reason,
        contact=contact,
        true=answers["true"],
        false=answers["false"],
        unknown=answers["unknown"],
        models=tuple(_model(outcome, name) for name in item.models),
        guards=_path(verdict, reason),
        staff=_staff(outcome, item, values, verdict, reason, answers),
        patient=_patient(outcome, item, values, verdict, reason),
    )


def _model(outcome: Outcome, name: str) -> Mapping[str, str]:
    found = next((model for model in outcome.world.given.models if model.name == name), None)
    return {"name": name, "run": found.run if found else "", "model_id": found.model_id if found else ""}


def _verdict(outcome: Outcome, item: BoundRule, row: int) -> Verdict:
    if not outcome.candidates[item.key][row]:
        return "unknown" if outcome.world.unknown[item.key][row] else "not-proposed"
    for state in ("stored", "waiting", "blocked"):
        if np.any(outcome.state(item.key, state)[row]):
            return state
    raise AssertionError("a candidate is in one of the three states")


def _answers(outcome: Outcome, item: BoundRule, row: int, values: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """The rule's comparisons, with the value seen, by their answer."""
    held = outcome.world.pseudonyms[row] in outcome.world.given.memory.held.get(item.key, ())
    signed = literals(item.stay if held else item.enter)
    exprs = [literal_expr(leaf, wanted).alias(str(i)) for i, (leaf, wanted) in enumerate(signed)]
    found: dict[str, list[str]] = {"true": [], "false": [], "unknown": []}
    for (leaf, wanted), answer in zip(signed, outcome.world.frame[[row]].select(exprs).row(0), strict=True):
        column = outcome.world.schema.column(leaf.column)
        seen = f"{literal_text(leaf, wanted)} (is: {show(column, values[leaf.column], patient=False)})"
        found["unknown" if answer is None else "true" if answer else "false"].append(seen)
    return {key: tuple(texts) for key, texts in found.items()}


def _path(verdict: Verdict, reason: str) -> tuple[tuple[int, str, str], ...]:
    reached = verdict in ("stored", "waiting", "blocked")
    stop = REASONS[reason].guard if reason else STORAGE_GUARDS + 1
    path = []
    for number, name in GUARD_NAMES.items():
        if number > STORAGE_GUARDS:
            continue
        state = "not reached" if not reached or number > stop else "failed" if number == stop else "passed"
        path.append((number, name, state))
    return tuple(path)


def _staff(
    outcome: Outcome,
    item: BoundRule,
    values: Mapping[str, object],
    verdict: Verdict,
    reason: str,
    answers: Mapping[str, tuple[str, ...]],
) -> str:
    filled = fill(item.rule.explain_staff, values, outcome.world.schema, patient=False)
    if verdict == "not-proposed":
        return f"Not tagged: the rule is not met. Not true: {'; '.join(answers['false'])}."
    if verdict == "unknown":
        return f"Not tagged: the answer is unknown. Not known: {'; '.join(answers['unknown'])}."
    if verdict == "stored":
        return f"Tagged: {filled}"
    word = "Waiting" if verdict == "waiting" else "Not stored"
    return f"{word} (guard {REASONS[reason].guard}, {reason}): {REASONS[reason].staff}. {filled}"


def _patient(outcome: Outcome, item: BoundRule, values: Mapping[str, object], verdict: Verdict, reason: str) -> str:
    """To the patient a blocked or waiting inference is not told, only that and why nothing is stored."""
    if verdict == "stored":
        return fill(item.rule.explain, values, outcome.world.schema, patient=True)
    if verdict == "not-proposed":
        return "We keep no such note about you: your data does not call for it."
    if verdict == "unknown":
        return "We keep no such note about you: some of the data it needs is not known."
    if verdict == "waiting":
        return f"Nothing is decided yet. {REASONS[reason].patient}"
    return f"We keep no such note about you. {REASONS[reason].patient}".strip()
