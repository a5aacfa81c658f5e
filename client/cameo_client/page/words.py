"""Numbers and codes as the page and the report show them. Small counts never come out of here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cameo_client.tags.export import BASE, SMALLEST
from cameo_client.tags.reasons import REASONS
from cameo_protocol.privacy.statements import rounded_up

KINDS: Final = {
    "evaluation": "evaluation",
    "recalibration": "recalibration",
    "risk": "risk model",
    "segment": "segment model",
}
TOWARD: Final = {
    "coord": "the coordinator, with the hospitals it may work with",
    "model": "who holds the models",
    "bare": "anybody, if every mask fell",
}


def count_text(count: int) -> str:
    """Below 11 hidden, also none; the rest rounded to 5. No totals are shown beside such counts.

    >>> [count_text(n) for n in (0, 10, 11, 12, 13, 1234)]
    ['<11', '<11', '10', '10', '15', '1\u202f235']
    """
    if count < SMALLEST:
        return f"<{SMALLEST}"
    return f"{BASE * ((count + BASE // 2) // BASE):,}".replace(",", "\u202f")


def reason_text(code: str) -> str:
    """
    >>> reason_text("no-such-reason")
    'no such reason'
    """
    return REASONS[code].staff if code in REASONS else code.replace("-", " ")


def estimate_text(found: Mapping[str, Any] | None) -> str:
    """A noised figure with its interval.

    >>> estimate_text({"value": 0.8, "low": 0.75, "high": 0.85}), estimate_text(None)
    ('0.800 (0.750 to 0.850)', 'too noisy to say')
    """
    if not found:
        return "too noisy to say"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def moment(text: str) -> str:
    """A time of ours to the minute, in UTC.

    >>> moment("2026-11-24T12:04:17.123456+00:00"), moment("")
    ('2026-11-24 12:04', '')
    """
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M") if text else ""


def spaced(name: str) -> str:
    """
    >>> spaced("health_education")
    'health education'
    """
    return name.replace("_", " ")


FILTERS: Final[Mapping[str, Any]] = {
    "count": count_text,
    "epsilon": rounded_up,
    "estimate": estimate_text,
    "moment": moment,
    "spaced": spaced,
    "why": reason_text,
    "kind": lambda name: KINDS.get(name, name),
}
