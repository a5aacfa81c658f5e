"""The in-process grid as Flower's own ServerApp sees it."""

import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from cameo_client.flower.client_app import make_client_app
from cameo_lab.grid import RUN_ID, InProcessGrid
from cameo_protocol.packet import Packet
from cameo_server.flower.exchange import Exchange


def content(text: str) -> RecordDict:
    return RecordDict({"c": ConfigRecord({"text": text})})


def shout() -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        text = f"{message.content.config_records['c']['text']}! {context.node_id}"
        return Message(content(text), reply_to=message)

    return app


def test_send_and_receive() -> None:
    grid = InProcessGrid({4: shout(), 5: shout()})
    assert list(grid.get_node_ids()) == [4, 5]
    messages = [grid.create_message(content("hey"), "query", node, "1") for node in (4, 5, 6)]
    answers = list(grid.send_and_receive(messages))
    assert [a.content.config_records["c"]["text"] for a in answers] == ["hey! 4", "hey! 5"]
    assert list(grid.pull_messages(["message-1"])) == []


def test_the_run() -> None:
    grid = InProcessGrid({})
    assert grid.run.run_id == RUN_ID
    run = Run.create_empty(8)
    grid.set_run(run)
    assert grid.run == run
    assert grid.run is not run


def test_an_app_that_raises_answers_with_a_code() -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        raise ValueError("patient 4711")

    grid = InProcessGrid({1: app})
    (answer,) = grid.send_and_receive([Message(content("x"), 1, "query")])
    assert answer.error.reason == "node-failed"
    (answer,) = grid.send_and_receive([Message(content("x"), 1, "train")])
    assert answer.error.reason == "node-failed"


def test_a_server_app_runs_over_it_quickly() -> None:
    seconds: list[float] = []
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        exchange = Exchange(grid)
        nodes = list(grid.get_node_ids())
        for number in range(50):
            began = time.perf_counter()
            packet = Packet("round", b"%d" % number, bytes(240))
            assert len(dict(exchange.ask(dict.fromkeys(nodes, packet), 5))) == 4
            seconds.append(time.perf_counter() - began)

    grid = InProcessGrid({node: make_client_app(lambda p: p) for node in range(1, 5)})
    app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    assert sorted(seconds)[25] < 0.05
