"""Every attack by name, in the order in which an audit runs them.

An attack is a function of (subject, random, effort). random chooses the made-up patients and the attacker's own
moves, never the product's noise or keys. "quick" takes seconds, "full" minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cameo_lab.audit.attacks import differencing, imprint, invert, membership, precision, refusals
from cameo_lab.audit.finding import Effort, Finding
from cameo_lab.audit.subject import Subject

Attack = Callable[[Subject, np.random.Generator, Effort], Finding]

ATTACKS: Mapping[str, Attack] = {
    "gradient-inversion": invert.attack,
    "imprint": imprint.attack,
    "membership-inference": membership.attack,
    "cohort-differencing": differencing.cohort_differencing,
    "aggregate-of-one": differencing.aggregate_of_one,
    "below-threshold-reveal": differencing.below_threshold,
    "crafted-first-model": refusals.crafted_first_model,
    "zero-noise": refusals.zero_noise,
    "floating-point": precision.attack,
}
