"""What an audit is of: a plan without what changes from run to run. Both sides compute it, so it is here."""

from __future__ import annotations

import hashlib
import json

from cameo_protocol.plan import RunPlan


def recipe_of(plan: RunPlan) -> str:
    """SHA-256, hex, of the plan without its name, its seed, its deadlines and the identities of its hospitals."""
    value = plan.model_dump(mode="json", exclude={"name", "seed", "deadlines"})
    value["cohort"]["sites"] = len(plan.cohort.sites)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(b"cameo/recipe\0" + text.encode()).hexdigest()
