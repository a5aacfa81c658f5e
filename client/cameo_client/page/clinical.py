"""Facts and rules in the words of a clinician: a condition reads as a sentence, a column as what was measured. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import digits
from typing import Final

from cameo_client.tags.pack import Pack, Rule
from cameo_protocol.facts import Catalogue, LabelDefinition
from cameo_protocol.web.words import unit_text

_TOKEN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+(?:\.\d+)?|>=|<=|<>|!=|'[^']*'|\S|\s+", re.ASCII)
_SIGNS: Final = {">=": "≥", "<=": "≤", "<>": "≠", "!=": "≠"}
_KEYWORDS: Final = {"AND", "OR", "NOT", "BETWEEN", "IN", "IS", "NULL", "TRUE", "FALSE"}
_MADE_HERE: Final = {
    "segment": ("segment", ""),
    "segment_strength": ("how well the segment fits", "share"),
    "rfa_score": ("engagement score", "points"),
}


def names_of(catalogue: Catalogue, labels: Sequence[LabelDefinition]) -> dict[str, tuple[str, str]]:
    """Column -> (what it is, its unit): the facts, the scores of the labels, and what the node makes itself."""
    facts = {fact.name: (fact.meaning.partition(" (")[0], fact.unit) for fact in catalogue.facts}
    scores = {f"risk_{label.id}": (f"predicted risk ({_small(label.meaning)})", "share") for label in labels}
    return facts | scores | _MADE_HERE


def in_words(condition: str, names: Mapping[str, tuple[str, str]]) -> str:
    """A condition of a rule, or one of its comparisons; what is not known stays as it is written.

    >>> names = {"sbp": ("Systolic blood pressure", "mmHg"), "t2d": ("Type 2 diabetes", ""), "risk": ("Risk", "share")}
    >>> in_words("sbp >= 140 AND NOT t2d", names)
    'Systolic blood pressure ≥ 140 mmHg and not: type 2 diabetes'
    >>> in_words("risk >= 0.30 OR x = 'a'", names)
    "Risk ≥ 30 % or x = 'a'"
    >>> in_words("years < 1", {"years": ("Years since the diagnosis", "years")})
    'Years since the diagnosis < 1 year'
    """
    said: list[str] = []
    unit = ""
    for token in _TOKEN.findall(condition):
        if token.isspace():
            said.append(" ")
        elif token.upper() in _KEYWORDS:
            said.append("not:" if token.upper() == "NOT" else token.lower())
        elif token in names:
            words, unit = names[token]
            said.append(_small(words))
        elif token[0] in digits:
            said.append(_number(token, unit))
        else:
            said.append(_SIGNS.get(token, token))
    text = "".join(said)
    return text[:1].upper() + text[1:]


def rules_in_words(packs: Sequence[Pack], names: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Tag -> when it is given, over every rule of these packs that gives it."""
    found: dict[str, list[str]] = {}
    for pack in packs:
        for rule in pack.rules:
            found.setdefault(rule.tag.name, []).append(_rule(rule, names))
    return {tag: _small("; or ".join(words)) for tag, words in found.items()}


def _rule(rule: Rule, names: Mapping[str, tuple[str, str]]) -> str:
    unless = f", unless {in_words(rule.unless, names)}" if rule.unless else ""
    return in_words(rule.when, names) + unless


def _number(text: str, unit: str) -> str:
    if unit == "share":
        return f"{100 * float(text):g} %"
    single = float(text) == 1 and unit.isalpha()
    return f"{text} {unit.removesuffix('s') if single else unit_text(unit)}".rstrip()


def _small(words: str) -> str:
    """Lower case at its start, unless that is an abbreviation."""
    return words[:1].lower() + words[1:] if words[1:2].islower() else words
