"""A ServerApp for tests: asks all nodes a number of times over `Exchange` and writes what came to its home.

The run's `plan` says how, as JSON: rounds, nodes (how many to wait for), gap_s between rounds, size of the vector,
deadline_s. The result is result.json.
"""

import json
import os
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cameo_protocol.packet import Packet
from cameo_server.flower.exchange import Exchange

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    home, plan = Path(str(context.run_config["home"])), json.loads(str(context.run_config["plan"]))
    exchange, end = Exchange(grid), time.monotonic() + 20
    while len(nodes := sorted(grid.get_node_ids())) < plan["nodes"] and time.monotonic() < end:
        time.sleep(0.05)
    rounds = []
    for number in range(plan["rounds"]):
        vector = os.urandom(plan.get("size", 240))
        began = time.monotonic()
        answers = dict(exchange.ask({n: Packet("echo", b"%d" % number, vector) for n in nodes}, plan["deadline_s"]))
        rounds.append(
            {
                "seconds": time.monotonic() - began,
                "answered": sorted(answers),
                "right": all(a == Packet("echoed", b"%d" % number, vector) for a in answers.values()),
            }
        )
        (home / "progress").write_text(str(number + 1))
        time.sleep(plan.get("gap_s", 0))
    (home / "result.json").write_text(json.dumps({"nodes": nodes, "rounds": rounds}))
