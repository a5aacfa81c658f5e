"""The public parameters of an epoch, as both sides compute them from the plan."""

from __future__ import annotations

from cameo_protocol.errors import Reject
from cameo_protocol.layout import ROUND_KINDS
from cameo_protocol.plan import RunPlan
from cameo_protocol.secagg.params import EpochParams, Party
from cameo_protocol.stages import EpochCall


def epoch_params(plan: RunPlan, call: EpochCall) -> EpochParams:
    """Parameters of the epoch that `call` opens; parties that are not in the plan's roster are a `Reject`."""
    members = {site.index: site for site in plan.cohort.sites}
    strangers = [index for index in call.parties if index not in members]
    if strangers:
        raise Reject("party-unknown", what=f"the epoch names hospital {strangers[0]}, which is not in the plan")
    return EpochParams(
        plan_id=bytes.fromhex(plan.plan_id()),
        run_id=call.run,
        epoch=call.epoch,
        rounds=call.rounds,
        threshold=plan.cohort.threshold,
        colluders=plan.cohort.colluders,
        layouts=tuple(layout for layout in map(plan.layout, ROUND_KINDS) if layout.blocks),
        parties=tuple(Party(index=i, identity=bytes.fromhex(members[i].identity)) for i in call.parties),
    )
