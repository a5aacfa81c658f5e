"""Before a run: whether enough hospitals are connected."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cameo_protocol.console import say

if TYPE_CHECKING:
    from cameo_protocol.plan import RunPlan

POLL_S, SAY_S = 1.0, 10.0


def await_hospitals(
    home: Path | None,
    profile: Path | None,
    plan: RunPlan,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until as many hospitals of the plan are connected as open a sum; say who is not.

    Waits as long as the plan waits for answers to its invitation, since nodes may be starting just now; then an
    `OperatorError` "hospitals-offline" (exit 7).
    """
    from cameo_protocol.errors import ExitCode, OperatorError

    start, said = clock(), -SAY_S
    names = [site.name for site in plan.cohort.sites]
    while True:
        online = _online(home, profile)
        away = [name for name in names if name not in online]
        here = f"{len(names) - len(away)} of {len(names)} hospitals are connected"
        waited = clock() - start
        if len(names) - len(away) >= plan.cohort.threshold:
            if away:
                say(f"{here}; not connected: {', '.join(away)}")
            return
        if waited >= plan.deadlines.admit:
            raise OperatorError(
                "hospitals-offline",
                what=f"{here}; {plan.cohort.threshold} are needed. Not connected: {', '.join(away)}",
                do="have them start their nodes (cameo-node start), see cameo site list, then run the command again",
                exit=ExitCode.PEER,
            )
        if waited - said >= SAY_S:
            said = waited
            left = plan.deadlines.admit - waited
            say(f"{here}; {plan.cohort.threshold} are needed: waiting for {', '.join(away)}, {left:.0f} s at most")
        pause(POLL_S)


def _online(home: Path | None, profile: Path | None) -> set[str]:
    from cameo_protocol.operator_api import operator_pb2 as pb
    from cameo_server.api.client import connected

    with connected(home, profile) as client:
        return {site.name for site in client.call("ListSites", pb.ListSitesRequest()).sites if site.online}
