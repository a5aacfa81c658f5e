"""Explanation templates: which words may stand in them, and how values are shown to whom."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cameo_client.tags.schema import Column, Schema

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
# Promises of a cure, and selling by fear: never said to a patient, whatever the rule.
_BANNED = tuple(
    re.compile(rf"\b(?:{phrase})", re.IGNORECASE)
    for phrase in (
        r"cures?\b", r"cured\b", r"guarante", r"miracle", r"risk[- ]free", r"no side effects", r"100 ?%",
        r"before it is too late", r"last chance", r"act now", r"buy now", r"you (?:will|could|may|might) die\b",
        r"deadly", r"don.t wait", r"limited offer", r"only today",
    )
)  # fmt: skip
_BANDS = ((0.10, "low"), (0.30, "slightly raised"), (0.50, "raised"))


def placeholders(template: str) -> tuple[str, ...]:
    """The columns a template names in braces, in order."""
    return tuple(_PLACE.findall(template))


def stray_brace(template: str) -> bool:
    """Whether a brace is left over that is part of no placeholder."""
    rest = _PLACE.sub("", template)
    return "{" in rest or "}" in rest


def banned_phrase(template: str) -> str:
    """The first phrase that must not be said, or ""."""
    for pattern in _BANNED:
        match = pattern.search(template)
        if match:
            return match.group()
    return ""


def fill(template: str, row: Mapping[str, object], schema: Schema, *, patient: bool) -> str:
    """A template with a patient's values. To a patient a probability is said as a band; null is "not known"."""
    return _PLACE.sub(lambda match: show(schema.column(match[1]), row.get(match[1]), patient=patient), template)


def show(column: Column, value: object, *, patient: bool) -> str:
    """One value with its unit, as text."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value).replace("_", " ")
    if patient and column.model and not column.whole:
        return next((word for edge, word in _BANDS if value < edge), "high")
    return f"{value:.4g}" + (f" {column.unit}" if column.unit and column.unit not in ("1", "years") else "")
