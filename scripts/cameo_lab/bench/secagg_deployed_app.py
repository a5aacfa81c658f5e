"""The coordinator's app of the deployed benchmark: the run loop's own set-up and rounds, without admission or training.

Started by superexec as a ServerApp, as the real one is. The home holds plan.json and deployed.json (node ids, rounds).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from cameo_protocol.quiet import quiet_flower

quiet_flower()

from flwr.app import Context  # noqa: E402 - Flower reads its environment at import
from flwr.serverapp import Grid, ServerApp  # noqa: E402

from cameo_protocol.errors import Bug  # noqa: E402
from cameo_protocol.plan import parse_plan  # noqa: E402
from cameo_protocol.stages import EpochCall, RoundCall  # noqa: E402
from cameo_server.flower.exchange import Exchange  # noqa: E402
from cameo_server.run.kept import Kept  # noqa: E402
from cameo_server.run.party import Parties  # noqa: E402
from cameo_server.run.record import RoundLog  # noqa: E402
from cameo_server.run.round import Opened, run_round  # noqa: E402
from cameo_server.run.store import RunStore  # noqa: E402

app = ServerApp()
RUN, RESULT = "bench", "result.json"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Set up one epoch, make the rounds, write the seconds of each stage of each round to result.json."""
    home = Path(str(context.run_config["home"]))
    plan, given = parse_plan((home / "plan.json").read_bytes()), json.loads((home / "deployed.json").read_text())
    nodes = {int(index): int(node) for index, node in given["nodes"].items()}
    while len(set(grid.get_node_ids()) & set(nodes.values())) < len(nodes):
        time.sleep(0.1)
    store = RunStore(home / "run")
    store.folder.mkdir(exist_ok=True)
    parties = Parties(plan, nodes, Exchange(grid), store, time.monotonic, time.sleep, active=set(nodes))
    from cameo_server.run.epoch import set_up

    began = time.monotonic()
    call = EpochCall(run=RUN, epoch=1, rounds=given["rounds"], parties=tuple(sorted(nodes)))
    epoch = set_up(parties, call, Kept(store, plan))
    setup_s = time.monotonic() - began
    if epoch is None:
        raise Bug("bench-wrong", what="the set-up of the deployed benchmark lost a hospital")
    rounds = []
    for number in range(given["rounds"]):
        parameters = os.urandom(4 * plan.layout("train").dim)
        asked = RoundCall(run=RUN, epoch=1, round_no=number, kind="train", step=number, invited=call.parties)
        log = RoundLog(store.folder / f"round-{number}.log")
        outcome = run_round(parties, epoch, asked, parameters, log)
        log.path.unlink(missing_ok=True)
        if not isinstance(outcome, Opened) or len(outcome.survivors) != len(nodes):
            raise Bug("bench-wrong", what="a round of the deployed benchmark was void or lost a hospital")
        rounds.append(outcome.seconds)
    (home / RESULT).write_text(json.dumps({"setup_s": setup_s, "rounds": rounds}))
