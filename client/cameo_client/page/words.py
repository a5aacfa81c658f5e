"""Counts and codes as the page and the report show them. Small counts never come out of here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cameo_client.tags.export import BASE, SMALLEST
from cameo_client.tags.reasons import REASONS
from cameo_protocol.privacy.statements import rounded_up
from cameo_protocol.web import words

KINDS: Final = {
    "evaluation": "evaluation",
    "recalibration": "recalibration",
    "risk": "risk model",
    "segment": "segment model",
}


def count_text(count: int) -> str:
    """Below 11 hidden, also none; the rest rounded to 5. No totals are shown beside such counts.

    >>> [count_text(n) for n in (0, 10, 11, 12, 13, 1234)]
    ['<11', '<11', '10', '10', '15', '1\u202f235']
    """
    if count < SMALLEST:
        return f"<{SMALLEST}"
    return words.thousands(BASE * ((count + BASE // 2) // BASE))


def reason_text(code: str) -> str:
    """
    >>> reason_text("no-such-reason")
    'no such reason'
    """
    return REASONS[code].staff if code in REASONS else code.replace("-", " ")


def spaced(name: str) -> str:
    """
    >>> spaced("health_education")
    'health education'
    """
    return name.replace("_", " ")


FILTERS: Final[Mapping[str, Any]] = {
    "count": count_text,
    "epsilon": rounded_up,
    "decimal_estimate": words.decimal_estimate,
    "delta": words.delta_text,
    "listed": words.listed,
    "moment": words.moment,
    "percent": words.percent_text,
    "percent_estimate": words.percent_estimate,
    "points_estimate": words.points_estimate,
    "thousands": words.thousands,
    "spaced": spaced,
    "why": reason_text,
    "kind": lambda name: KINDS.get(name, name),
}
