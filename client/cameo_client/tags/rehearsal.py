"""What a dry run tells besides the tallies: how far each rule reaches, which tags go together, and who gets them.

For the hospital's own eyes: shares, rounded to a thousandth, of this hospital's patients. Nothing of it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from cameo_client.tags.apply import Outcome
from cameo_client.tags.fairness import LEAST_GROUP, few, groups
from cameo_client.tags.world import Mask

OVERLAP = 0.5


def reach(outcome: Outcome) -> list[dict[str, Any]]:
    """One row a tag: shares of all patients that the rule proposes, keeps (stored or waiting), or cannot judge.

    fires: "never" and "always" are faults more often than findings; "sometimes" is the rest. without_model: the models
    that the rule reads and that are not installed here.
    """
    rows = []
    installed = {model.name for model in outcome.world.given.models}
    for item in outcome.world.rules:
        proposed, unknown = outcome.candidates[item.key], outcome.world.unknown[item.key]
        share = _share(proposed)
        rows.append(
            {
                "tag": item.rule.tag.name,
                "proposed": share,
                "coverage": _share(_kept(outcome, item.key)),
                "unknown": _share(unknown),
                "fires": "never" if not proposed.any() else "always" if proposed.all() else "sometimes",
                "without_model": [name for name in item.models if name not in installed],
            }
        )
    return rows


def overlaps(outcome: Outcome) -> list[dict[str, Any]]:
    """Pairs of tags of which at least half of all who get either get both; together: that share."""
    kept = {item.rule.tag.name: _kept(outcome, item.key) for item in outcome.world.rules}
    found = []
    for (one, first), (other, second) in combinations(kept.items(), 2):
        either = int((first | second).sum())
        both = int((first & second).sum())
        if both and both >= OVERLAP * either:
            found.append({"tags": [one, other], "together": round(both / either, 3)})
    return found


def disparity(outcome: Outcome) -> list[dict[str, Any]]:
    """For each tag and fact: the groups with the lowest and the highest rate. Groups below 11 patients are left out."""
    by_fact: dict[str, list[tuple[str, Mask]]] = {}
    for fact, group, members in groups(outcome):
        if int(members.sum()) >= LEAST_GROUP:
            by_fact.setdefault(fact, []).append((group, members))
    found = []
    for item in outcome.world.rules:
        kept = _kept(outcome, item.key)
        for fact, parts in by_fact.items():
            rates = {group: float(kept[rows].mean()) for group, rows in parts if not few(kept, rows)}
            if len(rates) > 1 and max(rates.values()) > 0:
                found.append(_extremes(item.rule.tag.name, fact, rates))
    return found


def changed_by_model(old: Outcome, new: Outcome) -> list[dict[str, Any]]:
    """One row a tag: how many patients get, lose or keep it when nothing but the models changes.

    old, new: the same facts, rules and circumstances, evaluated with the models' two versions. why_removed: the
    guards' reasons, or "not-proposed" and "unknown".
    """
    rows = []
    for item in new.world.rules:
        before, after = _kept(old, item.key), _kept(new, item.key)
        lost = before & ~after
        rows.append(
            {
                "tag": item.rule.tag.name,
                "models": list(item.models),
                "added": int((after & ~before).sum()),
                "removed": int(lost.sum()),
                "unchanged": int((before & after).sum()),
                "why_removed": _why(new, item.key, lost),
            }
        )
    return rows


def _why(outcome: Outcome, key: str, rows: Mask) -> dict[str, int]:
    from cameo_client.tags.reasons import CODES

    proposed, unknown = outcome.candidates[key], outcome.world.unknown[key]
    codes, numbers = np.unique(outcome.codes[key][rows & proposed], return_counts=True)
    found = {CODES[code]: number for code, number in zip(codes.tolist(), numbers.tolist(), strict=True)}
    found["unknown"] = int((rows & ~proposed & unknown).sum())
    found["not-proposed"] = int((rows & ~proposed & ~unknown).sum())
    return {reason: number for reason, number in found.items() if number}


def _kept(outcome: Outcome, key: str) -> Mask:
    return outcome.state(key, "stored") | outcome.state(key, "waiting")


def _share(rows: Mask) -> float:
    return round(float(rows.mean()), 3) if rows.size else 0.0


def _extremes(tag: str, fact: str, rates: Mapping[str, float]) -> dict[str, Any]:
    low, high = min(rates, key=lambda group: rates[group]), max(rates, key=lambda group: rates[group])
    return {"tag": tag, "fact": fact, "lowest": low, "lowest_rate": round(rates[low], 3), "highest": high,
            "highest_rate": round(rates[high], 3)}  # fmt: skip
