"""Stock federated averaging for the benchmark: a Flower app as its documentation would write it, with a tiny model.

This file is the whole app: stock SuperNodes unpack it from the bundle and import it. It knows nothing of Cameo.
"""

from __future__ import annotations

import importlib
import itertools
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

server, client = ServerApp(), ClientApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Average `parameters` numbers over all nodes for `rounds` rounds; write the seconds of each round to `result`."""
    config = context.run_config
    nodes, rounds = int(config["nodes"]), int(config["rounds"])
    moments: list[float] = []

    def note(_round: int, _arrays: ArrayRecord) -> MetricRecord | None:
        moments.append(time.monotonic())
        return None

    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.2)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    start = ArrayRecord({"weights": Array(np.zeros(int(config["parameters"])))})
    train = ConfigRecord({"imports": str(config["imports"])})
    strategy.start(grid, start, num_rounds=rounds, train_config=train, evaluate_fn=note)
    seconds = [after - before for before, after in itertools.pairwise(moments)]
    Path(str(config["result"])).write_text(json.dumps(seconds))


@client.train()
def fit(message: Message, _context: Context) -> Message:
    """One step towards ones: the time is Flower's, not the model's."""
    for name in str(message.content.config_records["config"]["imports"]).split():
        importlib.import_module(name)
    weights = message.content.array_records["arrays"]["weights"].numpy()
    content = RecordDict(
        {
            "arrays": ArrayRecord({"weights": Array(weights + 0.1 * (1 - weights))}),
            "metrics": MetricRecord({"num-examples": 100}),
        }
    )
    return Message(content, reply_to=message)
