"""The engagement score RFA: response, frequency and activity, two points each. Fixed and local; no model, no money.

As recency, frequency and monetary value in marketing (Hughes, Strategic Database Marketing, 1994), with engagement in
place of money: what a patient can or does pay is never part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

RFA = "rfa_score"


@dataclass(frozen=True)
class Part:
    """One fact and what it is worth: a point for each cut that it reaches."""

    fact: str
    cuts: tuple[float, ...]


PARTS = (
    Part("education_share", (0.1, 0.5)),  # response: the share of education material that was opened
    Part("visits_12m", (2, 3)),  # frequency: visits in twelve months
    Part("portal_logins_30d", (1, 4)),  # activity: logins to the patient portal in thirty days
)
MOST = sum(len(part.cuts) for part in PARTS)
