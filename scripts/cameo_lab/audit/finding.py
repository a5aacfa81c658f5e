"""What one check of an audit found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Effort = Literal["quick", "full"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check of an audit: what was tried, what was seen, what is allowed.

    name: kebab-case, stable. figures: what was measured. limit: the allowed region, in words with the number.
    control: figures of the control arm, that is of the attack without the protection; {} if there is none.
    control_failed: True when the control broke as it must, and where there is no control; an attack whose control
    holds proves nothing, so its finding does not pass.
    """

    name: str
    passed: bool
    figures: Mapping[str, float]
    limit: str
    control: Mapping[str, float]
    control_failed: bool
    seconds: float
