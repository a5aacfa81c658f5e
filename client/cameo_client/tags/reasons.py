"""Why a tag is not stored, waits, or is not sent: one stable code for each guard's answer, in words for both readers.

docs/tags.md shows this table; a test keeps the two the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Effect = Literal["blocked", "waiting", "no-contact"]


@dataclass(frozen=True)
class Reason:
    """guard: number of the guard that gives it. staff: what it means. patient: the same for the patient."""

    code: str
    guard: int
    effect: Effect
    staff: str
    patient: str


GUARD_NAMES: Mapping[int, str] = {
    1: "pack and rule in force",
    2: "patient may be tagged",
    3: "data quality",
    4: "model",
    5: "purpose limitation",
    6: "consent",
    7: "sensitive situation",
    8: "conflicts",
    9: "human review",
    10: "contact cap",
    11: "quiet hours",
    12: "diversity slot",
    13: "fairness monitor",
    14: "hash-chained log",
}
_IDLE = "This note is not in use at the moment."
_DATA = "Our data is not good enough for this note today."
_HELD = "We hold this back at the moment."
_MINOR = "Your guardian has not agreed to this use."
_LOOK = "A member of staff is looking at this."
_TABLE = (
    Reason("pack-not-approved", 1, "blocked", "nobody has approved this content of the pack", _IDLE),
    Reason("rule-not-active", 1, "blocked", "the rule's status is not active", _IDLE),
    Reason("rule-out-of-dates", 1, "blocked", "today lies outside the rule's effective dates", _IDLE),
    Reason("evidence-expired", 1, "blocked", "the evidence was not reviewed by its review date", _IDLE),
    Reason("patient-objected", 2, "blocked", "the patient objected to profiling", "You asked us not to do this."),
    Reason("patient-deceased", 2, "blocked", "the patient is recorded as deceased", ""),
    Reason("record-locked", 2, "blocked", "the record is locked", "Your record is locked."),
    Reason("quality-below-floor", 3, "blocked", "the data set's quality score is below the floor", _DATA),
    Reason("record-quality-below-floor", 3, "blocked", "this record's quality score is below the floor", _DATA),
    Reason("facts-stale", 3, "blocked", "the snapshot of the facts is too old or undated", _DATA),
    Reason("model-missing", 4, "blocked", "no released model fills the column", _IDLE),
    Reason("model-version", 4, "blocked", "the model's version is below the rule's minimum", _IDLE),
    Reason("model-too-old", 4, "blocked", "the model is older than the rule allows", _IDLE),
    Reason("model-not-audited", 4, "blocked", "the model's card names no privacy audit that passed", _IDLE),
    Reason("model-not-calibrated", 4, "blocked", "the risk model was not found to be calibrated", _IDLE),
    Reason("model-drifted", 4, "blocked", "the model's scores have drifted", _IDLE),
    Reason("model-over-budget", 4, "blocked", "the model was trained beyond the privacy budget", _IDLE),
    Reason("model-segment-changed", 4, "blocked", "a segment it names has another meaning since the approval", _IDLE),
    Reason("purpose-forbids-column", 5, "blocked", "a column may not be read for this purpose", _IDLE),
    Reason("genetic-care-only", 5, "blocked", "genetic facts go to the care team only", _IDLE),
    Reason("consent-withdrawn", 6, "blocked", "the patient said no to this purpose", "You said no to this use."),
    Reason("consent-no-guardian", 6, "blocked", "a minor, or of unknown age, without a guardian's consent", _MINOR),
    Reason("consent-missing", 6, "blocked", "no valid consent to this purpose", "You have not agreed to this use."),
    Reason("sensitive-situation", 7, "blocked", "a sensitive situation stops this purpose", _HELD),
    Reason("sensitive-unknown", 7, "blocked", "a sensitive situation is unknown, which stops marketing", _HELD),
    Reason(
        "exclusive-group", 8, "blocked", "a rule of higher priority in its group applies", "Another note fits better."
    ),
    Reason("review-rejected", 9, "blocked", "a reviewer rejected it", "A member of staff decided against this note."),
    Reason("review-unknown", 9, "waiting", "facts are missing, so a person decides", _LOOK),
    Reason("review-sample", 9, "waiting", "drawn for the sample that people check", _LOOK),
    Reason("review-always", 9, "waiting", "a person must approve it", _LOOK),
    Reason("review-two-person", 9, "waiting", "two people must approve it", _LOOK),
    Reason("contact-cooldown", 10, "no-contact", "the same message went out within its pause", ""),
    Reason("contact-cap", 10, "no-contact", "the day's messages over all packs are used up", ""),
    Reason("quiet-hours", 11, "no-contact", "it is night in the patient's zone; deferred", ""),
)
REASONS: Mapping[str, Reason] = {reason.code: reason for reason in _TABLE}
CODES: tuple[str, ...] = ("", *REASONS)
INDEX: Mapping[str, int] = {code: index for index, code in enumerate(CODES)}
