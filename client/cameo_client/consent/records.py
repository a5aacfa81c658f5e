"""Consent as data: scopes, statuses, notices, and one record of one decision."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from cameo_protocol.errors import Bug

Scope = Literal["care", "health_education", "service_reminder", "marketing", "model_training", "research"]
Status = Literal["granted", "denied", "withdrawn"]
Method = Literal["paper", "electronic", "double_confirmed", "verbal", "imported", "made_up"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
STATUSES: tuple[Status, ...] = get_args(Status)
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Notice:
    """The text that the patient was shown. Its hash goes into every record, so that nobody can swap it later."""

    version: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the text, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


NOTICE = Notice(
    "1",
    "You decide, purpose by purpose, what this hospital may do with your data: care beyond your treatment contract, "
    "health education, service reminders, marketing, training of shared models, research. You may withdraw any of "
    "these at any time; we then leave your data out before the next use. A model that was released before cannot be "
    "untrained. You may ask for a list of every use at any time.",
)
MADE_UP_NOTICE = Notice(
    "made-up-1",
    "MADE UP FOR A DEMONSTRATION. No person was asked and no person agreed to anything; this record only lets the "
    "demonstration show what a consent does.",
)


@dataclass(frozen=True, kw_only=True)
class ConsentRecord:
    """One decision of one patient about one scope.

    at, expires: aware datetimes; a grant is valid from `at` until before `expires` (None: no end).
    guardian: who decided for a minor, as the hospital's own reference and never a name.
    fictional: made up for a demonstration (method "made_up"); whoever shows or exports it says so.
    """

    pseudonym: str
    scope: Scope
    status: Status
    notice_version: str
    notice_sha256: str
    method: Method
    at: datetime
    expires: datetime | None = None
    guardian: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for moment in (self.at, self.expires):
            if moment is not None and moment.tzinfo is None:
                raise Bug("consent-time", what="a consent time without a time zone")
        if self.scope not in SCOPES or self.status not in STATUSES or self.method not in METHODS:
            raise Bug("consent-word", what="a scope, status or method that is not in the list")

    @property
    def fictional(self) -> bool:
        """Whether no person decided this."""
        return self.method == "made_up"


@dataclass(frozen=True, kw_only=True)
class Use:
    """One use of patients' data: when, for which purpose, what was done, and under which run or rule pack.

    ground: "consent", or the other legal basis that the policy names.
    """

    at: datetime
    scope: Scope
    action: str
    reference: str
    ground: str = "consent"


def made_up(pseudonyms: list[str], scopes: tuple[Scope, ...], at: datetime) -> list[ConsentRecord]:
    """Grants for a demonstration on public data whose patients were never asked; every record says so."""
    return [
        ConsentRecord(
            pseudonym=pseudonym,
            scope=scope,
            status="granted",
            notice_version=MADE_UP_NOTICE.version,
            notice_sha256=MADE_UP_NOTICE.sha256,
            method="made_up",
            at=at,
        )
        for pseudonym in pseudonyms
        for scope in scopes
    ]
